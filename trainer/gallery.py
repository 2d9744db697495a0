"""The samples that were selected most and least often, as the source stores them, and how often each class was.

k = samples in a group, C = classes, N = training samples.
"""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common.data.source import AbsentSplit, Source
from common.order import keyed_uint64
from common.whole_files import replacing
from trainer.evaluate import sample_losses
from trainer.ledger import Ledger

log = logging.getLogger(__name__)

NUM_SHOWN = 16
MAX_SAMPLE_BYTES = 1 << 20
MAX_READ_FOR_TARGETS = 1 << 28  # bytes of inputs, where targets come only with them
_TARGETS_AT_A_TIME = 1 << 20

Key = Callable[[np.ndarray], np.ndarray]


def write_gallery(path: Path, model: nn.Module, source: Source, ledger: Ledger, *, seed: int) -> bool:
    """Writes a .npz of two groups, "most" and "least" (often selected), and of counts by class.

        GROUP_ids (k,) int64, GROUP_inputs (k, *shape) as stored and not augmented, GROUP_targets (k, *target_shape),
        GROUP_losses (k,) float32 of the model as it is, GROUP_seen and GROUP_selected (k,) int64;
        class_sizes, class_seen, class_selected (C,) int64 sums over training samples, where each has one class;
        class_names (C,) str where they are known.

    "least" is of samples that were candidates at all: the least often selected, of those the most often seen.

    Args:
        ledger: of the run. Nothing is written if it does not count, or if samples cannot be read here or are huge.
        seed: of the run; decides ties.

    Returns:
        Whether the file was written; the log says why it was not.
    """
    why = _why_not(source, ledger)
    if why is not None:
        log.info("no gallery of samples: %s", why)
        return False
    assert ledger.seen is not None, "checked"
    assert ledger.selected is not None, "checked"
    seen, selected = ledger.seen, ledger.selected
    arrays: dict[str, np.ndarray] = {}
    for group, ids in (("most", most_selected(seen, selected, seed)), ("least", least_selected(seen, selected, seed))):
        arrays |= {f"{group}_{name}": array for name, array in _described(model, source, ids).items()}
        arrays |= {f"{group}_seen": seen[ids].astype(np.int64), f"{group}_selected": selected[ids].astype(np.int64)}
    arrays |= _by_class(source, seen, selected)
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return True


def most_selected(seen: np.ndarray, selected: np.ndarray, seed: int, num: int = NUM_SHOWN) -> np.ndarray:
    """(k,) int64 ids, the most often selected first; of equals the least often seen, then by a keyed draw.

    Args:
        seen, selected: (N,) uint32 counts.
    """
    keys: list[Key] = [
        lambda ids: ~selected[ids],  # of unsigned numbers: the highest first
        lambda ids: seen[ids],
        lambda ids: keyed_uint64(seed, "gallery", ids),
    ]
    return _first(num, np.arange(len(selected)), keys)


def least_selected(seen: np.ndarray, selected: np.ndarray, seed: int, num: int = NUM_SHOWN) -> np.ndarray:
    """(k,) int64 ids of samples that were seen, the least often selected first; of equals the most often seen.

    A method that shows no candidates sees none: then all samples count as seen.
    """
    keys: list[Key] = [
        lambda ids: selected[ids],
        lambda ids: ~seen[ids],
        lambda ids: keyed_uint64(seed, "gallery", ids),
    ]
    offered = np.flatnonzero(seen)
    return _first(num, offered if len(offered) else np.arange(len(seen)), keys)


def _first(num: int, ids: np.ndarray, keys: Sequence[Key]) -> np.ndarray:
    """The `num` first ids by the first key, ties by the next ones. Linear: there may be 100 million."""
    kept = _narrowed(num, ids, keys)
    return kept[np.lexsort([key(kept) for key in reversed(keys)])]


def _narrowed(num: int, ids: np.ndarray, keys: Sequence[Key]) -> np.ndarray:
    if len(ids) <= num or not keys:
        return ids[:num]
    values = keys[0](ids)
    bound = np.partition(values, num - 1)[num - 1]
    sure = ids[values < bound]
    return np.concatenate([sure, _narrowed(num - len(sure), ids[values == bound], keys[1:])])


def _why_not(source: Source, ledger: Ledger) -> str | None:
    if ledger.seen is None or ledger.selected is None:
        return "--log.no-ledger keeps no counts"
    if isinstance(source.train, AbsentSplit):
        return "this trainer cannot read its training data"
    num_bytes = _sample_bytes(source)
    if num_bytes > MAX_SAMPLE_BYTES:
        return f"a sample takes {num_bytes / 2**20:.1f} MiB, and at most {MAX_SAMPLE_BYTES / 2**20:.0f} are kept"
    return None


def _sample_bytes(source: Source) -> int:
    return math.prod(source.sample.shape) * source.sample.dtype.itemsize


def _described(model: nn.Module, source: Source, ids: np.ndarray) -> dict[str, np.ndarray]:
    chosen = torch.from_numpy(ids)
    inputs, targets = source.train.fetch(chosen)
    losses, _ = sample_losses(model, source, source.train, chosen, device=next(model.parameters()).device)
    return {"ids": ids, "inputs": inputs.numpy(), "targets": targets.numpy(), "losses": losses.cpu().numpy()}


def _by_class(source: Source, seen: np.ndarray, selected: np.ndarray) -> dict[str, np.ndarray]:
    """Counts, and the names where they are known; nothing where samples have no class or all would have to be read."""
    sample, num_classes = source.sample, source.num_classes
    knows_targets = callable(getattr(source.train, "targets", None))
    if sample.target_shape != () or not (
        knows_targets or sample.num_samples * _sample_bytes(source) <= MAX_READ_FOR_TARGETS
    ):
        return {}
    sizes, class_seen, class_selected = np.zeros((3, num_classes), dtype=np.int64)
    for start in range(0, sample.num_samples, _TARGETS_AT_A_TIME):
        ids = np.arange(start, min(start + _TARGETS_AT_A_TIME, sample.num_samples))
        classes = source.targets(torch.from_numpy(ids)).numpy()
        sizes += np.bincount(classes, minlength=num_classes)
        class_seen += np.bincount(classes, seen[ids], num_classes).astype(np.int64)
        class_selected += np.bincount(classes, selected[ids], num_classes).astype(np.int64)
    counts = {"class_sizes": sizes, "class_seen": class_seen, "class_selected": class_selected}
    if len(source.class_names) == num_classes:
        counts["class_names"] = np.array(source.class_names)
    return counts
