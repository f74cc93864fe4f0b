"""RELION's per-movie STAR file: global shifts and local motion for Bayesian polishing.

RELION's local motion is a polynomial of third order in time and second order in space. It is zero in one frame,
`rlnMicrographStartFrame`, of which RELION's reader makes no other use. That must be the frame whose geometry the
micrograph has: otherwise particles picked there would be looked for at places that are off by the local motion
between the two frames. So our reference frame is named, and the polynomial is fitted to the spline by least squares.

All numbers are unbinned pixels, also when the micrograph is binned (RELION itself scales one half of them).
Defects are given pixel by pixel, whatever file they came from: RELION reads fewer kinds of defect files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from ..motion.model import MotionModel
from ..settings import Settings

N_COEFFICIENTS = 18  # per axis
# rms; about what RELION's polishing lets a particle wander by default, 0.2 A x sqrt(dose of 30 e/A^2). The worst place
# is several times as far off: with more, particles there begin outside of their peak (docs/exports.md).
MAX_RESIDUAL_A = 1.0
EER_UPSAMPLINGS = {1: 1, 2: 2, 4: 3}  # RELION's number for our sampling
_UNUSED = -9999.0
_MESH = 16


@dataclass(frozen=True)
class PolynomialFit:
    """RELION's motion polynomial.

    Attributes
    ----------
    coefficients : (2, 18) float64, [0] for X, [1] for Y (RELION's order), index 3 * term + (power - 1) with the terms
        1, x, x^2, y, y^2, xy and the powers of z = frame - reference frame; x = X / width - 0.5, y alike.
    reference : the aligned frame (0-based among them) in which the spline is smallest, usually zero.
    rms_px, max_px : length of the difference between polynomial and spline, over a mesh and all aligned frames.
    """

    coefficients: np.ndarray
    reference: int
    rms_px: float
    max_px: float


def fit_polynomial(model: MotionModel) -> PolynomialFit:
    """Least-squares fit of RELION's polynomial to the local motion of `model`."""
    ny, nx = model.frame_shape
    y_px, x_px = np.linspace(0, ny - 1, _MESH), np.linspace(0, nx - 1, _MESH)
    t = np.array(model.aligned_frames, float)[:, None, None]
    field = np.stack(model.shift(t, y_px[:, None], x_px[None, :])) - model.global_shifts_px.T[:, :, None, None]
    reference = int(np.abs(field).max(axis=(0, 2, 3)).argmin())
    wanted = (field - field[:, reference : reference + 1]).reshape(2, -1)
    # Time scaled to 0 .. 1 for the fit: z^3 of 40 frames next to z^1 would lose digits.
    duration = max(model.n_aligned - 1, 1)
    time = (np.arange(model.n_aligned) - reference) / duration
    design = _terms(time, y_px / ny - 0.5, x_px / nx - 0.5)
    solution = np.linalg.lstsq(design, wanted.T, rcond=None)[0]
    error = np.hypot(*(wanted - (design @ solution).T))
    powers = np.tile([1, 2, 3], N_COEFFICIENTS // 3)
    coefficients = (solution / float(duration) ** powers[:, None]).T[::-1]
    return PolynomialFit(coefficients, reference, float(np.sqrt(np.mean(error**2))), float(error.max()))


def residual_warning(fit: PolynomialFit, pixel_size_A: float) -> List[str]:
    """A sentence if RELION's polynomial is too far from the motion to start polishing from it."""
    if fit.rms_px * pixel_size_A <= MAX_RESIDUAL_A:
        return []
    return [
        f"RELION's motion polynomial can't follow the local motion: it is {fit.rms_px * pixel_size_A:.1f} A rms away "
        f"from it ({fit.max_px * pixel_size_A:.1f} A at most). The micrograph is not affected. It matters for "
        "Bayesian polishing in RELION, which starts from worse trajectories."
    ]


def star_text(
    model: MotionModel,
    settings: Settings,
    movie: str,
    program: str,
    fit: Optional[PolynomialFit] = None,
    defects_px: Optional[np.ndarray] = None,
    hardware_frames: Optional[int] = None,
    gain: Optional[str] = None,
) -> str:
    """The whole file.

    Parameters
    ----------
    program : named in the first comment.
    fit : must be given for a local model.
    defects_px : (n, 2) int, row and column of replaced pixels.
    hardware_frames : hardware frames in each frame of an EER movie; None for other movies.
    gain : file to be named as the gain reference, when it is not the one of the settings.
    """
    ny, nx = model.frame_shape
    general: List[Tuple[str, Any]] = [
        ("rlnImageSizeX", nx),
        ("rlnImageSizeY", ny),
        ("rlnImageSizeZ", model.n_frames),
        ("rlnMicrographMovieName", movie),
        ("rlnMicrographGainName", gain or settings.gain),
        ("rlnMicrographBinning", f"{settings.output_binning:.6f}"),
        ("rlnMicrographOriginalPixelSize", f"{settings.pixel_size:.6f}"),
        ("rlnMicrographDoseRate", None if settings.dose_per_frame is None else f"{settings.dose_per_frame:.6f}"),
        ("rlnMicrographPreExposure", f"{settings.pre_exposure:.6f}"),
        ("rlnVoltage", f"{settings.voltage:.6f}"),
        ("rlnEERUpsampling", EER_UPSAMPLINGS[settings.eer_sampling] if hardware_frames else None),
        ("rlnEERGrouping", hardware_frames),
        ("rlnMicrographStartFrame", model.first_frame + 1 + (0 if fit is None else fit.reference)),
        ("rlnMotionModelVersion", 0 if fit is None else 1),
    ]
    shifts = np.full((model.n_frames, 2), _UNUSED)
    shifts[model.aligned_frames] = model.global_shifts_px
    blocks = [
        f"# {program}: shifts are unbinned pixels, to be added to a frame's content.\n",
        star_list("general", [(name, value) for name, value in general if value is not None]),
        star_loop(
            "global_shift",
            ("rlnMicrographFrameNumber", "rlnMicrographShiftX", "rlnMicrographShiftY"),
            [(str(i + 1), f"{sx:.6f}", f"{sy:.6f}") for i, (sy, sx) in enumerate(shifts)],
        ),
    ]
    if fit is not None:
        blocks.append(
            "# Fitted to a B-spline; zero in rlnMicrographStartFrame, in whose geometry the micrograph is; "
            f"difference {fit.rms_px:.4f} px rms, {fit.max_px:.4f} px at most.\n"
        )
        blocks.append(
            star_loop(
                "local_motion_model",
                ("rlnMotionModelCoeffsIdx", "rlnMotionModelCoeff"),
                [(str(i), f"{c:.12g}") for i, c in enumerate(fit.coefficients.ravel())],
            )
        )
    if defects_px is not None and len(defects_px):
        rows = "".join(f"{x:>8} {y:>8}\n" for y, x in defects_px.tolist())
        blocks.append(star_loop("hot_pixels", ("rlnCoordinateX", "rlnCoordinateY"), []) + rows)
    return "\n".join(blocks)


def _terms(time: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(n_time * n_y * n_x, 18) values of the polynomial's terms."""
    y, x = y[:, None], x[None, :]
    space = np.stack(np.broadcast_arrays(1.0 + 0 * x * y, x, x**2, y, y**2, x * y))
    powers = time[:, None] ** np.array([1, 2, 3])
    return np.einsum("tp,cyx->tyxcp", powers, space).reshape(-1, N_COEFFICIENTS)


def star_list(name: str, pairs: Sequence[Tuple[str, Any]]) -> str:
    return f"data_{name}\n\n" + "".join(f"_{key:<34} {quoted(value)}\n" for key, value in pairs)


def star_loop(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"_{column} #{i + 1}\n" for i, column in enumerate(columns))
    lines = (" ".join(f"{quoted(value):>14}" for value in row) + "\n" for row in rows)
    return f"data_{name}\n\nloop_\n{head}" + "".join(lines)


def quoted(value: Any) -> str:
    text = str(value)
    return f'"{text}"' if any(c.isspace() for c in text) else text
