"""What a run's options, data and model come to for its scorers."""

import numpy as np
from torch import nn

from common.config import TrainerOptions
from common.data.fingerprint import data_fingerprint
from common.data.source import AbsentSplit, Source
from common.errors import ConfigError
from common.models import unwrap
from common.models.loss import own_loss
from common.order import Order
from common.shard import WHOLE, Shard
from common.weights import model_fingerprint
from trainer.assembly import Assembly
from trainer.audits import Audits
from trainer.issuing import HistoriesOf
from trainer.leases import Wanted
from trainer.prediction import LossHistories
from trainer.terms import NOT_NEGATIVE, Terms


def ships_all(options: TrainerOptions, source: Source) -> bool:
    """Whether scorers ship every sample to this trainer, which cannot read any.

    Raises:
        ConfigError: it cannot, and the options do not say so.
    """
    if not isinstance(source.train, AbsentSplit):
        return False
    if (options.transfer, options.payload) != ("payload", "all"):
        raise ConfigError(
            f"--transfer {options.transfer} --payload {options.payload}: this trainer's source has no readable "
            "training samples; use --transfer payload --payload all"
        )
    return True


def can_be_audited(options: TrainerOptions) -> bool:
    """Whether scores select the samples of the step that they are fetched for, by a forward pass of the model."""
    return options.entry.kind != "planned" and options.entry.backend == "torch" and options.entry.needs_scorer


def histories_by_position(histories: LossHistories, order: Order) -> HistoriesOf:
    """Past losses of the positions of a lease that want a score."""

    def of(start: int, stop: int, wanted: Wanted) -> np.ndarray:
        positions = np.arange(start, stop)
        return histories.of(order.ids(positions if wanted is None else positions[wanted]))

    return of


def audits_of(options: TrainerOptions, terms: Terms) -> Audits:
    """What of the chunks is scored twice: of rank 0's, as it alone knows which versions there are."""
    return Audits(
        options.log.audit_fraction if can_be_audited(options) and terms.rank == 0 else 0.0,
        batch_size=options.batch_size,
        generation=terms.generation,
        seed=options.seed,
        score_name=next(iter(terms.scores), ""),
        lowest_is_hard=terms.lowest_is_hard,
        selects_best=options.entry.ranks and options.selection.temperature is None,
        lease_s=terms.lease_s,
    )


def terms_of(
    options: TrainerOptions,
    source: Source,
    model: nn.Module,
    generation: int,
    assembly: Assembly,
    shard: Shard = WHOLE,
) -> Terms:
    """What scorers of this run are told and must match. Raises ConfigError for chunks that no message can carry."""
    sample = source.sample
    fingerprint = {"model": model_fingerprint(unwrap(model))}
    if not isinstance(source.train, AbsentSplit):
        fingerprint |= data_fingerprint(source, options.augment)
    terms = Terms(
        run=options.out.name if options.out is not None else "",
        generation=generation,
        seed=options.seed,
        num_samples=sample.num_samples,
        num_classes=sample.num_classes,
        not_negative=NOT_NEGATIVE if own_loss(model) is None else tuple(set(NOT_NEGATIVE) - {"loss"}),
        chunk_size=options.resolved_chunk_size,
        scores=assembly.score_names,
        lowest_is_hard=assembly.lowest_is_hard,
        embeddings=assembly.embeddings,
        embedding_sizes=assembly.embedding_sizes,
        backend=options.entry.backend,
        transfer=options.transfer,
        best_k=options.payload_best if options.transfer == "payload" else None,
        fingerprint=fingerprint,
        sample_shape=tuple(sample.shape),
        sample_dtype=str(sample.dtype).removeprefix("torch."),
        target_shape=tuple(sample.target_shape),
        wire=options.wire,
        leases_per_scorer=options.service.leases_per_scorer,
        silence_s=options.service.silence_s,
        lease_s=options.service.lease_s,
        steps=options.steps,
        rank=shard.rank,
        num_ranks=shard.num_ranks,
    )
    terms.check_answers()
    return terms
