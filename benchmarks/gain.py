"""A gain that is estimated from movies, compared with the true gain of their detector: the table of docs/gain.md.

    python benchmarks/gain.py --movies 24    1 minute of CPU time

Phantoms with drift and local motion, each with a specimen of its own, on one detector: 5 % smooth unevenness, 3 %
between pixels, dead and hot pixels. The residual pattern is measured in the mean of other movies of the same detector:
its correlation with the true gain, without any gain, with the estimated and with the true one.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from flexalign_plugin.movies.gain_estimate import GainEstimator  # noqa: E402
from flexalign_plugin.phantoms.files import with_detector  # noqa: E402
from flexalign_plugin.phantoms.phantom import Phantom, particle_phantom  # noqa: E402

SHAPE, DOSE, DETECTOR, TEST_MOVIES = (10, 320, 320), 5.0, 5, 12


class Frames:
    """A phantom as a movie that is not written to a file."""

    kind, top_row_first = "MRC", False

    def __init__(self, phantom: Phantom, name: str) -> None:
        self._frames = list(phantom.frames())
        self.path, self.shape, self.n_frames = name, phantom.shape, len(self._frames)

    def frame(self, i: int) -> np.ndarray:
        return self._frames[i]


def movie(seed: int) -> Frames:
    phantom = particle_phantom(
        SHAPE, pixel_size_A=1.0, dose=DOSE, contrast=0.1, band_limit_A=4.0, local_px=3.0, control_points=3, seed=seed
    )
    return Frames(with_detector(phantom, DETECTOR), f"movie {seed}")


def detail(image: np.ndarray, good: np.ndarray) -> Any:
    """Relative detail of the good pixels of an image, finer than 16 px."""
    filled = np.where(good, image, np.median(image[good]))
    return (filled / uniform_filter(filled, 16) - 1)[good]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movies", type=int, default=24)
    args = parser.parse_args()
    truth = with_detector(particle_phantom((2, *SHAPE[1:]), local_px=0.0), DETECTOR).gain
    assert truth is not None
    raw = np.zeros(SHAPE[1:])
    for seed in range(10_000, 10_000 + TEST_MOVIES):
        shown = movie(seed)
        raw += sum(shown.frame(i).astype(np.float64) for i in range(shown.n_frames))
    estimator, steps = GainEstimator(), {n for n in (6, 12, 24, 48, 96, 192, 384) if n <= args.movies}
    print("| movies | electrons per pixel | expected error | true error | no gain | estimated gain | true gain |")
    print("|---|---|---|---|---|---|---|")
    for n in range(1, args.movies + 1):
        estimator.add(movie(n))  # type: ignore[arg-type]
        if n not in steps:
            continue
        found = estimator.estimate()
        good = (truth > 0) & (found.gain > 0)
        pattern = detail(np.divide(1, truth, out=np.zeros_like(truth), where=good), good)
        relative = found.gain[good] / truth[good]
        left = [np.corrcoef(detail(image, good), pattern)[0, 1] for image in (raw, raw * found.gain, raw * truth)]
        error = float((relative / np.median(relative)).std())
        columns = " | ".join(f"{value:.2f}" for value in left)
        print(f"| {n} | {found.electrons_per_px:.0f} | {found.error:.1%} | {error:.1%} | {columns} |", flush=True)


if __name__ == "__main__":
    main()
