"""The samples selected most and least, as the page shows them."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from common.experiment.report.figures.pictures import galleries
from common.experiment.report.gallery import GROUPS, Gallery, Sample
from common.experiment.report.study import Study

LONGEST_SIDE = 192  # pixels kept of a picture
MOST_PICTURES, MOST_ROWS, MOST_VALUES = 16, 8, 4


@dataclass(frozen=True)
class Shown:
    """One sample: `picture` as a data URI, or None and `values`, its first numbers."""

    id: int
    class_name: str
    loss: str
    seen: int
    selected: int
    picture: str | None
    values: str


@dataclass(frozen=True)
class Group:
    """pictorial: whether its samples are pictures."""

    title: str
    pictorial: bool
    samples: list[Shown]


@dataclass(frozen=True)
class Album:
    """The groups of one arm."""

    arm: str
    groups: list[Group]


def albums(study: Study) -> list[Album]:
    """One for each selecting arm whose first seed kept samples."""
    return [
        Album(arm, [_group(gallery, group) for group in GROUPS if gallery.groups.get(group)])
        for arm, gallery in galleries(study)
    ]


def data_uri(pixels: np.ndarray) -> str:
    """(H, W) or (H, W, 3) uint8 as a PNG within a URI, no side longer than LONGEST_SIDE."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _group(gallery: Gallery, group: str) -> Group:
    shown = [_shown(sample, gallery) for sample in gallery.groups[group][:MOST_PICTURES]]
    pictorial = all(sample.picture is not None for sample in shown)
    return Group(GROUPS[group].capitalize(), pictorial, shown if pictorial else shown[:MOST_ROWS])


def _shown(sample: Sample, gallery: Gallery) -> Shown:
    pixels = sample.pixels()
    numbers = np.ravel(sample.inputs)
    dots = ", …" if len(numbers) > MOST_VALUES else ""
    return Shown(
        id=sample.id,
        class_name=gallery.class_name(sample.target),
        loss=f"{sample.loss:.2f}",
        seen=sample.seen,
        selected=sample.selected,
        picture=None if pixels is None else data_uri(pixels),
        values=f"({', '.join(f'{number:.3g}' for number in numbers[:MOST_VALUES].tolist())}{dots})",
    )
