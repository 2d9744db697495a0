"""What a run's terms come to in bytes, and which of them no message can carry."""

from dataclasses import replace
from typing import Any

import pytest

from common.config import TrainerOptions
from common.data.sources import open_source
from common.errors import ConfigError
from common.models import build_model, find_head
from common.protocol.limits import Limits
from common.transport import CONTROL
from tests.trainer.lease_events import TERMS
from trainer.agreed import terms_of
from trainer.assembly import assemble
from trainer.plan import Plan

MIB = 1 << 20
IMAGES = {"transfer": "payload", "sample_shape": (3, 224, 224), "sample_dtype": "float32"}
WIDE = {"embeddings": True, "embedding_sizes": (1000, 2048)}


@pytest.mark.parametrize(
    "changes",
    [
        {**IMAGES, "chunk_size": 445},
        {**IMAGES, "chunk_size": 1780, "sample_dtype": "uint8"},
        {**IMAGES, "chunk_size": 4096, "best_k": 445},
        {**IMAGES, "chunk_size": 4096, "transfer": "reference"},
        {**WIDE, "chunk_size": 65536},
    ],
)
def test_chunks_up_to_what_a_message_carries_are_fine(changes: dict[str, Any]) -> None:
    terms = replace(TERMS, **changes)
    terms.check_answers()
    assert terms.frame_limits[CONTROL] <= 256 * MIB


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {**IMAGES, "chunk_size": 512},
            (
                "^--chunk-size 512: the answer to a chunk, with payload of 3x224x224 float32 samples, has 294.1 MiB, "
                "294.0 MiB in one array; a message has at most 512 and 256 MiB; give a smaller --chunk-size, "
                "or --transfer reference$"
            ),
        ),
        ({**IMAGES, "chunk_size": 446}, "--chunk-size 446: .* 256.1 MiB in one array"),
        ({**IMAGES, "chunk_size": 4096, "best_k": 446}, "--chunk-size 4096: .* 256.1 MiB in one array"),
        ({**WIDE, "chunk_size": 65537}, r"with embeddings, has 381.* MiB, .*; give a smaller --chunk-size$"),
        (
            {**IMAGES, **WIDE, "chunk_size": 65536, "sample_shape": (4096,), "sample_dtype": "uint8"},
            "has 637.* MiB, 256.0 MiB",
        ),
    ],
)
def test_a_chunk_that_no_message_carries_is_refused_with_its_size_and_the_remedy(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TERMS, **changes).check_answers()


def test_a_run_whose_chunks_are_too_large_has_no_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.terms.DEFAULT_LIMITS", Limits(max_frame_bytes=100))
    options = TrainerOptions(data="synthetic", model="small", transfer="payload", steps=9)
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=0)
    assembly = assemble(options, source, model, find_head(model), Plan.of(options))
    with pytest.raises(ConfigError, match="--chunk-size 64: "):
        terms_of(options, source, model, 7, assembly)
