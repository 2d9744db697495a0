"""A trainer that cannot read the training data trains on what its scorer ships, plain batches included."""

from tests.service.processes import Processes, assert_balanced

SOURCES = """
from dataclasses import replace

from common.config import DataOptions, SyntheticOptions
from common.data.source import AbsentSplit
from common.data.synthetic import open_synthetic


def complete():
    return open_synthetic(DataOptions(data="synthetic", synthetic=SyntheticOptions(num_samples=512)))


def held_out_only():
    source = complete()
    return replace(source, train=AbsentSplit(len(source.train)))
"""
FLAGS = ("--steps", "100", "--batch-size", "16", "--candidates", "64", "--fallback", "wait", "--log.trace")


def test_a_trainer_without_data_trains_on_what_is_shipped_as_one_that_reads_them_does(processes: Processes) -> None:
    (processes.folder / "sources.py").write_text(SOURCES)
    for out, data in (("absent", "held_out_only"), ("reads", "complete")):
        endpoint = processes.endpoint(out)
        payload = ("--transfer", "payload", "--listen", endpoint)
        trainer = processes.trainer(out, "--data", f"sources:{data}", *FLAGS, *payload)
        scorer = processes.scorer(f"scorer-{out}", endpoint, "--data", "sources:complete")
        trainer.succeeds()
        scorer.succeeds()
        summary = processes.summary(out)
        assert_balanced(summary)
        assert summary["steps_by_origin"] == {"plain": 15, "stale": 85}
    assert processes.summary("absent")["accuracy"] > 0.9
    plain_ids = [line["ids"] for line in processes.trace("absent") if line["origin"] == "plain"]
    flat = [one for ids in plain_ids for one in ids]
    assert len(flat) == 15 * 16, "every plain batch is full"


def test_a_trainer_without_data_needs_all_of_the_payload(processes: Processes) -> None:
    (processes.folder / "sources.py").write_text(SOURCES)
    trainer = processes.trainer("out", "--data", "sources:held_out_only")
    assert trainer.code() == 2
    assert "use --transfer payload --payload all" in trainer.output
