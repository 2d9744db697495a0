"""Choosing candidates by their scores: every such function by one import.

Rules for all of them, where they apply: ties go to the earlier candidate; a candidate whose score is not finite is
never chosen and has probability 0; fewer finite candidates than asked for give fewer indices, and the length of the
result says so; scores that are constant or all zero give a uniform choice, without replacement where indices come back;
an empty batch gives an empty result; an argument that makes no sense raises a ValueError with its name and value.

Indices are int64, probabilities and weights float32, on the device of the input; sums run in float64. Randomness comes
from the `generator` alone. Most functions look at a count or a range, which waits for the device once or twice.
"""

from common.selection.classes import class_balanced_hardest
from common.selection.diversity import diverse, diverse_factored
from common.selection.probabilities import (
    exponential_rank_probability,
    never_all_zero,
    percentile_probability,
    pressure_at,
    proportional_probability,
    rank_power_probability,
)
from common.selection.pruning import soft_prune
from common.selection.ranking import highest, lowest
from common.selection.sampling import (
    coins,
    inverse_cdf,
    sample_with_replacement,
    sample_without_replacement,
)
from common.selection.weights import (
    biased_weights,
    collapse_duplicates,
    importance_weights,
    variance_reduction_tau,
)

__all__ = [
    "biased_weights",
    "class_balanced_hardest",
    "coins",
    "collapse_duplicates",
    "diverse",
    "diverse_factored",
    "exponential_rank_probability",
    "highest",
    "importance_weights",
    "inverse_cdf",
    "lowest",
    "never_all_zero",
    "percentile_probability",
    "pressure_at",
    "proportional_probability",
    "rank_power_probability",
    "sample_with_replacement",
    "sample_without_replacement",
    "soft_prune",
    "variance_reduction_tau",
]
