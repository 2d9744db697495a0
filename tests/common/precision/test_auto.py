"""--precision auto: the fastest that selects nearly what float32 does."""

import logging

import pytest
import torch

from common.errors import ConfigError
from common.models import build_model, find_head
from common.precision.auto import Trial, _overlap, choose, choose_precision, try_precisions
from tests.scorer.leases import SOURCE

EXACT = Trial("float32", 256, 0.1, 1.0, 1.0)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([("bf16", 3.0, 1.0), ("int8", 8.0, 0.9)], "int8"),
        ([("bf16", 3.0, 1.0), ("int8", 8.0, 0.2)], "bf16"),
        ([("bf16", 1.05, 1.0), ("int8", 0.8, 1.0)], "float32"),
        ([("bf16", 3.0, float("nan"))], "float32"),
        ([], "float32"),
    ],
    ids=["fastest", "fastest that selects alike", "no gain", "nothing finite", "nothing else"],
)
def test_the_fastest_that_selects_alike_is_taken(others: list[tuple[str, float, float]], expected: str) -> None:
    trials = [EXACT, *(Trial(name, 256, 0.1 / speed, speed, overlap) for name, speed, overlap in others)]
    assert choose(trials).precision == expected


def test_precisions_are_tried_on_a_copy_and_the_choice_is_said_with_its_figures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = build_model("small", SOURCE.sample, seed=0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    with caplog.at_level(logging.INFO):
        chosen = choose_precision(model, find_head(model), SOURCE)
    assert chosen in ("float32", "bf16", "int8")
    assert f"--precision auto: {chosen} on cpu (against float32: bf16 " in caplog.text
    assert "times as fast" in caplog.text
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random)


def test_a_precision_that_a_device_has_not_is_not_tried() -> None:
    model = build_model("small", SOURCE.sample, seed=0).eval()
    inputs, targets = SOURCE.train.fetch(torch.arange(64))
    trials = try_precisions(model, find_head(model), SOURCE.prepare(inputs), targets, "mms")
    assert "fp16" not in [trial.precision for trial in trials]
    assert (trials[0].precision, trials[0].speed, trials[0].overlap) == ("float32", 1.0, 1.0)
    assert all(trial.pass_s > 0 and 0 <= trial.overlap <= 1 for trial in trials)


def test_a_precision_that_loses_candidates_selects_nothing_alike() -> None:
    exact = torch.arange(256.0)
    low = exact.clone()
    low[20:] = float("nan")
    assert _overlap(exact, low, 26, lowest_is_hard=True) == 0.0
    assert _overlap(exact, exact, 26, lowest_is_hard=True) == 1.0
    assert _overlap(low, low, 26, lowest_is_hard=True) == 1.0  # bad samples are lost in any precision


def test_auto_with_compile_is_refused_where_nothing_is_captured() -> None:
    model = build_model("small", SOURCE.sample, seed=0)
    with pytest.raises(ConfigError, match=r"--compile: .* the model is on cpu; leave it off"):
        choose_precision(model, find_head(model), SOURCE, compile=True)
