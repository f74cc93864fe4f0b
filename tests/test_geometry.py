"""A particle picked on the micrograph is where every description of the motion says, in every frame.

The movies show spots whose position in every frame is known: particles, which are apart from everything else, and a
texture. A particle is picked on the micrograph; each route to the frames must lead back to it: `_shifts.star` as RELION
evaluates it, `_motion.json` as `flexalign trace` does. The motion is a polynomial that RELION's can follow.
"""

from __future__ import annotations

import functools
from typing import Callable, List, NamedTuple, Tuple

import numpy as np
import pytest

from flexalign_plugin.aligner import align
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.movies import Corrections
from flexalign_plugin.output.saved_result import load_saved_result
from flexalign_plugin.output.tracks import frame_positions
from flexalign_plugin.output.writer import write_result
from flexalign_plugin.phantoms.truth import field_rms_error
from flexalign_plugin.result import MovieResult
from flexalign_plugin.settings import Settings

from .in_memory import Stack
from .relion_motion import RelionMotion

PIXEL_A = 2.5
N, SHAPE = 12, (704, 768)
SIGMA, LEVEL, NOISE = 2.5, 5.0, 1.5
N_TEXTURE, N_PARTICLES = 6000, 40
ALONE = 20  # px around a particle without texture
NEAR = 9  # px around a particle that are looked at


class Spots:
    """Spots that drift by 9 px, and apart by about 1 px; their places are those in the first frame."""

    local_px, n_frames, frame_shape = 1.0, N, SHAPE

    def __init__(self) -> None:
        rng = np.random.default_rng(4)
        texture = rng.uniform(-20, np.array(SHAPE) + 20, (N_TEXTURE, 2))
        particles: List[np.ndarray] = []
        while len(particles) < N_PARTICLES:
            place = rng.uniform(100, np.array(SHAPE) - 100)  # a whole box is inside of every frame
            if all(np.hypot(*(place - other)) > ALONE for other in particles):
                particles.append(place)
        self.particles = np.stack(particles)
        near = np.hypot(*(texture[:, None] - self.particles).transpose(2, 0, 1)).min(axis=1)
        self.texture = texture[near > ALONE]
        self.heights = rng.normal(0, 2, len(self.texture))

    def shift(self, t, y, x) -> Tuple[np.ndarray, np.ndarray]:
        """True shift (sy, sx) at the positions of the first frame."""
        z = np.asarray(t, float) / (N - 1)
        course = 1.9 * z - 1.2 * z**2 + 0.3 * z**3
        v, u = 2 * y / SHAPE[0] - 1, 2 * x / SHAPE[1] - 1
        sy = 7 * course + 0.5 * np.sin(5 * z) + self.local_px * course * (0.7 * u + 0.3 * u * v)
        sx = -6 * course + 0.4 * z + self.local_px * course * (0.4 * v - 0.6 * u**2)
        return sy, sx

    def to_reference(self, t, y, x) -> Tuple[np.ndarray, np.ndarray]:
        py, px = y, x
        for _ in range(30):
            sy, sx = self.shift(t, py, px)
            py, px = y + sy, x + sx
        return py, px

    def moved(self, t: int, places: np.ndarray) -> np.ndarray:
        return places - np.stack(self.shift(t, *places.T), -1)

    def in_frame(self, t: int) -> np.ndarray:
        """(n, 2) true positions (y, x) of the particles in frame t."""
        return self.moved(t, self.particles)

    def frames(self) -> np.ndarray:
        """Frames without noise."""
        heights = np.concatenate([np.full(N_PARTICLES, 20.0), self.heights])
        places = np.concatenate([self.particles, self.texture])
        return np.stack([drawn(self.moved(t, places), heights) for t in range(N)])


class Drifting(Spots):
    local_px = 0.0


def drawn(places: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """A frame with spots of these heights at these places."""
    image = np.full(SHAPE, LEVEL)
    reach = int(4 * SIGMA)
    for place, height in zip(places, heights):
        rows, columns = (np.arange(round(p) - reach, round(p) + reach + 1) for p in place)
        rows, columns = (a[(a >= 0) & (a < n)] for a, n in zip((rows, columns), SHAPE))
        y, x = (np.exp(-((a - p) ** 2) / (2 * SIGMA**2)) for a, p in zip((rows, columns), place))
        image[np.ix_(rows, columns)] += height * np.outer(y, x)
    return image.astype(np.float32)


def found(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(y, x) of the spot that is centred nearly at `place`."""
    place = np.asarray(place, float)
    for _ in range(6):
        row, column = np.round(place).astype(int)
        part = image[row - NEAR : row + NEAR + 1, column - NEAR : column + NEAR + 1].astype(float) - LEVEL
        y, x = np.arange(row - NEAR, row + NEAR + 1)[:, None], np.arange(column - NEAR, column + NEAR + 1)
        # The weight of a Gaussian as wide as the spot, moved until it is centred, keeps noise and neighbours out.
        part = part * np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / (2 * SIGMA**2))
        # It is half as far from the weight's centre to that of the product as to that of the spot.
        place = 2 * np.array([(part * y).sum(), (part * x).sum()]) / part.sum() - place
    return place


class Case(NamedTuple):
    truth: Spots
    frames: np.ndarray  # without noise
    result: MovieResult
    picks: np.ndarray  # (n, 2) on the micrograph
    star: RelionMotion
    motion: str


def aligned(truth: Spots, folder, **values) -> Case:
    frames = truth.frames()
    noise = np.random.default_rng(5).normal(0, NOISE, frames.shape).astype(np.float32)
    settings = Settings(pixel_size=PIXEL_A, do_plots=False, do_compute_psd=False, remove_hot_pixels=False, **values)
    result = align(Stack(frames + noise), settings, select_backend("cpu", 2), Corrections())
    files = write_result(result, str(folder), "spots")
    places = truth.in_frame(result.figures.reference_frame - 1)
    picks = np.stack([found(result.images.micrograph, place) for place in places])
    return Case(truth, frames, result, picks, RelionMotion(files["shifts_star"]), files["motion"])


RANGES = {
    "all frames": {},
    "without two": {"align_frame0": 3},
    "summed later": {"align_frame0": 3, "use_align_to_sum": False, "sum_frame0": 6},
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Callable[[str, str], Case]:
    """A case by its reference frame and its range, aligned once."""

    @functools.lru_cache(maxsize=None)
    def of(reference: str, frames: str) -> Case:
        return aligned(Spots(), tmp_path_factory.mktemp("spots"), reference_frame=reference, **RANGES[frames])

    return of


@pytest.fixture(params=[(r, k) for r in ("first", "middle-most") for k in RANGES], ids=" ".join)
def case(request, cases) -> Case:
    return cases(*request.param)


def test_reference_frame(case):
    settings, model = case.result.settings, case.result.model
    reference = case.result.figures.reference_frame - 1
    if settings.reference_frame == "first":
        assert reference == settings.align_frame0 - 1 == model.first_frame
    else:
        assert model.first_frame < reference < N - 1
    assert case.star.start == reference + 1
    y, x = (np.linspace(0, n - 1, 9) for n in SHAPE)
    np.testing.assert_allclose(model.frame_field(reference, y, x), 0, atol=1e-9)
    assert model.is_local


def test_micrograph_has_the_geometry_of_the_reference_frame(case):
    places = case.truth.in_frame(case.result.figures.reference_frame - 1)
    assert np.hypot(*(case.picks - places).T).max() < 0.1


def test_micrograph_is_equally_sharp_with_both(cases):
    """Compared with the noiseless frame of the same geometry."""
    inside = np.s_[60:-60, 60:-60]
    agreement = []
    for reference in ("first", "middle-most"):
        case = cases(reference, "all frames")
        truth = case.frames[case.result.figures.reference_frame - 1]
        agreement.append(np.corrcoef(case.result.images.micrograph[inside].ravel(), truth[inside].ravel())[0, 1])
    # The noise left in the mean of the frames, and nothing else.
    variance = case.frames[0][inside].var()
    assert min(agreement) > 0.99 * np.sqrt(variance / (variance + NOISE**2 / N))
    assert abs(agreement[0] - agreement[1]) < 0.001


def test_trace_finds_the_particle(case):
    motion = load_saved_result(case.motion)
    positions = frame_positions(motion.model, motion.settings, *case.picks.T)
    for k, t in enumerate(motion.model.aligned_frames):
        found_there = np.stack([found(case.frames[t], place) for place in positions[:, k]])
        assert np.hypot(*(found_there - positions[:, k]).T).max() < 0.1, t
        assert np.hypot(*(found_there - case.truth.in_frame(t)).T).max() < 0.05


def test_relion_finds_the_particle(case):
    for t in case.result.model.aligned_frames:
        positions = case.picks - np.stack(case.star.shift(t + 1, *case.picks.T), -1)
        found_there = np.stack([found(case.frames[t], place) for place in positions])
        assert np.hypot(*(found_there - positions).T).max() < 0.1, t


def test_relion_takes_skipped_frames_as_the_first_aligned_one(case):
    """The particle's place there is not known; the nearest known one is that in the first aligned frame."""
    first = case.result.model.first_frame
    there = case.truth.in_frame(first)
    for t in range(first):
        positions = case.picks - np.stack(case.star.shift(t + 1, *case.picks.T), -1)
        # With the middle-most frame as the reference RELION extrapolates its polynomial by up to two frames.
        bound = 0.1 if case.result.settings.reference_frame == "first" else 0.5
        assert np.hypot(*(positions - there).T).max() < bound


def test_error_figures_do_not_depend_on_the_reference_frame(cases):
    """The expected error, and the true one, are of the motion; they are the same for both reference frames."""
    both = [cases(reference, "all frames") for reference in ("first", "middle-most")]
    a, b = (case.result.figures for case in both)
    assert a.reference_frame == 1 < b.reference_frame
    for name in ("expected_error_px", "confidence", "field_sigma_px", "motion_over_error", "local_motion_max_px"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=0.1), name
    np.testing.assert_allclose(a.shift_sigma_px, b.shift_sigma_px, rtol=0.1, atol=1e-4)
    errors = [field_rms_error(case.result.model, case.truth, central=0.8).rms_px for case in both]
    assert max(errors) < 0.05 and abs(errors[0] - errors[1]) < 0.01
