"""RELION's per-movie STAR file: global shifts and local motion for Bayesian polishing.

RELION's local motion is a polynomial of third order in time and second order in space. It is zero in one frame,
`rlnMicrographStartFrame`; RELION's reader uses this value for nothing else. It must be the frame whose geometry the
micrograph has. Otherwise the expected positions of particles picked in the micrograph would be wrong by the local
motion between the two frames. Therefore our reference frame is written, and the polynomial is fitted to the spline by
least squares.

All numbers are unbinned pixels, also if the micrograph is binned. (RELION itself scales only some of them.)

RELION knows no cropped micrographs: it looks for a particle at its coordinates in the whole frame, less the shift. In a
cropped micrograph the coordinates count from the corner of the crop, so this corner is subtracted from the shifts, and
the polynomial is that of the moved coordinates. Both are exact.

RELION's reader searches the file for each block by its name, in another order than ours. It fails silently, with no
shifts at all, if the block before was the last of the file and did not end with an empty line.
Defects are listed pixel by pixel, whatever file they came from, because RELION reads fewer kinds of defect files.
"""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

from ..motion.polynomial_origin import moved_origin
from ..motion.relion_polynomial import NOT_OBSERVED, relion_global_shifts
from ..result import MovieResult
from ..settings import Settings
from ..star_format import star_list, star_loop

EER_UPSAMPLINGS = {1: 1, 2: 2, 4: 3}  # our `eer_sampling`: RELION's value


def star_text(result: MovieResult, program: str, gain: Optional[str] = None) -> str:
    """Content of the STAR file of a movie.

    Parameters
    ----------
    program : named in the first comment.
    gain : path of the gain reference to write instead of that in the settings.
    """
    model, settings, fit = result.model, result.settings, result.polynomial
    hardware_frames, defects_px = result.hardware_frames, result.defects_px
    ny, nx = model.frame_shape
    general: List[Tuple[str, Any]] = [
        ("rlnImageSizeX", nx),
        ("rlnImageSizeY", ny),
        ("rlnImageSizeZ", model.n_frames),
        ("rlnMicrographMovieName", result.movie),
        ("rlnMicrographGainName", gain or settings.gain),
        ("rlnMicrographBinning", f"{settings.output_binning:.6f}"),
        ("rlnMicrographOriginalPixelSize", f"{settings.pixel_size:.6f}"),
        ("rlnMicrographDoseRate", _dose_rate(settings, model.n_frames)),
        ("rlnMicrographPreExposure", f"{settings.pre_exposure:.6f}"),
        ("rlnVoltage", f"{settings.voltage:.6f}"),
        ("rlnEERUpsampling", EER_UPSAMPLINGS[settings.eer_sampling] if hardware_frames else None),
        ("rlnEERGrouping", hardware_frames),
        ("rlnMicrographStartFrame", model.first_frame + 1 + (0 if fit is None else fit.reference)),
        ("rlnMotionModelVersion", 0 if fit is None else 1),
    ]
    shifts = relion_global_shifts(model, fit)
    y0, x0 = (window.start for window in settings.crop_window(ny, nx, result.movie))
    cropped = ""
    if y0 or x0:
        cropped = f" Less the corner of the cropped micrograph, x {x0}, y {y0}."
        # RELION would take a frame without a shift, before the first aligned one, to be unmoved and not cropped.
        shifts[: model.first_frame][shifts[: model.first_frame] == NOT_OBSERVED] = 0.0
        shifts[shifts[:, 0] != NOT_OBSERVED] -= y0, x0
    blocks = [
        f"# {program}: shifts are unbinned pixels, to be added to a frame's content.{cropped}\n",
        star_list("general", [(name, value) for name, value in general if value is not None]),
        star_loop(
            "global_shift",
            ("rlnMicrographFrameNumber", "rlnMicrographShiftX", "rlnMicrographShiftY"),
            [(str(i + 1), f"{sx:.6f}", f"{sy:.6f}") for i, (sy, sx) in enumerate(shifts)],
        ),
    ]
    if fit is not None:
        coefficients = moved_origin(fit.coefficients, y=y0 / ny, x=x0 / nx)
        blocks.append(
            "# Fitted to a B-spline; zero in rlnMicrographStartFrame, in whose geometry the micrograph is; "
            f"difference {fit.rms_px:.4f} px rms, {fit.max_px:.4f} px at most.\n"
        )
        blocks.append(
            star_loop(
                "local_motion_model",
                ("rlnMotionModelCoeffsIdx", "rlnMotionModelCoeff"),
                [(str(i), f"{c:.12g}") for i, c in enumerate(coefficients.ravel())],
            )
        )
    if len(defects_px):
        rows = "".join(f"{x:>8} {y:>8}\n" for y, x in defects_px.tolist())
        blocks.append(star_loop("hot_pixels", ("rlnCoordinateX", "rlnCoordinateY"), []) + rows)
    return "\n".join(blocks) + "\n"


def _dose_rate(settings: Settings, n_frames: int) -> Optional[str]:
    """Dose of a frame; RELION knows only one, so it is the mean if they differ."""
    doses = settings.doses(n_frames)
    if doses is None:
        return None if settings.dose_per_frame is None else f"{settings.dose_per_frame:.6f}"
    exposed = [dose for dose in doses if dose > 0] or [0.0]
    return f"{sum(exposed) / len(exposed):.6f}"
