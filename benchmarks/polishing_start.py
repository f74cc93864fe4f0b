"""What RELION's polishing starts from, compared with our own motion, for both reference frames.

    python benchmarks/polishing_start.py                 two movies, 2 minutes
    python benchmarks/polishing_start.py --seeds 1 2     more movies of each kind

RELION reads the local motion as a polynomial. Each row gives, in pixels and over all frames and the positions at which
particles can be (150 A and more from the edges):

own field         RMS error of our motion against the true one, as in accuracy.py
RELION's start    the same for global shifts and polynomial
whole frame       the same for a polynomial that is fitted to the whole frame, corners included
difference        RMS difference between polynomial and our motion (`relion_fit_rms_px`). Unlike the errors it contains
                  what is constant over the frames: a displacement of a particle, which does not blur it
FRC               of the sum with the noiseless image, divided by that of the sum made with the true motion, from 0.05
                  to 0.1 cycles/px

Movies stay in memory.
"""

from __future__ import annotations

import argparse
from typing import Any, Dict, Tuple

import numpy as np

import benchmark_movies  # noqa: F401  makes the package importable from a checkout
from accuracy_scores import sum_correlations
from flexalign_plugin.aligner import align
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion.model import MotionModel
from flexalign_plugin.motion.relion_polynomial import EDGE_A, PolynomialFit, fit_polynomial
from flexalign_plugin.phantoms.phantom import field_rms_error, particle_phantom
from flexalign_plugin.settings import REFERENCE_FRAMES, Settings
from flexalign_plugin.tests.in_memory import Stack

SHAPE, PIXEL_A = (30, 2048, 2048), 1.0
# {name: options of the phantom}: those that `flexalign phantom` takes unless told otherwise, and a rougher motion.
MOVIES: Dict[str, Dict[str, Any]] = {
    "smooth, up to 3 px": {"local_px": 3.0, "control_points": 3},
    "rough, up to 6 px": {"local_px": 6.0, "control_points": 4},
}
BAND = 0  # of `accuracy_scores.BANDS`


class Start:
    """Global shifts of a model and RELION's polynomial."""

    def __init__(self, model: MotionModel, fit: PolynomialFit):
        self.model, self.fit = model, fit

    def shift(self, t: np.ndarray, y: np.ndarray, x: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        ny, nx = self.model.frame_shape
        at = y.ravel() / ny - 0.5, x.ravel() / nx - 0.5
        frames = t.ravel().astype(int)
        local = np.stack([self.fit.shift(frame - self.model.first_frame, *at) for frame in frames], axis=1)
        sy, sx = self.model.global_shifts_px[frames - self.model.first_frame].T[:, :, None, None] + local
        return sy, sx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    arguments = parser.parse_args()
    backend = select_backend("cpu")
    central = 1 - 2 * EDGE_A / PIXEL_A / min(SHAPE[1:])
    columns = "motion", "reference frame", "uncorrected", "own field", "RELION's start", "whole frame", "difference"
    print(f"| {' | '.join((*columns, 'FRC'))} |\n|{'---|' * (len(columns) + 1)}")
    for name, options in MOVIES.items():
        for seed in arguments.seeds:
            phantom = particle_phantom(SHAPE, PIXEL_A, seed=seed, **options)
            movie: Any = Stack(np.stack(list(phantom.frames())))
            for reference in REFERENCE_FRAMES:
                settings = Settings(pixel_size=PIXEL_A, reference_frame=reference, do_compute_psd=False, do_plots=False)
                model = align(movie, settings, backend).model
                fit, whole = fit_polynomial(model), fit_polynomial(model, edge_A=0.0)
                own, start, corners = (
                    field_rms_error(motion, phantom.truth, central=central)
                    for motion in (model, Start(model, fit), Start(model, whole))
                )
                frc = sum_correlations(backend, phantom, movie, {"own": model})["own"][BAND]
                values = own.uncorrected_px, own.rms_px, start.rms_px, corners.rms_px, fit.rms_px, frc
                print(f"| {name} | {reference} | {' | '.join(f'{v:.3f}' for v in values)} |", flush=True)


if __name__ == "__main__":
    main()
