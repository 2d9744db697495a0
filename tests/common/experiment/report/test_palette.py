"""Arms can be told apart on light and dark pages, by the colour-blind, and without any colour."""

import itertools

import numpy as np
import pytest

from common.experiment.report.palette import NEUTRAL, SERIES, styles, with_variables

# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in XYZ @ rgb / WHITE)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    low, high = sorted((XYZ[1] @ linear(one), XYZ[1] @ linear(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_no_two_colours_look_alike(scheme, vision):
    seen = [lab(np.clip(np.array(VISION[vision]) @ linear(getattr(tone, scheme)), 0, 1)) for tone in SERIES]
    closest = min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2))
    assert closest > 20, "Lab distance; 2 is just noticeable side by side"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_words_stand_out_from_the_page(scheme):
    ink, muted, _, paper = (getattr(tone, scheme) for tone in NEUTRAL)
    assert all(contrast(getattr(tone, scheme), paper) >= 3 for tone in SERIES)
    assert min(contrast(ink, paper), contrast(muted, paper)) >= 4.5


def test_no_two_arms_differ_by_colour_alone():
    found = styles([("uniform", True), *((f"arm {number}", False) for number in range(11))])
    looks = {(style.dashes, style.marker) for style in found.values()}
    assert len(set(found.values())) == 12
    assert len(looks) > 6
    first = list(found.values())[:6]
    assert len({style.tone for style in first}) == len({(s.dashes, s.marker) for s in first}) == 6


def test_plain_training_is_grey_only_where_it_is_one_arm():
    grey = SERIES[0]
    assert [style.tone is grey for style in styles([("stale", False), ("plain", True)]).values()] == [False, True]
    assert not any(style.tone is grey for style in styles([("plain", True), ("plain x2", True)]).values())


def test_colours_of_the_palette_become_variables_and_others_stay():
    assert with_variables("fill: #0039df; stroke: #123456") == "fill: var(--series-1); stroke: #123456"
