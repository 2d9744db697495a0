"""What selects on one of several ranks goes by its own share of the samples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.config import TrainerOptions
from common.data.fingerprint import data_fingerprint
from common.data.sources import open_source
from common.errors import ConfigError
from common.models import build_model, find_head
from common.order import keyed_uint64
from common.selection.method import Offer
from common.shard import WHOLE, Shard
from trainer.agreed import audits_of, terms_of
from trainer.assembly import Assembly, assemble
from trainer.plan import Plan

NUM = 121
SHARD = Shard(1, 3)  # 40 samples


def assembled(shard: Shard = SHARD, **settings: Any) -> tuple[Assembly, TrainerOptions]:
    options = make_options(**settings)
    source = open_source(options)
    model = build_model(options.model, source.sample, seed=0)
    return assemble(options, source, model, find_head(model), Plan.of(options), shard), options


def make_options(**settings: Any) -> TrainerOptions:
    fixed = {"data": "synthetic", "synthetic": {"num_samples": NUM}, "model": "small", "batch_size": 8, "steps": 9}
    return TrainerOptions.model_validate({**fixed, "mode": "fresh", **settings})


def test_ledger_order_and_sweep_are_of_the_share() -> None:
    assembly, _ = assembled(method="rank", mode="stale")
    assert assembly.ledger is not None
    assert assembly.ledger.num_samples == assembly.selector.order.num_samples == 40
    assert assembly.pace.sweep is not None
    assert assembly.pace.sweep[0] == 40
    assert assembly.selector.order == SHARD.candidates(NUM, 0)


def test_ranks_draw_for_themselves_and_one_rank_as_ever() -> None:
    seeds = [assembled(shard)[0].selector._generator(16).initial_seed() for shard in (WHOLE, Shard(0, 3), SHARD)]
    assert len(set(seeds)) == 3
    assert seeds[0] == int(keyed_uint64(0, "selection", 16))


def test_classes_are_looked_up_under_the_ids_of_all() -> None:
    assembly, options = assembled(method="loss-balanced")
    ids = np.arange(40)
    assert assembly.selector._targets_of is not None
    targets = assembly.selector._targets_of(ids)
    assert targets.tolist() == open_source(options).targets(torch.from_numpy(ids * 3 + 1)).tolist()


def test_histories_are_of_the_share() -> None:
    assembly, _ = assembled(method="biased-importance")
    assert assembly.histories is not None
    assert assembly.histories.of(np.array([39])).shape == (1, 10)
    with pytest.raises(IndexError):
        assembly.histories.of(np.array([40]))


def test_irreducible_losses_are_those_of_the_share(tmp_path: Path) -> None:
    source, options = open_source(make_options()), make_options()
    losses, data = torch.arange(NUM) * 37 % NUM, data_fingerprint(source, options.augment)["data"]
    torch.save({"losses": losses.float(), "data": data, "num_samples": NUM}, tmp_path / "table.pt")
    assembly, _ = assembled(method="rho-loss", irreducible=tmp_path / "table.pt")
    offer = Offer({"loss": torch.zeros(40)}, torch.arange(40))
    chosen = assembly.selector.method.select(offer, 3, torch.Generator()).indices
    assert chosen.tolist() == losses[1::3].argsort()[:3].tolist()


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_batch_that_the_smallest_share_cannot_fill_is_refused_on_every_rank(rank: int) -> None:
    with pytest.raises(
        ConfigError, match="--batch-size 41: --method rank draws different samples, and each of 3 ranks"
    ):
        assembled(Shard(rank, 3), method="rank", batch_size=41)


def test_fewer_samples_than_ranks_are_refused() -> None:
    with pytest.raises(ConfigError, match="122 trainer ranks cannot share 121 samples; start fewer"):
        assembled(Shard(5, 122))


def test_scorers_are_told_the_rank_and_rank_0_alone_has_chunks_scored_twice() -> None:
    settings = {"mode": "stale", "method": "mms", "log": {"audit_fraction": 1.0}}
    for shard, fraction in ((WHOLE, 1.0), (Shard(0, 3), 1.0), (SHARD, 0.0)):
        assembly, options = assembled(shard, **settings)
        source = open_source(options)
        terms = terms_of(options, source, build_model(options.model, source.sample, seed=0), 7, assembly, shard)
        welcome = terms.welcome(1, wire="float32", weights_port=0, version=None)
        assert (welcome.rank, welcome.num_ranks, welcome.num_samples) == (shard.rank, shard.num_ranks, NUM)
        assert audits_of(options, terms)._threshold == fraction
