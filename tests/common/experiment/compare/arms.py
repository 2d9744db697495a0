"""Arms with figures that a test chooses."""

from typing import Any

from common.experiment.results import ArmResult, Ratio, Reached, Results, RunResult, Spread


def arm(name: str, accuracies: list[float], **more: Any) -> ArmResult:
    """An arm with one finished run for each accuracy; numbers in `more` become spreads of one value."""
    mode = name.partition(":")[0]
    runs = [
        RunResult(seed=seed, folder=f"{name}/{seed}", status="done", accuracy=value)
        for seed, value in enumerate(accuracies)
    ]
    figures = {
        key: Spread.of([value]) if isinstance(value, int | float) and key not in ("cores", "is_clean") else value
        for key, value in more.items()
    }
    own: dict[str, Any] = {"method": "mms", "options": {}, "cores": 1, "device": "cpu", "runs": runs, "is_clean": True}
    return ArmResult(**({"name": name, "mode": mode, "accuracy": Spread.of(accuracies)} | own | figures))


def ratio(plain: str = "uniform", **values: float) -> Ratio:
    return Ratio(plain=plain, **values)


def reached(target: float, num_runs: int, num_reached: int, **values: Any) -> Reached:
    return Reached(target=target, num_runs=num_runs, num_reached=num_reached, **values)


def results(*arms: ArmResult, **more: Any) -> Results:
    own: dict[str, Any] = {"title": "toy", "command": "marginstream compare", "created": "now", "shared": {}}
    return Results(**(own | {"arms": list(arms)} | more))
