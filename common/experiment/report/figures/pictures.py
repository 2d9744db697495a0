"""The samples selected most and least often, as one picture for other documents; the page shows them as a grid."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.experiment.report.figures.canvas import POINTS_PER_INCH, SIZE, WIDTH, shortened
from common.experiment.report.gallery import GROUPS, Gallery, Sample, load_gallery
from common.experiment.report.palette import INK, MUTED, PAPER
from common.experiment.report.study import Drawn, Study

COLUMNS, MOST_SAMPLES = 4, 12
CELL, TEXT, TITLE = 84, 42, 30  # points: a picture's side, the two lines below it, a group's heading


def draw(study: Study) -> Drawn | str:
    """Both groups of the first selecting run that has pictures."""
    found = galleries(study)
    with_pictures = [(name, gallery) for name, gallery in found if is_pictorial(gallery)]
    if not with_pictures:
        return "No run kept pictures of its samples."
    name, gallery = with_pictures[0]
    groups = [group for group in GROUPS if gallery.groups.get(group)]
    rows = {group: -(-min(len(gallery.groups[group]), MOST_SAMPLES) // COLUMNS) for group in groups}
    height = sum(TITLE + (CELL + TEXT) * rows[group] for group in groups)
    figure = Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH), facecolor=PAPER)
    top = float(height)
    for group in groups:
        figure.text(6 / WIDTH, (top - 6) / height, f"{GROUPS[group]}, {shortened(name, 20)}", fontsize=SIZE, color=INK,
                    va="top", weight="bold")  # fmt: skip
        top -= TITLE
        for place, sample in enumerate(gallery.groups[group][:MOST_SAMPLES]):
            row, column = divmod(place, COLUMNS)
            bottom, left = top - (CELL + TEXT) * row - CELL, 6 + column * (WIDTH - 6) / COLUMNS
            axes = figure.add_axes((left / WIDTH, bottom / height, CELL / WIDTH, CELL / height))
            _picture(axes, sample, gallery)
        top -= (CELL + TEXT) * rows[group]
    return Drawn(
        figure,
        caption=f"Samples of {name}, with class, loss under the final model, and times selected of times offered.",
        alt="Pictures of the samples selected most and least often.",
    )


def galleries(study: Study) -> list[tuple[str, Gallery]]:
    """Of the first seed of each selecting arm that has one, stale arms first."""
    arms = sorted((arm for arm in study.arms if arm.mode != "uniform"), key=lambda arm: arm.mode != "stale")
    found = [(arm.name, load_gallery(study.records[arm.name][0].folder)) for arm in arms]
    return [(name, gallery) for name, gallery in found if gallery is not None and any(gallery.groups.values())]


def is_pictorial(gallery: Gallery) -> bool:
    """Whether its samples are images."""
    return all(sample.pixels() is not None for samples in gallery.groups.values() for sample in samples)


def _picture(axes: Axes, sample: Sample, gallery: Gallery) -> None:
    pixels = sample.pixels()
    assert pixels is not None, "checked by is_pictorial"
    axes.imshow(pixels, cmap="gray", interpolation="nearest", vmin=0, vmax=max(int(np.max(pixels)), 1))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(MUTED)
    axes.set_xlabel(
        f"{shortened(gallery.class_name(sample.target), 10)}\n{sample.selected} of {sample.seen}",
        fontsize=SIZE - 2,
        color=INK,
        labelpad=3,
    )
