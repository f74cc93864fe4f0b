"""Accumulated motion by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flexalign_plugin.quality.motion_size import largest_local_motion_px, path_length

from ..output.synthetic import motion_model


@pytest.fixture
def model():
    path = np.array([[0, 0], [3, 4], [3, 5], [5, 5], [5, 5]], float)  # steps 5, 1, 2, 0 px
    made = motion_model((200, 200), n_frames=6, first_frame=1, local_px=0, pixel_size_A=0.5)
    return dataclasses.replace(made, global_shifts_px=path)


@pytest.mark.parametrize(
    ("dose", "pre_exposure", "early"),
    [(None, 0, None), (1.0, 0, 3.0), (4 / 3, 0, 2.5), (1.0, 1.0, 2.5), (1.0, 5.0, 0.0), (0.1, 0, 4.0)],
)
def test_accumulated_motion(model, dose, pre_exposure, early):
    # The steps lead to frames 3, 4, 5, 6 (1-based), where the dose is 3, 4, 5, 6 times that of a frame.
    after = None if dose is None else [dose * (i + 1) for i in model.aligned_frames]
    assert path_length(model, after, pre_exposure) == (4.0, early, None if early is None else 4.0 - early)
    assert largest_local_motion_px(model) == 0.0


def test_local_motion_is_relative_to_the_first_frame():
    model = motion_model((200, 200), local_px=4.0)
    offset = dataclasses.replace(model, coefficients_px=model.coefficients_px + 7.0)
    largest = largest_local_motion_px(model)
    assert 2.0 < largest < 8.0
    assert largest_local_motion_px(offset) == pytest.approx(largest)
