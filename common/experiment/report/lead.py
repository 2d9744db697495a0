"""The paragraph that a report opens with."""

from collections.abc import Sequence

from common.experiment.compare.verdict import gains_nothing
from common.experiment.report import words
from common.experiment.results import ArmResult, Results

SHORT = 3  # sentences that make a paragraph as they are


def lead(results: Results) -> str:
    """Who gains over plain training and who does not, in two or three sentences; what the verdict says where it is
    short, or where there is no plain training to compare with.
    """
    selecting = [arm for arm in results.arms if arm.done and arm.ratio_to_plain is not None]
    if len(results.verdict) <= SHORT or not selecting:
        return " ".join(results.verdict[:SHORT])
    return " ".join([_gains(results, selecting), *_accuracies(results, selecting), *_doubts(results)])


def _gains(results: Results, selecting: Sequence[ArmResult]) -> str:
    arms = {arm.name: arm for arm in results.arms}
    nothing = [
        arm.name
        for arm in selecting
        if arm.ratio_to_plain is not None and gains_nothing(arm, arms[arm.ratio_to_plain.plain])
    ]
    something = [arm.name for arm in selecting if arm.name not in nothing]
    plain = [arms[arm.ratio_to_plain.plain] for arm in selecting if arm.ratio_to_plain is not None]
    if selecting and all(len(arm.runs) == 1 for arm in (*selecting, *plain)):
        return "With a single seed nothing can be said about what selection gains in accuracy."
    if not something:
        return "No selecting arm gains anything over plain training here."
    if not nothing:
        return "Every selecting arm gains something over plain training here."
    return (
        f"{_listed(something)} {_verb(something, 'gain')} something over plain training here; "
        f"{_listed(nothing)} {_verb(nothing, 'gain')} nothing."
    )


def _accuracies(results: Results, selecting: Sequence[ArmResult]) -> list[str]:
    plain = _best([arm for arm in results.arms if arm.mode == "uniform"])
    best = _best(selecting)
    if plain is None or best is None:
        return []
    of_those = f"the best of the others, {best.name}," if len(selecting) > 1 else best.name
    ends = words.percent(words.mean(plain.accuracy)), words.percent(words.mean(best.accuracy))
    return [f"Plain training ends at {ends[0]} held-out accuracy, {of_those} at {ends[1]}."]


def _doubts(results: Results) -> list[str]:
    doubtful = [arm.name for arm in results.arms if not arm.is_clean]
    lost = sum(run.status != "done" for arm in results.arms for run in arm.runs)
    sentences = []
    if doubtful:
        sentences.append(f"{_listed(doubtful)} fell back too often to be a clean comparison.")
    if lost:
        sentences.append(f"{lost} {'run' if lost == 1 else 'runs'} did not end in order.")
    return sentences


def _best(arms: Sequence[ArmResult]) -> ArmResult | None:
    known = [arm for arm in arms if arm.accuracy is not None]
    return max(known, key=lambda arm: words.mean(arm.accuracy) or 0.0, default=None)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _verb(names: Sequence[str], verb: str) -> str:
    return f"{verb}s" if len(names) == 1 else verb
