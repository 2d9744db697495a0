"""What a run leaves for a report to show: pictures of its samples and, in the plane, of its decision boundary."""

import logging
from collections.abc import Callable
from pathlib import Path

from torch import nn

from common.data.source import Source
from common.models import find_head
from trainer.boundary import write_boundary
from trainer.gallery import write_gallery
from trainer.ledger import Ledger
from trainer.stream import SelectedBatches

log = logging.getLogger(__name__)


def write_pictures(
    folder: Path, batches: SelectedBatches, source: Source, model: nn.Module, ledger: Ledger | None = None
) -> None:
    """gallery.npz and boundary.npz, each where there is something to show. Whatever goes wrong, the run stands.

    Args:
        ledger: of all samples, where several ranks have parts of it; by default that of `batches`.
    """
    options = batches.options
    ledger = batches.ledger if ledger is None else ledger

    def boundary() -> None:
        head = find_head(model, options.head)
        recent = list(batches.tally.selected.recent)
        write_boundary(folder / "boundary.npz", model, head, source, recent, step=batches.completed, seed=options.seed)

    def gallery() -> None:
        if options.log.gallery and ledger is not None:
            write_gallery(folder / "gallery.npz", model, source, ledger, seed=options.seed)

    _try("boundary", boundary)
    _try("gallery", gallery)


def _try(name: str, write: Callable[[], None]) -> None:
    try:
        write()
    except Exception as error:  # people's sources and models may raise anything
        log.warning("no %s.npz: %s: %s", name, type(error).__name__, error)
