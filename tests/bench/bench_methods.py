"""Every method beside plain training, at equal steps: `python -m tests.bench.bench_methods [--out FOLDER]`.

Runs `marginstream run` for each method, mode and seed, one after the other, and prints a Markdown table: held-out
accuracy as mean (lowest to highest) over the seeds, candidates scored for each trained sample, and the share of steps
that trained on selected samples. Runs that are complete in the folder are not repeated.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.selection.registry import METHODS
from tests.bench.measure import machine

MODES = ("fresh", "stale")
RUN_S = 600.0


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints the table and a JSON line; returns what the line holds."""
    parser = argparse.ArgumentParser(prog="bench_methods", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/methods"), help="folder of the runs")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, seeds 0, 1, ...")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="options of all runs; must come last")
    chosen = parser.parse_args(argv)
    table = {method: _row(method, chosen) for method in chosen.methods}
    _print_table(table)
    result = {"bench": "methods", "seeds": chosen.seeds, "options": chosen.options, "methods": table}
    print(json.dumps(result | {"machine": machine()}))
    return result


def _row(method: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Figures by mode; plain training has one."""
    modes = ("uniform",) if method == "uniform" else chosen.modes
    return {mode: _figures([_run(method, mode, seed, chosen) for seed in range(chosen.seeds)]) for mode in modes}


def _run(method: str, mode: str, seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    folder = chosen.out / f"{method}-{mode}-{seed}"
    if not (folder / "summary.json").exists():
        words = ["--method", method, "--mode", mode, "--seed", str(seed), "--out", str(folder), "--log.no-tensorboard"]
        if method == "rho-loss":
            words += ["--irreducible", str(_irreducible_table(chosen))]
        _call("run", *words, *chosen.options)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def _irreducible_table(chosen: argparse.Namespace) -> Path:
    path: Path = chosen.out / "irreducible.pt"
    if not path.exists():
        chosen.out.mkdir(parents=True, exist_ok=True)
        _call("irreducible", "--out", str(path))
    return path


def _call(*words: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import sys; from common.cli import main; sys.exit(main())", *words],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    if ended.returncode != 0:
        raise SystemExit(f"marginstream {' '.join(words)} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    print(f"# {' '.join(words)}", file=sys.stderr, flush=True)


def _figures(summaries: list[dict[str, Any]]) -> dict[str, float]:
    accuracies = [summary["accuracy"] for summary in summaries]
    return {
        "accuracy": statistics.mean(accuracies),
        "lowest": min(accuracies),
        "highest": max(accuracies),
        "scored_per_trained": statistics.mean(
            summary["samples_scored"] / summary["samples_trained"] for summary in summaries
        ),
        "selected_fraction": statistics.mean(summary["selected_fraction"] for summary in summaries),
    }


def _print_table(table: dict[str, Any]) -> None:
    print("| method | fresh | scored / trained | stale | scored / trained | selected steps |")
    print("|---|---|---|---|---|---|")
    for method, row in table.items():
        if "uniform" in row:
            print(f"| `{method}` (plain training) | {_accuracy(row['uniform'])} | 0 | – | – | – |")
            continue
        fresh, stale = ("– | –", "– | – | –")
        if figures := row.get("fresh"):
            fresh = f"{_accuracy(figures)} | {figures['scored_per_trained']:.2f}"
        if figures := row.get("stale"):
            share = f"{figures['selected_fraction']:.0%}"
            stale = f"{_accuracy(figures)} | {figures['scored_per_trained']:.2f} | {share}"
        print(f"| `{method}` | {fresh} | {stale} |")


def _accuracy(figures: dict[str, float]) -> str:
    mean, low, high = (100 * figures[name] for name in ("accuracy", "lowest", "highest"))
    return f"{mean:.2f} % ({low:.2f}–{high:.2f})"


if __name__ == "__main__":
    main()
