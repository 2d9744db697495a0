"""Weights as the ranks that push none see them: rank 0 does, and scorers have one version for all ranks."""

from common.protocol import Version
from trainer.pool import Pool


class FollowedVersions:
    """The versions that scores may be of. Which ones rank 0 pushed, this rank is not told; any thread.

    No rank completes step s before every rank took its batch of step s - 1, for which `pool` gathered then. So a later
    version than s = `pool.next_step` + 1 cannot exist.
    """

    def __init__(self, generation: int, pool: Pool) -> None:
        self._generation = generation
        self._pool = pool

    def __contains__(self, version: object) -> bool:
        if not isinstance(version, Version) or version.generation != self._generation:
            return False
        return version.step <= self._pool.next_step + 1
