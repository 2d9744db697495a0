"""Where samples come from and how they are augmented."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from common.config.base import Options


class SyntheticOptions(Options):
    """Two-dimensional classes of chosen overlap and noise, for `--data synthetic`."""

    num_classes: int = Field(default=4, ge=2, description="number of classes")
    num_samples: int = Field(default=4096, gt=0, description="number of training samples")
    overlap: float = Field(
        default=0.3, ge=0, description="standard deviation of a class over half the distance to the next"
    )
    label_noise: float = Field(default=0.0, ge=0, lt=1, description="share of training labels that are drawn at random")
    seed: int = Field(default=0, ge=0, description="seed of the samples")


class AugmentOptions(Options):
    """Augmentations of uint8 images, each a function of (run seed, epoch, sample id)."""

    crop_padding: int = Field(
        default=0, ge=0, description="pixels of zero padding on each side before a random crop; 0 is off"
    )
    flip: bool = Field(default=False, description="mirror horizontally, half of the time")
    cutout: int = Field(default=0, ge=0, description="side in pixels of a square that is blanked; 0 is off")
    autoaugment: Literal["none", "cifar10", "imagenet", "svhn"] = Field(
        default="none", description="AutoAugment policy"
    )


class DataOptions(Options):
    """A data source by name."""

    data: str = Field(
        default="digits",
        min_length=1,
        description="digits, synthetic, mnist, fashion-mnist, cifar10, cifar100, svhn, pcam, imagefolder, "
        "or your own as module:callable",
    )
    data_root: Path | None = Field(default=None, description="folder of the data; downloads go there too")
    image_size: int | None = Field(
        default=None,
        gt=0,
        description="side in pixels that images are resized to; imagefolder needs it where sizes differ",
    )
    label_noise: float = Field(
        default=0.0, ge=0, lt=1, description="share of training labels that are replaced by another class; 0 is off"
    )
    synthetic: SyntheticOptions = Field(default=SyntheticOptions(), description="the synthetic data source")
