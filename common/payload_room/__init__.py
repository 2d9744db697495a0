"""Payload of a scorer on the trainer's host: in memory that both processes have, instead of through the socket.

A **room** is one area of shared memory, made by a scorer for one session and handed to the trainer. It has slots; the
inputs of one chunk fill one slot, and CANDIDATES say which (`Placed`) in place of the bytes. Scores, targets and
everything else travel in the message as ever: what indexes anything cannot change after the trainer has checked it.

    scorer (I/O thread)                                     trainer
    slot i is free: the release of its last use was read    tensors over slot i, not copied, in chunks and pool
    use = next number; inputs copied into slot i            the last of them is gone, in whatever thread:
    CANDIDATES(placed = slot i, use)  ───── socket ─────►     release[i] = use  ── in the room ──► slot i is free

**Whose slot.** The scorer's from its release until CANDIDATES left, the trainer's from then on until nothing refers to
its memory any more: the release hangs on the memory itself and not on a call that somebody could forget or make early.
Only the trainer writes releases. A use is a number that a scorer never gives twice, in no session, and that only grows
in a slot: a late or doubled message can release nothing but what it placed. A message that did not leave gives its slot
back at once; one that is lost costs a slot until the session ends.

**Nothing leaks.** The area is a memfd: it has no name in any file system, so whoever is killed, the kernel frees it
with the last mapping. It needs no /dev/shm, which is small in containers. A session that ends takes its room along; a
mapping stays as long as tensors over it.

**Nothing is trusted.** The descriptor comes over a unix socket beside the control endpoint, in its private 0700 folder
(SCM_RIGHTS), with the number of the session, which only its scorer knows. It is taken only if it is sealed against
shrinking (a peer that truncated it would kill the trainer with SIGBUS), has exactly the size that slots and sizes
make, and is no larger than `ROOM_BYTES`. Slot, use, dtype and shape of a message are checked against the trainer's own
account. Nothing received is a path or an address. The trainer writes into the room that it has taken it, and a scorer
places nothing before that: a room that is refused costs nobody a session. A scorer that breaks the rules and writes
where the trainer reads spoils samples, as it could by sending other ones; it runs as the same user.

**The socket is always right.** Decided for each message: no room on tcp, on other systems than Linux, where memory or
descriptors ran out, for chunks below `SOCKET_BYTES` or above half of `ROOM_BYTES`; no slot free while a trainer holds
many chunks. Pages are taken as slots are first used, the lowest free slot first: a room costs what is under way.
"""

from common.payload_room.reading import Rooms
from common.payload_room.writing import PayloadRoom

__all__ = ["PayloadRoom", "Rooms"]
