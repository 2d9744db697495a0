"""Digests by which two processes find out, before any work is done, whether they would see the same pixels."""

import hashlib

import numpy as np
import torch
from torch import Tensor

from common.config import AugmentOptions
from common.data.augment import Augmentation
from common.data.source import Source
from common.order import Order

_NUM_PROBES = 32
_PROBE_SEED = 0  # fixed: peers with different run seeds still have the same data
_PROBE_EPOCHS = (0, 1, 2, 1_000)


def data_fingerprint(source: Source, augment_options: AugmentOptions) -> dict[str, str]:
    """Digests of the data, of their decoding and of their augmentation, taken from a few probe samples.

    Args:
        source: probed at 32 training samples spread over all ids; of fewer samples, some are probed twice.
        augment_options: the augmentation whose pixels are compared.

    Returns:
        Hex digests, to be compared in this order, for each rests on those before:
        "data": number of samples, classes, shape, dtype, normalisation, label noise, and the probes' labels and stored
            bytes;
        "decoder": what decodes, and the probes' pixels;
        "augmentation": what is switched on, and the pixels of the probes augmented in several epochs.
    """
    sample = source.sample
    ids = Order(sample.num_samples, _PROBE_SEED, "probes").ids(np.arange(_NUM_PROBES))
    inputs, targets = source.train.fetch(torch.from_numpy(ids))
    content_digest = getattr(source.train, "content_digest", None)
    stored = _bytes(inputs) if content_digest is None else content_digest(torch.from_numpy(ids))
    augmentation = Augmentation(augment_options, _PROBE_SEED, sample)
    augmented = [augmentation(inputs, np.full(_NUM_PROBES, epoch), ids) for epoch in _PROBE_EPOCHS]
    facts = (sample.num_samples, sample.num_classes, sample.shape, sample.target_shape, str(sample.dtype))
    normalisation = [[f"{value:.6g}" for value in values or ()] for values in (source.mean, source.std)]
    noise = "" if source.noise is None else source.noise.description  # a small share may miss every probe
    return {
        "data": _digest(repr(facts), repr(normalisation), noise, _bytes(targets), stored),
        "decoder": _digest(source.decoder, _bytes(inputs)),
        "augmentation": _digest(augmentation.description, *map(_bytes, augmented)),
    }


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def _digest(*parts: str | bytes) -> str:
    """Hex digest of the parts and of where each ends."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
