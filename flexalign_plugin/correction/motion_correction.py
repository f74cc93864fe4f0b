"""From the motion model to the images: frames resampled once, summed, filtered, cropped and binned."""

from __future__ import annotations

import dataclasses
from typing import Callable, Iterator, NamedTuple, Optional, Tuple

import numpy as np

from ..backend import Backend, FrameSource, OnDevice
from ..motion.model import MotionModel
from ..settings import Settings
from .power_spectra import AmplitudeSpectrum, ctf_power_spectrum
from .resampling import fourier_bin, plain_mix
from .sums import EVEN, ODD, PLAIN, WEIGHTED, Plan, plan_sums


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of one movie.

    Attributes
    ----------
    full : (ny, nx) float32, unweighted mean, neither cropped nor binned.
    micrograph, weighted, even, odd : (my, mx) float32, cropped and binned; None if not requested. The means of even and
        odd frames are dose-weighted if `weighted` exists.
    amplitudes : root of the sum of the power spectra of groups of frames; None if not requested.
    movie : (n_aligned, my, mx) float32 or None: the aligned frames, cropped and binned.
    """

    full: np.ndarray
    micrograph: np.ndarray
    weighted: Optional[np.ndarray] = None
    even: Optional[np.ndarray] = None
    odd: Optional[np.ndarray] = None
    amplitudes: Optional[AmplitudeSpectrum] = None
    movie: Optional[np.ndarray] = None


@dataclasses.dataclass(frozen=True)
class MovedFrames:
    """The frames of a movie, moved by their shifts.

    Attributes
    ----------
    fill : (n_aligned,) value of the pixels that each aligned frame does not cover.
    scale : factor of all images.
    """

    backend: Backend
    source: FrameSource
    model: MotionModel
    fill: np.ndarray
    scale: float = 1.0

    def sums(self, frames: range, weights: np.ndarray) -> OnDevice:
        """Weighted sums of the moved frames (0-based), on the device; weights (n_sums, n)."""
        first = self.model.first_frame
        fill = self.fill[frames.start - first : frames.stop - first]
        return self.backend.warp_sum(self.source, self.model, frames, weights, fill)

    def images(self, plan: Plan, one_by_one: bool) -> Iterator[Tuple[str, np.ndarray]]:
        """Name and image (ny, nx) float32 of all images of a plan.

        one_by_one : read the movie once for each image instead of once for all, which needs less memory.
        """
        together = None if one_by_one else self.sums(plan.frames, plan.sums)
        for name in plan.mixes:
            alone = plan.needed(name) if one_by_one else plan
            sums = self.sums(alone.frames, alone.sums) if together is None else together
            (image,) = self.backend.mix(sums, [alone.mixes[name]])
            del sums
            yield name, self.scaled(image)

    def scaled(self, image: np.ndarray) -> np.ndarray:
        """The image with its intensity multiplied by `scale`, in place."""
        if self.scale != 1:
            image *= np.float32(self.scale)
        return image


def correct_motion(
    moved: MovedFrames,
    summed: range,
    window: Tuple[slice[int, int, int], slice[int, int, int]],
    settings: Settings,
) -> Images:
    """All images that the settings request.

    Parameters
    ----------
    summed : 0-based frames in the micrographs. window : rows and columns of the frame that are written.
    """

    def finished(image: np.ndarray) -> np.ndarray:
        return fourier_bin(image[window], settings.output_binning, moved.backend)

    plan = plan_sums(settings, moved.model, summed)
    made = {}
    groups = []
    for name, image in moved.images(plan, settings.low_memory):
        if name in plan.groups:
            groups.append(ctf_power_spectrum(image, settings.pixel_size, moved.backend))
        else:
            made[name] = image if name == PLAIN else finished(image)
    return Images(
        full=made[PLAIN],
        micrograph=finished(made[PLAIN]),
        weighted=made.get(WEIGHTED),
        even=made.get(EVEN),
        odd=made.get(ODD),
        amplitudes=AmplitudeSpectrum.of_powers(groups) if groups else None,
        movie=_aligned_movie(moved, finished) if settings.do_save_movie else None,
    )


def _aligned_movie(moved: MovedFrames, finished: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    frames = []
    for t in moved.model.aligned_frames:
        sums = moved.sums(range(t, t + 1), np.ones((1, 1)))
        (image,) = moved.backend.mix(sums, [plain_mix(moved.model, [t])])
        frames.append(finished(moved.scaled(image)))
    return np.stack(frames)


class Border(NamedTuple):
    """Widths in unbinned pixels of the border that some frames do not cover, at the first and last row and column."""

    top_row_side: float
    last_row_side: float
    left: float
    right: float


def uncovered_border(model: MotionModel) -> Border:
    """The border that the frames' shifts leave uncovered."""
    ny, nx = model.frame_shape
    edge_y, edge_x = np.linspace(0, ny - 1, 9), np.linspace(0, nx - 1, 9)
    sy, sx = model.shift(np.array(model.aligned_frames, float)[:, None, None], edge_y[:, None], edge_x[None, :])
    return Border(*(float(max(width, 0)) for width in (sy.max(), -sy.min(), sx.max(), -sx.min())))
