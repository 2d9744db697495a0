"""Where each rank's leases are read from: samples by position in the order of that rank's shard."""

from common.config import ScorerOptions
from common.data.augment import Augmentation
from common.data.reader import SampleReader
from common.data.source import Source
from common.protocol import Welcome
from common.shard import Shard


class Readers:
    """One reader for each rank that a session began with, over one source; those of an earlier trainer are let go."""

    def __init__(self, options: ScorerOptions, source: Source) -> None:
        self._options = options
        self._source = source
        self._life: tuple[int, int] | None = None
        self._by_rank: dict[int, SampleReader] = {}

    def begin(self, welcome: Welcome) -> None:
        """A session with this rank: its seed holds from now on."""
        if self._life != (life := (welcome.generation, welcome.num_ranks)):
            self._life = life
            self._by_rank.clear()
        shard, sample = Shard(welcome.rank, welcome.num_ranks), self._source.sample
        order = shard.candidates(sample.num_samples, welcome.seed)
        augmentation = Augmentation(self._options.augment, welcome.seed, sample)
        self._by_rank[welcome.rank] = SampleReader(self._source, augmentation, order, shard)

    def of(self, welcome: Welcome) -> SampleReader:
        """Samples by the positions of the leases of this session."""
        assert welcome.rank in self._by_rank, "a lease before the welcome"
        return self._by_rank[welcome.rank]
