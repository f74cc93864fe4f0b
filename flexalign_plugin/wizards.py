"""The wizards of the form of ProtFlexAlign: frame range, orientation of the gain, patches and control points.

Functions without a window compute the results. The wizards show them and set the form's values.
"""

from __future__ import annotations

import math
import os
import textwrap
from dataclasses import dataclass
from typing import Any, List, Optional, Tuple

import numpy as np
from matplotlib.patches import Rectangle
from pyworkflow.gui.dialog import showInfo
from pyworkflow.gui.plotter import Plotter

from .errors import SettingsError
from .motion.bspline import places
from .motion.local_alignment import finest_control_points
from .motion.patches import MIN_PATCHES, MIN_ROOM
from .motion.spline_fit import automatic_control_points
from .movies import open_movie, settings_of_frames
from .movies.gain_orientation import Verdict, find_orientation, raw_sum
from .protocols.checks import facts_of_movie
from .protocols.form_values import empty_numbers, settings_values
from .protocols.protocol_flexalign import ProtFlexAlign
from .settings import GAIN_CONVENTIONS, GAIN_FLIPS, GAIN_ROTATIONS, Settings
from .wizard_dialogs import DIALOG_WIDTH, DialogWizard, offer

# Scipion looks for all wizards here: classes of modules whose names begin with the name of this one.
from .wizards_of_particles import MaskDiameterWizard, ResolutionWizard  # noqa: F401

SHOWN_FITS = 8
PREVIEW_PIXELS = 800
PREVIEW_FRAMES = 10  # their mean is shown behind the patches
PATCH_COLOUR, POINT_COLOUR = "#29b6f6", "#ffd54f"
TEXT_WIDTH = 104  # characters


def first_movie(protocol: Any) -> Tuple[str, Settings]:
    """File of the first movie, and its settings from the form's values.

    Raises
    ------
    SettingsError : no movies are chosen, or a value of the form is empty or invalid.
    """
    movie = protocol._first_movie()
    if movie is None:
        raise SettingsError("Choose the input movies first.")
    empty = empty_numbers(protocol)
    if empty:
        raise SettingsError(f"*{empty[0]}* is empty or not a number: enter a number.")
    return os.path.abspath(movie.getFileName()), Settings(**settings_values(protocol, movie))


def frame_count(protocol: Any) -> int:
    """Number of frames of the first movie; for EER, the number of groups that is set in the form."""
    path, settings = first_movie(protocol)
    with open_movie(path, settings) as movie:
        return int(movie.n_frames)


def gain_verdict(protocol: Any) -> Verdict:
    """How well each orientation of the gain explains the first movie."""
    path, settings = first_movie(protocol)
    if not settings.gain:
        raise SettingsError("No gain reference was given at the import: import the movies again with their gain.")
    with open_movie(path, settings) as movie:
        return find_orientation(movie, raw_sum(movie), settings)


def verdict_text(verdict: Verdict) -> str:
    explained = (
        "Part of the gain's fine detail that is detected in the frames of the first movie, with its standard error: "
        "near 100 % for the right orientation, near 0 for all others. It is negative if the gain is multiplied "
        "instead of divided, or the other way round."
    )
    lines = [textwrap.fill(explained, DIALOG_WIDTH), ""]
    for fit in verdict.fits[:SHOWN_FITS]:
        orientation = f"rotation {fit.rotation}, flip {fit.flip}, {fit.convention}"
        lines.append(f"{orientation}: {100 * fit.slope:.1f} +- {100 * fit.error:.1f} %")
    question = f"Undecided. {verdict.reason}" if verdict.best is None else "Set the first orientation in the form?"
    lines += ["", textwrap.fill(question, DIALOG_WIDTH)]
    return "\n".join(lines)


def patch_edges(length_px: int, patch_px: float, count: int) -> List[float]:
    """First pixels of the patches along an axis: evenly spaced from one edge of the frame to the other."""
    return [float(edge) for edge in np.linspace(0, max(length_px - patch_px, 0), count)]


@dataclass(frozen=True)
class Preview:
    """Patches and control points of the first movie.

    Attributes
    ----------
    image : (ny, nx) float32 mean of the first aligned frames, averaged over `step` x `step` pixels of the frame.
    step : pixel size of the image in unbinned pixels.
    edges : first pixels of the patches along y and along x, in unbinned pixels.
    patch_px : size of the patches in unbinned pixels.
    control_points : (KT, KY, KX), numbers of control points of the spline.
    at_most : (KT, KY, KX), the largest numbers that the refinement may use; None if `control_points` is final.
    n_frames : number of frames to align.
    automatic : whether the control points are chosen automatically.
    enough_room : whether the frame is large enough for these patches.
    """

    image: np.ndarray
    step: float
    edges: Tuple[List[float], List[float]]
    patch_px: float
    control_points: Tuple[int, int, int]
    at_most: Optional[Tuple[int, int, int]]
    n_frames: int
    automatic: bool
    enough_room: bool


def preview(protocol: Any) -> Preview:
    """Patches and control points that the form's values give for the first movie."""
    path, settings = first_movie(protocol)
    with open_movie(path, settings) as movie:
        settings = settings_of_frames(movie, settings)
        aligned, _ = settings.frame_ranges(movie.n_frames, path)
        shown = aligned[:PREVIEW_FRAMES]
        mean = np.zeros(movie.shape[1:], np.float32)
        for i in shown:
            mean += movie.frame(i)
    ny, nx = mean.shape
    step = max(max(ny, nx) // PREVIEW_PIXELS, 1)
    small = mean[: ny // step * step, : nx // step * step]
    small = small.reshape(ny // step, step, nx // step, step).mean(axis=(1, 3)) / len(shown)
    patch = settings.min_local_res / settings.pixel_size
    counts = (settings.patches_y, settings.patches_x)
    if settings.auto_patches:
        counts = math.ceil(ny / patch), math.ceil(nx / patch)
    points = (settings.control_point_t, settings.control_point_y, settings.control_point_x)
    if settings.auto_control_points:
        points = automatic_control_points((ny, nx), settings.pixel_size, len(aligned))
    return Preview(
        small,
        float(step),
        (patch_edges(ny, patch, counts[0]), patch_edges(nx, patch, counts[1])),
        patch,
        points,
        finest_control_points(points, counts, len(aligned))
        if settings.auto_control_points and settings.do_refinement
        else None,
        len(aligned),
        settings.auto_control_points,
        min(counts) >= MIN_PATCHES and min(ny, nx) >= MIN_ROOM * patch,
    )


def preview_text(shown: Preview) -> str:
    """Explains the control points and their numbers."""
    kt, ky, kx = shown.control_points
    if not shown.enough_room:
        return (
            f"The frame is too small for two patches of {shown.patch_px:.0f} px on each axis: local motion will not be "
            "corrected. Make the patches smaller."
        )
    text = (
        "The motion of each patch is measured in every frame. A smooth B-spline describes the motion of the image over "
        f"time. Each control point has {kt} shifts, spread over {shown.n_frames} frames. More control points "
        "follow the motion more closely but are noisier. "
    )
    if shown.at_most is not None:
        most_t, most_y, most_x = shown.at_most
        return text + (
            "The numbers shown follow from the size of the image and the number of frames. They are used at first. "
            f"The refinement uses more, up to {most_x} x {most_y} and {most_t} in time, if the motion requires it."
        )
    if shown.automatic:
        return text + "The numbers shown follow from the size of the image and the number of frames."
    return text + "The numbers shown are the form's and apply to every movie."


def input_text(protocol: Any) -> str:
    """What the chosen movies amount to, and what about them makes no sense."""
    path, settings = first_movie(protocol)
    with open_movie(path, settings) as movie:
        facts, contradicted = facts_of_movie(movie, settings)
    doubts = contradicted + facts.doubts
    lines = [f"{os.path.basename(path)}: {facts.line}.", *(doubts or ["These values make sense."])]
    return "\n\n".join(textwrap.fill(line, DIALOG_WIDTH) for line in lines)


class InputWizard(DialogWizard):
    """Says what the chosen movies amount to: pixel size, field, dose, and the dose that is counted in the first."""

    _targets = [(ProtFlexAlign, ["inputMovies"])]

    def _show(self, form: Any) -> None:
        showInfo("Input", input_text(form.protocol), form.root)


class AlignedFramesWizard(DialogWizard):
    """Sets the range to align to all frames of the first movie."""

    _targets = [(ProtFlexAlign, ["alignFrame0", "alignFrameN"])]
    names = ("alignFrame0", "alignFrameN")

    def _show(self, form: Any) -> None:
        n = frame_count(form.protocol)
        for name, value in zip(self.names, (1, n)):
            form.setVar(name, value)
        showInfo(
            "Frames",
            f"The first movie has {n} frames. If the movies have different numbers of frames, set *to* to 0.",
            form.root,
        )


class SummedFramesWizard(AlignedFramesWizard):
    """Sets the range to sum to all frames of the first movie."""

    _targets = [(ProtFlexAlign, ["sumFrame0", "sumFrameN"])]
    names = ("sumFrame0", "sumFrameN")


class GainOrientationWizard(DialogWizard):
    """Ranks the orientations of the gain by how well they explain the first movie, and sets the best one."""

    _targets = [(ProtFlexAlign, ["gainRot", "gainFlip"])]

    def _show(self, form: Any) -> None:
        verdict = gain_verdict(form.protocol)
        text = verdict_text(verdict)
        if verdict.best is None:
            showInfo("Orientation of the gain", text, form.root)
        elif offer("Orientation of the gain", text, form.root):
            best = verdict.best
            form.setVar("gainRot", GAIN_ROTATIONS.index(best.rotation))
            form.setVar("gainFlip", GAIN_FLIPS.index(best.flip))
            form.setVar("gainConvention", GAIN_CONVENTIONS.index(best.convention))


class PatchesWizard(DialogWizard):
    """Draws patches and control points over the first movie."""

    _targets = [
        (
            ProtFlexAlign,
            [
                "minLocalRes",
                "patchesX",
                "patchesY",
                "autoControlPoints",
                "controlPointX",
                "controlPointY",
                "controlPointT",
            ],
        )
    ]

    def _show(self, form: Any) -> None:
        patches_window(preview(form.protocol)).show()


def patches_window(shown: Preview) -> Plotter:
    plotter = Plotter(1, 1, figsize=(7.5, 8.8), windowTitle="FlexAlign: patches and control points")
    plotter.tightLayoutOn = False
    figure = plotter.getFigure()
    axes = figure.add_axes((0.1, 0.24, 0.86, 0.71))
    low, high = np.percentile(shown.image, (1, 99))
    height, width = (n * shown.step for n in shown.image.shape)
    axes.imshow(shown.image, cmap="gray", vmin=low, vmax=high, extent=(0, width, height, 0))
    rows, columns = (len(edges) for edges in shown.edges)
    kt, ky, kx = shown.control_points
    axes.set_title(f"{columns} x {rows} patches, {kx} x {ky} control points, {kt} in time", fontsize=12)
    axes.set_xlabel("x (px)")
    axes.set_ylabel("y (px)")
    _draw_patches(axes, shown)
    x, y = np.meshgrid(places(kx, width), places(ky, height))
    axes.plot(
        x.ravel(), y.ravel(), "D", color=POINT_COLOUR, markeredgecolor="black", clip_on=False, label="control point"
    )
    axes.set(xlim=(0, width), ylim=(height, 0), anchor="S")  # control points on the edges would widen the limits
    axes.legend(loc="upper center", bbox_to_anchor=(0.53, 0.19), bbox_transform=figure.transFigure, ncol=3, fontsize=10)
    text = textwrap.fill(preview_text(shown), TEXT_WIDTH)
    figure.text(0.04, 0.135, text, fontsize=9, va="top", color="black" if shown.enough_room else "#b3261e")
    return plotter


def _draw_patches(axes: Any, shown: Preview) -> None:
    """Draw all patches as thin outlines. Patches overlap, so one of them is also drawn as a filled square."""
    size = shown.patch_px
    corners = [(x, y) for y in shown.edges[0] for x in shown.edges[1]]
    for corner in corners:
        axes.add_patch(Rectangle(corner, size, size, fill=False, edgecolor=PATCH_COLOUR, linewidth=1, alpha=0.8))
    middle = corners[(len(shown.edges[0]) // 2) * len(shown.edges[1]) + len(shown.edges[1]) // 2]
    axes.add_patch(Rectangle(middle, size, size, facecolor=PATCH_COLOUR, alpha=0.25))
    axes.add_patch(
        Rectangle(
            middle, size, size, fill=False, edgecolor=PATCH_COLOUR, linewidth=2.2, label=f"one patch, {size:.0f} px"
        )
    )
    centres = np.array(corners) + size / 2
    axes.plot(*centres.T, "o", markersize=4, color=PATCH_COLOUR, label="centre of a patch")
