"""RELION's per-movie STAR file: global shifts and local motion for Bayesian polishing.

RELION's local motion is a polynomial of third order in time and second order in space, zero in the first aligned frame.
It is fitted to the spline by least squares. The spline's own values in that first frame are subtracted before the fit:
RELION's frame of reference is therefore the specimen as the first frame shows it, ours the one that
the micrograph is written in; the two differ by an offset that is fixed in time.

All numbers are unbinned pixels, also when the micrograph is binned (RELION itself scales one half of them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from ..motion.model import MotionModel
from ..settings import Settings
from .quality import local_shifts

N_COEFFICIENTS = 18  # per axis
_UNUSED = -9999.0
_MESH = 16


@dataclass(frozen=True)
class PolynomialFit:
    """RELION's motion polynomial.

    Attributes
    ----------
    coefficients : (2, 18) float64, [0] for X, [1] for Y (RELION's order), index 3 * term + (power - 1) with the terms
        1, x, x^2, y, y^2, xy and the powers of z = frame - first aligned frame; x = X / width - 0.5, y alike.
    rms_px, max_px : length of the difference between polynomial and spline, over a mesh and all aligned frames.
    """

    coefficients: np.ndarray
    rms_px: float
    max_px: float


def fit_polynomial(model: MotionModel) -> PolynomialFit:
    """Least-squares fit of RELION's polynomial to the local motion of `model`."""
    ny, nx = model.frame_shape
    y_px, x_px = np.linspace(0, ny - 1, _MESH), np.linspace(0, nx - 1, _MESH)
    wanted = local_shifts(model, y_px, x_px).reshape(2, -1)
    # Time scaled to 0 .. 1 for the fit: z^3 of 40 frames next to z^1 would lose digits.
    duration = max(model.n_aligned - 1, 1)
    time = np.arange(model.n_aligned) / duration
    design = _terms(time, y_px / ny - 0.5, x_px / nx - 0.5)
    solution = np.linalg.lstsq(design, wanted.T, rcond=None)[0]
    error = np.hypot(*(wanted - (design @ solution).T))
    powers = np.tile([1, 2, 3], N_COEFFICIENTS // 3)
    coefficients = (solution / float(duration) ** powers[:, None]).T[::-1]
    return PolynomialFit(coefficients, float(np.sqrt(np.mean(error**2))), float(error.max()))


def star_text(
    model: MotionModel, settings: Settings, movie: str, program: str, fit: Optional[PolynomialFit] = None
) -> str:
    """The whole file. `fit` must be given for a local model; `program` is named in the first comment."""
    ny, nx = model.frame_shape
    general: List[Tuple[str, Any]] = [
        ("rlnImageSizeX", nx),
        ("rlnImageSizeY", ny),
        ("rlnImageSizeZ", model.n_frames),
        ("rlnMicrographMovieName", movie),
        ("rlnMicrographGainName", settings.gain),
        ("rlnMicrographDefectFile", settings.defect_map or settings.defect_file),
        ("rlnMicrographBinning", f"{settings.output_binning:.6f}"),
        ("rlnMicrographOriginalPixelSize", f"{settings.pixel_size:.6f}"),
        ("rlnMicrographDoseRate", None if settings.dose_per_frame is None else f"{settings.dose_per_frame:.6f}"),
        ("rlnMicrographPreExposure", f"{settings.pre_exposure:.6f}"),
        ("rlnVoltage", f"{settings.voltage:.6f}"),
        ("rlnEERUpsampling", settings.eer_sampling if movie.lower().endswith(".eer") else None),
        ("rlnMicrographStartFrame", model.first_frame + 1),
        ("rlnMotionModelVersion", 0 if fit is None else 1),
    ]
    shifts = np.full((model.n_frames, 2), _UNUSED)
    shifts[model.aligned_frames] = model.global_shifts_px
    blocks = [
        f"# {program}: shifts are unbinned pixels, to be added to a frame's content.\n",
        _list("general", [(name, value) for name, value in general if value is not None]),
        _loop(
            "global_shift",
            ("rlnMicrographFrameNumber", "rlnMicrographShiftX", "rlnMicrographShiftY"),
            [(str(i + 1), f"{sx:.6f}", f"{sy:.6f}") for i, (sy, sx) in enumerate(shifts)],
        ),
    ]
    if fit is not None:
        blocks.append(
            "# Fitted to a B-spline less its values in the first aligned frame; "
            f"difference {fit.rms_px:.4f} px rms, {fit.max_px:.4f} px at most.\n"
        )
        blocks.append(
            _loop(
                "local_motion_model",
                ("rlnMotionModelCoeffsIdx", "rlnMotionModelCoeff"),
                [(str(i), f"{c:.12g}") for i, c in enumerate(fit.coefficients.ravel())],
            )
        )
    return "\n".join(blocks)


def _terms(time: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(n_time * n_y * n_x, 18) values of the polynomial's terms."""
    y, x = y[:, None], x[None, :]
    space = np.stack(np.broadcast_arrays(1.0 + 0 * x * y, x, x**2, y, y**2, x * y))
    powers = time[:, None] ** np.array([1, 2, 3])
    return np.einsum("tp,cyx->tyxcp", powers, space).reshape(-1, N_COEFFICIENTS)


def _list(name: str, pairs: Sequence[Tuple[str, Any]]) -> str:
    return f"data_{name}\n\n" + "".join(f"_{key:<34} {_quoted(value)}\n" for key, value in pairs)


def _loop(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"_{column} #{i + 1}\n" for i, column in enumerate(columns))
    return f"data_{name}\n\nloop_\n{head}" + "".join(" ".join(f"{v:>14}" for v in row) + "\n" for row in rows)


def _quoted(value: Any) -> str:
    text = str(value)
    return f'"{text}"' if any(c.isspace() for c in text) else text
