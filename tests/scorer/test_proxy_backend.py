"""The scorer with a smaller model of its own: scores first, trains then, or stays frozen."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from common.data.augment import Augmentation
from common.data.reader import SampleReader
from common.errors import ConfigError, TrainingDiverged
from common.models import build_model, find_head
from common.order import Order
from common.protocol import Candidates, Lease, Welcome, decode, encode
from common.scored import Scored
from common.scoring import score_candidates
from scorer.backend import Learner, make_backend
from scorer.proxy_backend import ProxyBackend
from tests.scorer.leases import CHUNK, NUM, SEED, SOURCE, lease, options, version, welcome

SCORES = ("mms", "loss")
WELCOME = welcome(SCORES)


def ready(begun: Welcome = WELCOME, **more: object) -> ProxyBackend:
    backend = make_backend(options("proxy", **{"proxy_model": "small", "model": "resnet8", **more}))
    assert isinstance(backend, ProxyBackend)
    backend.begin(begun)
    backend.version = version()
    return backend


def scored(backend: ProxyBackend, of: Lease, begun: Welcome = WELCOME) -> Candidates:
    got = decode(encode(backend.score(of, begun)))
    assert isinstance(got, Candidates)
    got.check(of, begun)
    return got


def chunk(start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Prepared inputs and targets of a lease."""
    augmentation = Augmentation(options("torch").augment, SEED, SOURCE.sample)
    reader = SampleReader(SOURCE, augmentation, Order(NUM, SEED, "candidates"))
    samples = reader.read(np.arange(start, start + CHUNK))
    return SOURCE.prepare(samples.inputs), samples.targets


def expected(model: nn.Module, start: int = 0) -> Scored:
    return score_candidates(model, find_head(model), *chunk(start), SCORES)


def test_it_scores_in_eval_mode_and_then_takes_one_step_on_the_first_rows_of_the_chunk() -> None:
    model = build_model("resnet8", SOURCE.sample, seed=SEED).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    backend = ready(proxy_model="resnet8", proxy_lr=0.1, proxy_train_fraction=0.3)
    for start in (0, CHUNK, 2 * CHUNK):
        got, want = scored(backend, lease(start)), expected(model, start)
        for name, row in zip(SCORES, got.finite_scores(), strict=True):
            np.testing.assert_allclose(row, want.scores[name].numpy(), rtol=1e-5, err_msg=name)
        assert got.version == version()
        assert got.loss_mean == pytest.approx(want.loss_mean)
        inputs, targets = chunk(start)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[:19]), targets[:19]).backward()  # 0.3 of 64
        optimizer.step()


def test_it_learns_the_data_from_what_it_scores() -> None:
    backend = ready()
    accuracies = [scored(backend, lease(index * CHUNK)).accuracy for index in range(60)]
    assert accuracies[0] is not None
    assert accuracies[0] < 0.4
    assert np.mean(accuracies[-10:]) > 0.8  # type: ignore[arg-type]


def test_frozen_weights_stay_what_the_file_says(tmp_path: Path) -> None:
    model = build_model("small", SOURCE.sample, seed=5)
    torch.save(model.state_dict(), tmp_path / "proxy.pt")
    backend = ready(proxy_weights=str(tmp_path / "proxy.pt"))
    want = expected(model).scores["mms"].numpy()
    for _ in range(2):
        np.testing.assert_array_equal(scored(backend, lease()).finite_scores()[0], want)


def test_what_was_learned_holds_for_one_life_of_a_trainer() -> None:
    backend = ready()
    first, second = (scored(backend, lease()).loss_mean for _ in range(2))
    backend.begin(welcome(SCORES, session=2))
    assert scored(backend, lease()).loss_mean not in (first, second)
    backend.begin(welcome(SCORES, session=3, generation=8))
    assert scored(backend, lease()).loss_mean == first
    assert scored(ready(welcome(SCORES, seed=4)), lease()).loss_mean != first


def test_one_sample_is_too_few_for_batch_norm_and_ends_nothing() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layers(inputs)  # type: ignore[no-any-return]

    backend = ready()
    backend._model = Normed()
    scored(backend, Lease(5, 7, 0, 1, b"", 0, 60.0))


def test_a_proxy_that_diverged_ends_with_the_remedy_and_a_frozen_one_only_drops(tmp_path: Path) -> None:
    model = build_model("small", SOURCE.sample, seed=5)
    with torch.no_grad():
        find_head(model, None).weight.fill_(torch.nan)
    torch.save(model.state_dict(), tmp_path / "proxy.pt")
    assert scored(ready(proxy_weights=str(tmp_path / "proxy.pt")), lease()).dropped_flags().all()
    backend = ready()
    backend._model = model
    with pytest.raises(TrainingDiverged, match="lower --proxy-lr"):
        backend.score(lease(), WELCOME)


BAD_OPTIONS: dict[str, tuple[str, dict[str, object], str]] = {
    "no proxy": ("proxy", {}, "--backend proxy needs --proxy-model"),
    "a proxy unasked": ("torch", {"proxy_model": "small"}, "--proxy-model needs --backend proxy, got --backend torch"),
    "weights unasked": ("predictor", {"proxy_weights": "w.pt"}, "--proxy-weights needs --backend proxy"),
    "bf16": ("proxy", {"proxy_model": "small", "precision": "bf16"}, "--backend proxy computes in float32"),
    "no rows": ("proxy", {"proxy_model": "small", "proxy_train_fraction": 0.0}, "greater than 0"),
}


@pytest.mark.parametrize(("backend", "more", "says"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_options_that_contradict_each_other_are_refused(backend: str, more: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        options(backend, **more)


def test_payload_ships_what_was_scored() -> None:
    begun = welcome(SCORES, transfer="payload", best_k=5)
    got = scored(ready(begun), lease(), begun)
    assert got.rows is not None
    order = np.argsort(got.finite_scores()[0], kind="stable")
    assert got.rows.as_numpy().tolist() == order[:5].tolist()


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "foreign": (lambda path: path.write_bytes(b"no tensors"), "is no file of tensors"),
    "no state dict": (lambda path: torch.save([torch.zeros(1)], path), "holds no state dict"),
    "another model": (lambda path: torch.save({"w": torch.zeros(1)}, path), "does not fit --proxy-model"),
}


@pytest.mark.parametrize(("write", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_of_weights_is_named_with_the_remedy(
    write: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "proxy.pt"
    write(path)
    with pytest.raises(ConfigError, match=rf"(?s)--proxy-weights {path}:? {says}.*; save the proxy's with torch.save"):
        ready(proxy_weights=str(path))


def test_a_proxy_that_does_not_exist_is_named_by_its_option() -> None:
    with pytest.raises(ConfigError, match="--proxy-model resnet9: "):
        ready(proxy_model="resnet9")


def test_it_wants_no_weights_and_has_no_model_to_compare() -> None:
    backend = ready()
    assert not backend.wants_weights
    assert not isinstance(backend, Learner)
    assert "model" not in backend.fingerprint
