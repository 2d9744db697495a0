"""The scorer without torch: small, seeded, and a full member of the protocol."""

import subprocess
import sys

import numpy as np
import pytest
from msgspec.structs import replace

from common.config import ScorerOptions
from common.errors import ConfigError
from common.protocol import Lease, TensorSpec, Version, Welcome, decode, encode, unpack_mask
from scorer.backend import SyntheticBackend, make_backend
from scorer.loop import hello_of
from scorer.staging import StagedWeights

WITHIN_S = 60.0


def options(**synthetic: float) -> ScorerOptions:
    return ScorerOptions.model_validate(
        {"connect": "ipc:///nowhere/t", "backend": "synthetic", "synthetic_backend": {"chunk_s": 0.0, **synthetic}}
    )


def welcome(transfer: str = "reference", scores: tuple[str, ...] = ("mms",)) -> Welcome:
    return Welcome(1, 7, 0, 100, 8, scores, transfer, None, True, "float32", 0, None, 1.0, 10.0)


def ready(**synthetic: float) -> SyntheticBackend:
    backend = SyntheticBackend(options(**synthetic))
    backend.load(StagedWeights(Version(7, 3), (TensorSpec("w", "uint8", (1,)),), np.zeros(64, np.uint8)))
    return backend


def lease(start: int, mask: bytes = b"") -> Lease:
    return Lease(5, 7, start, start + 8, mask, 0, 60.0)


def test_a_synthetic_scorer_starts_without_torch() -> None:
    script = (
        "import sys\n"
        "from common.config import ScorerOptions\n"
        "import scorer.__main__\n"
        "from scorer import loop\n"
        "from scorer.backend import make_backend\n"
        "options = ScorerOptions(connect='ipc:///nowhere/t', backend='synthetic')\n"
        "backend = make_backend(options)\n"
        "loop.hello_of(options, backend)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 0, done.stderr or "torch was imported"


def test_scores_are_seeded_by_position_and_survive_the_wire() -> None:
    backend = ready()
    first, again = backend.score(lease(16), welcome()), backend.score(lease(16), welcome())
    answer = decode(encode(first))
    answer.check(lease(16), welcome())
    assert answer.version == Version(7, 3)
    (scores,) = answer.finite_scores()
    assert np.isfinite(scores).all()
    assert np.array_equal(scores, again.finite_scores()[0])
    assert not np.array_equal(scores, backend.score(lease(24), welcome()).finite_scores()[0])
    assert not np.array_equal(scores, ready(seed=1).score(lease(16), welcome()).finite_scores()[0])


def test_a_re_issued_lease_gets_the_same_scores_from_another_scorer() -> None:
    one, other = ready().score(lease(16), welcome()), ready().score(lease(16), welcome())
    assert np.array_equal(one.finite_scores()[0], other.finite_scores()[0])


def test_a_masked_lease_is_scored_only_where_it_asks() -> None:
    backend, mask = ready(), bytes([0b10010001])
    answer = backend.score(lease(16, mask), welcome())
    assert answer.num == 3
    every = backend.score(lease(16), welcome()).finite_scores()[0]
    assert np.array_equal(answer.finite_scores()[0], every[unpack_mask(mask, 8)])


def test_every_score_that_is_wanted_is_sent() -> None:
    answer = ready().score(lease(0), welcome(scores=("loss", "mms")))
    answer.check(lease(0), welcome(scores=("loss", "mms")))
    loss, mms = answer.finite_scores()
    assert not np.array_equal(loss, mms)


def test_embeddings_are_sent_where_they_are_wanted() -> None:
    wanting = replace(welcome(), embeddings=True)
    first, again = (decode(encode(ready().score(lease(0), wanting))) for _ in range(2))
    first.check(lease(0), wanting)
    assert first == again
    assert len(np.unique(first.features.as_numpy(), axis=0)) == 8


def test_payload_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match="use --transfer reference at the trainer"):
        ready().begin(welcome("payload"))


def test_it_says_hello_as_what_it_is() -> None:
    backend = make_backend(options())
    hello = decode(encode(hello_of(options(), backend)))
    assert (hello.backend, hello.fingerprint, hello.num_samples) == ("synthetic", {}, 0)
    assert hello.incarnation != hello_of(options(), backend).incarnation
