"""The digits of scikit-learn: 1,797 handwritten digits of 8×8 pixels, bundled, so that no network is needed.

The UCI "Optical Recognition of Handwritten Digits" test set (Alpaydin & Kaynak 1998), with 17 grey levels.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from common.config import DataOptions
from common.data.source import Source, TensorSplit
from common.order import held_out_mask

# Of the training part, over all pixels.
MEAN = (0.3054,)
STD = (0.3759,)
_NUM_LEVELS = 16


def open_digits(options: DataOptions) -> Source:
    """(1, 8, 8) uint8 images in 10 classes; a fixed fifth is held out. No option applies."""
    levels, targets = _stored_digits()
    pixels = (levels * 255 + _NUM_LEVELS // 2) // _NUM_LEVELS  # 0..16 to 0..255, rounded, in integers
    images = torch.from_numpy(pixels.astype(np.uint8).reshape(-1, 1, 8, 8))
    labels = torch.from_numpy(targets)
    held_out = torch.from_numpy(held_out_mask(len(images), 0.2, "digits"))
    return Source(
        name="digits",
        train=TensorSplit(images[~held_out], labels[~held_out]),
        held_out=TensorSplit(images[held_out], labels[held_out]),
        num_classes=10,
        mean=MEAN,
        std=STD,
        class_names=tuple("0123456789"),
    )


def _stored_digits() -> tuple[np.ndarray, np.ndarray]:
    """(num, 64) int64 levels in 0..16 and (num,) int64 classes.

    Read from scikit-learn's file where it is in its usual place: importing scikit-learn takes over a second, in both
    processes of the first command that people try.
    """
    package = find_spec("sklearn")
    if package is not None and package.origin is not None:
        file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.exists():
            table = np.loadtxt(file, delimiter=",", dtype=np.int64)
            return table[:, :-1], table[:, -1].copy()
    from sklearn.datasets import load_digits

    levels, targets = load_digits(return_X_y=True)
    return levels.astype(np.int64), targets.astype(np.int64)
