"""The selection methods by name: one line each, without torch, so that options and `--help` can read it.

A new method is a file in `common/selection/methods` and a line here. Its class is loaded by
`common.selection.methods.load_method`.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["pool", "stream", "planned"]


@dataclass(frozen=True)
class Entry:
    """One value of `--method`.

    Attributes:
        target: `module:callable` in `common.selection.methods`; called with a `Setting` it gives the `Method`.
        kind: pool takes b of the B candidates of a step; stream tosses coins as chunks arrive and trains on whatever
            b samples have queued; planned draws from what is known of all samples, offered or not.
        candidates_per_selected: candidates that it is designed for, per selected one; the upper bound of `auto`.
        parameters: the options of the `selection` group that mean something to it, beyond those for every method.
        backend: of the scorers that can serve it, where that is not the usual one.
        ranks: whether it takes the best by its score, so that a scorer may keep the rest of a chunk's samples back.
        reuses_scores: positions whose remembered score is young enough are not scored again.
        needs_scorer: whether anything is scored at all.
        needs_targets: whether it looks at the labels of candidates.
        embeddings: whether it looks at gradients of the last layer, as factors.
        ledger: what it needs to be remembered of every sample, fields of `trainer.ledger`.
    """

    target: str
    kind: Kind = "pool"
    candidates_per_selected: int = 10
    parameters: tuple[str, ...] = ()
    backend: str = "torch"
    ranks: bool = False
    reuses_scores: bool = False
    needs_scorer: bool = True
    needs_targets: bool = False
    embeddings: bool = False
    ledger: tuple[str, ...] = ()


METHODS: dict[str, Entry] = {
    "uniform": Entry("uniform:Uniform", candidates_per_selected=1, needs_scorer=False),
    "mms": Entry("ranked:mms", parameters=("temperature",), ranks=True),
    "loss": Entry("ranked:loss", parameters=("temperature",), ranks=True),
    "loss-balanced": Entry("balanced:LossBalanced", needs_targets=True),
    "entropy": Entry("ranked:entropy", parameters=("temperature",), ranks=True),
    "selective-backprop": Entry(
        "selective_backprop:SelectiveBackprop",
        kind="stream",
        candidates_per_selected=4,
        parameters=("beta", "history"),
    ),
    "stale-selective-backprop": Entry(
        "selective_backprop:SelectiveBackprop",
        kind="stream",
        candidates_per_selected=4,
        parameters=("beta", "history", "max_age"),
        reuses_scores=True,
        ledger=("loss", "age"),
    ),
    "biased-importance": Entry(
        "biased_importance:BiasedImportance", parameters=("bias_power", "temperature"), backend="predictor"
    ),
    "gradient-norm": Entry(
        "gradient_norm:GradientNorm",
        candidates_per_selected=3,
        parameters=("tau_threshold", "tau_smoothing", "temperature"),
    ),
    "rank": Entry(
        "rank:Rank", kind="planned", parameters=("pressure_start", "pressure_end", "max_age"), ledger=("loss",)
    ),
    "cdf-loss": Entry("cdf:cdf_loss", candidates_per_selected=8, parameters=("switch_share",)),
    "cdf-gradnorm": Entry("cdf:cdf_gradnorm", candidates_per_selected=8, parameters=("switch_share",)),
    "rho-loss": Entry("ranked:rho_loss", parameters=("temperature",)),
    "infobatch": Entry(
        "infobatch:InfoBatch",
        kind="planned",
        candidates_per_selected=1,
        parameters=("keep", "full_from"),
        needs_scorer=False,
        ledger=("loss",),
    ),
    "divbs": Entry("divbs:DivBS", embeddings=True),
}


def wrong_backend(backend: str, who: str, *, wants: str, wanted: str, embeddings: bool) -> str | None:
    """Why scorers of a backend cannot serve a run, with the remedy; None if they can, as the synthetic one always does.

    Args:
        who: begins the sentence, such as "this run".
        wants: the scores that it wants, in words.
        wanted: the backend of its method's entry; embeddings: likewise.
    """
    if backend == "synthetic":
        return None
    if wanted == "predictor" and backend != "predictor":
        return f"{who} wants {wants}, which --backend {backend} cannot give; use --backend predictor"
    if wanted != "predictor" and backend == "predictor":
        return f"{who} wants {wants}, and a predictor gives predicted losses only; use --backend torch or proxy"
    if embeddings and backend == "proxy":
        return f"{who} compares gradients of one model's last layer, and a proxy is another; use --backend torch"
    return None
