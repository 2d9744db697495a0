"""A source of images as large as CIFAR's, made on the spot: benchmarks need no download."""

import torch

from common.data.source import Source, TensorSplit

NUM_SAMPLES = 8192
NUM_CLASSES = 10


def open_images() -> Source:
    """(3, 32, 32) uint8 in ten classes: a pattern for each class under noise. The same bytes in every process."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(0, 256, (NUM_CLASSES, 3, 8, 8), generator=generator)
    patterns = patterns.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    targets = torch.arange(NUM_SAMPLES) % NUM_CLASSES
    noise = torch.randint(0, 256, (NUM_SAMPLES, 3, 32, 32), generator=generator)
    inputs = ((patterns[targets] + 3 * noise) // 4).to(torch.uint8)
    return Source(
        name="images",
        train=TensorSplit(inputs[512:], targets[512:]),
        held_out=TensorSplit(inputs[:512], targets[:512]),
        num_classes=NUM_CLASSES,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
