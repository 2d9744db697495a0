"""Where an array lies that does not travel: a slot of memory which both sides have, see `common.payload_room`."""

from typing import NamedTuple

from common.protocol.values import Natural, Positive, Shape, check_tensor


class Placed(NamedTuple):
    """An array of this dtype and shape at the beginning of a slot; `use` is a number of its own for each message."""

    slot: Natural
    use: Positive
    dtype: str
    shape: Shape

    @property
    def nbytes(self) -> int:
        """Bytes that dtype and shape ask for. Raises ProtocolError for a dtype that does not travel."""
        return check_tensor("placed", self.dtype, self.shape)
