"""The dashboard and the alerts: every name and label in them is one that trainers or scorers expose."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector

from scorer.metrics import METRICS as SCORER_METRICS
from tests.deploy.commands import DEPLOY
from trainer import watching
from trainer.metrics import METRICS as TRAINER_METRICS
from trainer.profile import WAIT

GRAFANA = DEPLOY / "grafana"
BOARD = json.loads((GRAFANA / "marginstream.json").read_text())
ALERTS = yaml.safe_load((GRAFANA / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
EXPRESSIONS = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", ())]
EXPRESSIONS += [rule["expr"] for rule in RULES]
SOURCES = "".join(
    path.read_text() for folder in ("trainer", "common") for path in (DEPLOY.parent / folder).rglob("*.py")
)


def exposed() -> Iterator[tuple[str, set[str]]]:
    """(name, labels) of every series."""
    yield "up", set()
    for metric in (*TRAINER_METRICS, *SCORER_METRICS):
        name = metric.shown_name.partition("{")[0]
        if metric.kind == "histogram":
            yield f"{name}_bucket", {"le"}
            yield from ((f"{name}_{end}", set()) for end in ("sum", "count"))
        else:
            yield name, set(metric.labels)
    for family in ProcessCollector(registry=CollectorRegistry()).collect():
        yield from ((sample.name, set()) for sample in family.samples)


SERIES = dict(exposed())


@pytest.fixture(scope="module")
def promql() -> Any:
    return pytest.importorskip("promql_parser", reason="expressions are read by promql-parser")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_reads_what_is_exposed(expression: str, promql: Any) -> None:
    tree = promql.parse(expression.replace("$__rate_interval", "5m"))
    named, labels = [], set()

    def visit(node: Any) -> None:
        if isinstance(node, promql.VectorSelector):
            named.append(node.name)
            labels.update(matcher.name for matcher in node.matchers.matchers)
        elif isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            labels.update(node.modifier.labels)

    promql.walk(tree, visit)
    assert named
    assert set(named) <= SERIES.keys()
    assert labels <= set().union(*(SERIES[name] for name in named)) | {"job", "instance"}


def test_every_value_that_is_looked_for_occurs() -> None:
    values = set()
    for name, value in re.findall(r'(\w+)=~?"([^"$]+)"', " ".join(EXPRESSIONS)):
        values |= {(name, one) for one in value.split("|")}
    alarms = {("alarm", name) for name in (watching.NO_SCORER, watching.RESIDENT, watching.DROPS)}
    assert {pair for pair in values if pair[0] == "alarm"} == alarms
    assert {pair for pair in values if pair[0] == "phase"} <= {("phase", WAIT)}
    assert all(f'"{event}"' in SOURCES for name, event in values if name == "event")
    assert {name for name, _ in values} == {"alarm", "event", "phase", "job"}


def test_every_alarm_of_a_trainer_alerts_somebody_who_is_told_what_to_do() -> None:
    page = (DEPLOY / "README.md").read_text()
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert f"`{rule['alert'].removeprefix('Marginstream')}`" in page, f"{rule['alert']}: what is to be done?"
    assert any("checkpoints_failed" in rule["expr"] for rule in RULES)


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
