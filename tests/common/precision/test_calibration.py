"""When a form is calibrated: at once, often while weights change fast, rarely later."""

import logging

import pytest
import torch
from torch import Tensor

from common.precision.calibration import Calibration


class Counting:
    """A form that only counts."""

    precision = "int8"
    num_refreshed, refresh_s, num_calibrated, calibrate_s = 0, 0.0, 0, 0.0

    def refresh(self) -> None:
        """Nothing."""

    def calibrate(self, inputs: Tensor) -> None:
        self.num_calibrated += 1

    def __call__(self, inputs: Tensor) -> None:
        """Nothing."""


def versions_calibrated_at(calibration: Calibration, form: Counting, num: int, batch: int = 64) -> list[int]:
    """Of versions 0 .. num - 1, with two batches each."""
    found = []
    for version in range(num):
        before = form.num_calibrated
        for _ in range(2):
            calibration.before(torch.zeros(batch, 2))
        found += [version] * (form.num_calibrated - before)
        calibration.weights_changed()
    return found


def test_calibrations_grow_apart_up_to_the_distance_asked_for() -> None:
    form = Counting()
    assert versions_calibrated_at(Calibration(form, 10), form, 45) == [0, 1, 2, 3, 4, 6, 9, 13, 19, 28, 38]


def test_a_new_session_is_calibrated_anew() -> None:
    form = Counting()
    calibration = Calibration(form, 10)
    versions_calibrated_at(calibration, form, 20)
    calibration.begin()
    assert versions_calibrated_at(calibration, form, 3) == [0, 1, 2]


def test_calibrations_are_counted_and_timed_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    form = Counting()
    form.calibrate_s, form.refresh_s, form.num_refreshed = 0.25, 0.006, 4
    with caplog.at_level(logging.INFO):
        Calibration(form, 10).before(torch.zeros(64, 2))
    assert caplog.messages == ["int8: 1 calibrations, 250.0 ms each; 4 new weights, 1.5 ms each"]


def test_a_few_samples_calibrate_for_want_of_better_and_enough_of_them_again() -> None:
    form = Counting()
    calibration = Calibration(form, 10)
    for size, expected in ((0, 0), (3, 1), (3, 2), (64, 3), (64, 3)):
        calibration.before(torch.zeros(size, 2))
        assert form.num_calibrated == expected
