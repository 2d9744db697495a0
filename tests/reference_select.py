"""Slow ground truth of `common.selection.select`: loops in the papers' notation, in plain Python or exact fractions.

Arguments and results are tensors, as in the functions they stand beside. Those that draw take the uniform numbers u in
place of a generator.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor


def floats(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).float()


def ints(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def finite(values: Tensor) -> dict[int, float]:
    return {i: value for i, value in enumerate(values.tolist()) if math.isfinite(value)}


def share(mass: dict[int, float], length: int) -> Tensor:
    """Masses over their sum; equal ones where the sum is zero; 0 for who has no mass."""
    total = sum(map(Fraction, mass.values()))
    return floats(
        [
            float(Fraction(mass[i]) / total if total else Fraction(1, len(mass))) if i in mass else 0
            for i in range(length)
        ]
    )


def percentile_probability(losses_B: Tensor, history_H: Tensor, beta: float, kind: str) -> Tensor:
    """(#{h < l} / H)^beta; "mid" adds #{h = l} / 2."""
    history = list(finite(history_H).values())
    probability = []
    for loss in losses_B.tolist():
        below = sum(h < loss for h in history)
        equal = sum(h == loss for h in history) / 2 if kind == "mid" else 0
        probability.append(((below + equal) / len(history)) ** beta if math.isfinite(loss) and history else 0.0)
    return floats(probability)


def ranked(losses: dict[int, float]) -> list[int]:
    """From the highest loss down, of equal ones the earlier first."""
    return sorted(losses, key=lambda i: (-losses[i], i))


def rank_power_probability(losses_B: Tensor, keep: float) -> Tensor:
    losses = finite(losses_B)
    mass = {i: ((r + 0.5) / len(losses)) ** (1 / keep - 1) for r, i in enumerate(reversed(ranked(losses)))}
    return share(mass if len(set(losses.values())) > 1 else dict.fromkeys(losses, 1.0), len(losses_B))


def exponential_rank_probability(losses_N: Tensor, pressure: float) -> Tensor:
    losses = finite(losses_N)
    mass = {i: math.exp(-math.log(pressure) / len(losses)) ** r for r, i in enumerate(ranked(losses), start=1)}
    return share(mass if len(set(losses.values())) > 1 else dict.fromkeys(losses, 1.0), len(losses_N))


def proportional_probability(scores_B: Tensor, c: float) -> Tensor:
    return share({i: Fraction(s) + Fraction(c) for i, s in finite(scores_B).items()}, len(scores_B))


def biased_weights(scores_B: Tensor, indices_b: Tensor, k: float) -> Tensor:
    """w = (Σ s)/B/s; ŵ = w^k · Σ_sel(w s)/Σ_sel(w^k s)."""
    s = {i: max(value, 1e-6) for i, value in finite(scores_B).items()}
    w = {i: sum(s.values()) / len(s) / s[i] for i in s}
    selected = indices_b.tolist()
    factor = sum(w[i] * s[i] for i in selected) / sum(w[i] ** k * s[i] for i in selected) if selected else 0
    return floats([w[i] ** k * factor for i in selected])


def variance_reduction_tau(scores_B: Tensor) -> float:
    """√(n Σ g²)."""
    s = list(finite(scores_B).values())
    if sum(s) == 0:
        return 1.0
    return math.sqrt(len(s) * sum((value / sum(s)) ** 2 for value in s))


def collapse_duplicates(indices_b: Tensor, weights_b: Tensor) -> tuple[Tensor, Tensor]:
    """m·w·u/b for each of the u rows."""
    added: dict[int, Fraction] = {}
    for i, w in zip(indices_b.tolist(), weights_b.tolist(), strict=True):
        added[i] = added.get(i, Fraction(0)) + Fraction(w)
    return ints(list(added)), floats([float(mw * len(added) / len(indices_b)) for mw in added.values()])


def inverse_cdf(scores_B: Tensor, uniforms_b: Tensor) -> Tensor:
    """The first position of the descending order whose cumulative share reaches u; rounds of what is left if equal."""
    scores = finite(scores_B)
    drawn, left = [], []
    for u in uniforms_b.tolist() if scores else []:
        if len(set(scores.values())) == 1:
            left = left or list(scores)
            j = math.floor(Fraction(u) * len(left))
            drawn.append(left[j])
            left[j] = left[-1]  # the last one fills the gap
            left.pop()
        else:
            cumulative, position = Fraction(0), -1
            while cumulative < Fraction(u) * sum(map(Fraction, scores.values())) or position < 0:
                position += 1
                cumulative += Fraction(scores[ranked(scores)[position]])
            drawn.append(ranked(scores)[position])
    return ints(drawn)


def sample_without_replacement(probability_B: Tensor, num: int, uniforms_B: Tensor) -> Tensor:
    """The first arrivals of exponential clocks of rate p; then those of rate 0, by clocks of rate 1."""
    p = finite(probability_B)
    clock = {i: -math.log1p(-u) for i, u in enumerate(uniforms_B.tolist())}
    arrivals = sorted((i for i in p if p[i] > 0), key=lambda i: clock[i] / p[i])
    return ints([*arrivals, *sorted((i for i in p if p[i] == 0), key=lambda i: clock[i])][:num])


def coins(probability_B: Tensor, uniforms_B: Tensor) -> Tensor:
    """u < p, one candidate at a time."""
    pairs = zip(probability_B.tolist(), uniforms_B.tolist(), strict=True)
    return torch.tensor([math.isfinite(p) and u < p for p, u in pairs], dtype=torch.bool)


def class_balanced_hardest(
    losses_B: Tensor, targets_B: Tensor, num: int, h: Fraction, class_order: list[int], uniforms_B: Tensor
) -> Tensor:
    """A queue per class; round-robin until ⌈h·b⌉, shuffle the queues, go on until b."""
    losses, y, u = finite(losses_B), targets_B.tolist(), uniforms_B.tolist()
    queues = {c: [i for i in ranked(losses) if y[i] == c] for c in class_order}
    taken: list[int] = []
    turn = 0
    shuffled = False
    while len(taken) < num and any(queues.values()):
        if len(taken) == math.ceil(h * num) and not shuffled:
            shuffled = True
            for queue in queues.values():
                queue.sort(key=lambda i: u[i])
        queue = queues[class_order[turn % len(class_order)]]
        turn += 1
        if queue:
            taken.append(queue.pop(0))
    return ints(taken)


def soft_prune(last_losses_N: Tensor, keep_ratio: float, uniforms_N: Tensor) -> tuple[Tensor, Tensor]:
    """Below the mean: kept if u < keep, weighted 1/keep. All else: kept, weighted 1."""
    known = finite(last_losses_N)
    mean = sum(map(Fraction, known.values())) / max(len(known), 1)
    kept = {}
    for i, u in enumerate(uniforms_N.tolist()):
        if i not in known or Fraction(known[i]) >= mean:
            kept[i] = 1.0
        elif u < keep_ratio:
            kept[i] = 1 / keep_ratio
    return ints(list(kept)), floats(list(kept.values()))


def diverse(gradients_BD: Tensor, num: int) -> Tensor:
    """Greedy arg max <g_i, r>; Gram-Schmidt without square roots, in exact fractions."""
    rows = gradients_BD.tolist()
    g = {i: [Fraction(x) for x in row] for i, row in enumerate(rows) if all(map(math.isfinite, row))}

    def dot(a: list[Fraction], b: list[Fraction]) -> Fraction:
        return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))

    def without(a: list[Fraction], direction: list[Fraction]) -> list[Fraction]:
        return [x - dot(a, direction) / dot(direction, direction) * e for x, e in zip(a, direction, strict=True)]

    r = [sum(column, Fraction(0)) / len(g) for column in zip(*g.values(), strict=True)]
    basis: list[list[Fraction]] = []
    chosen: list[int] = []
    while len(chosen) < min(num, len(g)):
        i = min((i for i in g if i not in chosen), key=lambda i: (-dot(g[i], r), i))
        chosen.append(i)
        e = g[i]
        for direction in basis:
            e = without(e, direction)
        if any(e):
            basis.append(e)
            r = without(r, e)
    return ints(chosen)
