"""What the page draws for one movie: motion on a coarse mesh, residuals, and small pictures."""

from __future__ import annotations

import base64
import io
import json
import os
from typing import Any, Dict, List, Optional

import numpy as np
from PIL import Image

from ..errors import FlexAlignError, ResultError
from ..motion.model import MotionModel
from ..output.motion_json import load_result
from ..output.pictures import read_png
from ..quality.figures import Figures
from ..quality.motion_size import largest_local_motion_px, local_shifts, mesh_positions
from ..result_files import MOTION, PLOT_SPECTRA, POWER_SPECTRUM_PICTURE, THUMBNAIL
from ..settings import Settings

MESH_POINTS = 8  # along the longer side of the frame
MAX_FRAMES = 30  # of the animation
PICTURE_SIZE = 240
_JPEG_QUALITY = 60
_STEP_PX = 0.01  # unit of the mesh's shifts, which are written as integers


def details(folder: str, root: str) -> Dict[str, Any]:
    """Everything that the page draws for a movie, as values for JSON.

    Returns
    -------
    Keys, each only if it is known: shifts ([sy, sx] for each aligned frame, px), first_frame (from 1),
    pixel_size_A, field (see `_field`), patches (see `_patches`), frame_rejected (fraction of each aligned frame's pairs
    that were rejected), window ([x0, y0, x1, y1] of the micrograph in the frame, px), frc ({"curve":
    [[1/A, correlation], ...], "nyquist_A"}), profile ({"corrected", "uncorrected", "nyquist_A"}), rings (the same and
    "seen_to_A": [corrected, uncorrected]), thumbnail, psd and plot_psd (data URLs), problems (a sentence for each
    picture that can't be read).

    Raises
    ------
    ResultError : the result can't be read, or its values don't fit together.
    """
    content = load_result(os.path.join(folder, root + MOTION), "quality")
    try:
        drawn = _drawn(folder, root, content)
        json.dumps(drawn, allow_nan=False)
    except (FlexAlignError, ValueError, ArithmeticError, LookupError, TypeError) as error:
        raise ResultError(f"{os.path.join(folder, root + MOTION)}: {error}") from error
    return drawn


def _drawn(folder: str, root: str, content: Dict[str, Any]) -> Dict[str, Any]:
    figures = Figures.from_dict(content["quality"])
    drawn: Dict[str, Any] = {}
    if content.get("model"):
        model = MotionModel.from_dict(content["model"])
        ny, nx = model.frame_shape
        drawn.update(
            shifts=np.round(model.global_shifts_px, 3).tolist(),
            first_frame=model.first_frame + 1,
            pixel_size_A=model.pixel_size_A,
            shape=[ny, nx],
            window=_window(content.get("settings", {}), ny, nx),
        )
        if model.is_local:
            drawn["field"] = _field(model)
        patches = _patches(model, figures)
        if patches is not None:
            drawn["patches"] = patches
        rejected = figures.frame_pairs_rejected
        if rejected and len(rejected) == model.n_aligned:
            drawn["frame_rejected"] = rejected
        for name, curves in (("profile", figures.psd_profile), ("rings", figures.thon_ring_correlation)):
            if isinstance(curves, dict) and {"corrected", "uncorrected"} <= set(curves):
                drawn[name] = {**curves, "nyquist_A": 2 * model.pixel_size_A}
        if "rings" in drawn:
            drawn["rings"]["seen_to_A"] = [figures.thon_rings_A, figures.thon_rings_uncorrected_A]
        frequency, frc = figures.frc_frequency_per_A, figures.frc
        if frequency and frc:
            curve = [(f, correlation) for f, correlation in zip(frequency, frc) if f is not None]
            drawn["frc"] = {
                "curve": [list(point) for point in curve if point[1] is not None],
                "nyquist_A": 1 / max(f for f, _ in curve),
            }
    pictures = {"thumbnail": THUMBNAIL, "psd": POWER_SPECTRUM_PICTURE}
    if "profile" not in drawn:
        pictures["plot_psd"] = PLOT_SPECTRA  # it shows the radial averages too
    for name, ending in pictures.items():
        try:
            picture = _picture(os.path.join(folder, root + ending), PICTURE_SIZE if name != "plot_psd" else 480)
        except ResultError as error:
            drawn.setdefault("problems", []).append(str(error))
            continue
        if picture is not None:
            drawn[name] = picture
    return drawn


def _field(model: MotionModel) -> Dict[str, Any]:
    """Local shifts on a mesh, relative to the first aligned frame.

    Returns
    -------
    y, x : coordinates of the mesh in pixels; frames : numbers from 1; step_px : unit of `motion`; motion : for each
    frame the integers [y, x, y, x, ...] of the mesh's points, x running fastest; largest_px : the figure
    `local_motion_max_px`, which includes the frame's edges and is the one number for the largest local motion.
    """
    ny, nx = model.frame_shape
    spacing = max(ny, nx) / MESH_POINTS
    y, x = (mesh_positions(n, spacing) for n in (ny, nx))
    motion = local_shifts(model, y, x)
    frames = np.unique(np.linspace(0, model.n_aligned - 1, min(MAX_FRAMES, model.n_aligned)).round().astype(int))
    whole = np.rint(motion[:, frames] / _STEP_PX).astype(int).transpose(1, 2, 3, 0)
    return {
        "y": y.round(1).tolist(),
        "x": x.round(1).tolist(),
        "frames": (frames + model.first_frame + 1).tolist(),
        "step_px": _STEP_PX,
        "motion": whole.reshape(len(frames), -1).tolist(),
        "largest_px": float(f"{largest_local_motion_px(model):.5g}"),  # rounded as in `concerns.numbers`
    }


def _patches(model: MotionModel, figures: Figures) -> Optional[List[List[Optional[float]]]]:
    """[y, x, RMS over frames of (measured minus fitted shift), rejected] of each patch, in pixels; rejected is the
    fraction of its frame pairs that were rejected, None in results without it."""
    centres, measured = (np.array(a or (), float) for a in (figures.patch_centres_px, figures.patch_shifts_px))
    if centres.ndim != 2 or measured.shape != (len(centres), model.n_aligned, 2):
        return None
    t = np.array(model.aligned_frames, float)
    smooth = np.stack(model.shift(t[None, :], centres[:, :1], centres[:, 1:]), -1)
    difference = measured - (smooth - smooth.mean(axis=1, keepdims=True))
    rms = np.sqrt(np.mean(np.sum(difference**2, axis=2), axis=1))
    rejected: List[Optional[float]] = list(figures.patches_rejected or ())
    if len(rejected) != len(centres):
        rejected = [None] * len(centres)
    return [[round(y), round(x), round(r, 3), f] for (y, x), r, f in zip(centres.tolist(), rms.tolist(), rejected)]


def _window(settings: Dict[str, Any], ny: int, nx: int) -> List[int]:
    known = {name: settings[name] for name in settings if name.startswith("crop_")}
    y, x = Settings(**known).crop_window(ny, nx, "")
    return [x.start, y.start, x.stop, y.stop]


def _picture(path: str, size: int) -> Optional[str]:
    if not os.path.lexists(path):  # it was not written
        return None
    small = read_png(path)
    small.thumbnail((size, size), Image.Resampling.BOX)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
