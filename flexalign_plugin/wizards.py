"""The wands in the form of ProtFlexAlign: frame range, orientation of the gain, patches drawn over the movie.

What they find out is computed by functions that need no window; the wizards show it and set the form's values.
"""

from __future__ import annotations

import math
import os
from typing import Any, List, Tuple

import numpy as np
from pyworkflow.gui.dialog import askYesNo, showError, showInfo
from pyworkflow.gui.plotter import Plotter
from pyworkflow.wizard import Wizard

from .errors import FlexAlignError, SettingsError
from .movies import open_movie
from .movies.gain_orientation import Verdict, find_orientation, raw_sum
from .protocols.form import settings_values
from .protocols.protocol_flexalign import ProtFlexAlign
from .settings import GAIN_CONVENTIONS, GAIN_FLIPS, GAIN_ROTATIONS, Settings

SHOWN_FITS = 8
PREVIEW_PIXELS = 800
PREVIEW_FRAMES = 10  # enough to see what the patches cover


def first_movie(protocol: Any) -> Tuple[str, Settings]:
    """File of the first movie and the settings that the form makes for it.

    Raises
    ------
    SettingsError : no movies are chosen, or the form's values make no sense.
    """
    movie = protocol._first_movie()
    if movie is None:
        raise SettingsError("Choose the input movies first.")
    return os.path.abspath(movie.getFileName()), Settings(**settings_values(protocol, movie))


def frame_count(protocol: Any) -> int:
    """Frames of the first movie's file; for EER the groups that the form asks for."""
    path, settings = first_movie(protocol)
    with open_movie(path, settings) as movie:
        return int(movie.n_frames)


def gain_verdict(protocol: Any) -> Verdict:
    """How well each orientation of the gain explains the first movie."""
    path, settings = first_movie(protocol)
    if not settings.gain:
        raise SettingsError("No gain reference was given when the movies were imported.")
    with open_movie(path, settings) as movie:
        return find_orientation(movie, raw_sum(movie), settings)


def verdict_text(verdict: Verdict) -> str:
    lines = ["Part of the gain's fine detail that is found in the frames of the first movie:", ""]
    for fit in verdict.fits[:SHOWN_FITS]:
        lines.append(
            f"{fit.slope:6.1%} +- {fit.error:.1%}   rotation {fit.rotation}, flip {fit.flip}, {fit.convention}"
        )
    lines += ["", f"Undecided. {verdict.reason}" if verdict.best is None else "Set the first one?"]
    return "\n".join(lines)


def patch_edges(length_px: int, patch_px: float, count: int) -> List[float]:
    """First pixels of the patches along an axis: flush with both ends, the rest evenly between."""
    return [float(at) for at in np.linspace(0, max(length_px - patch_px, 0), count)]


def preview(protocol: Any) -> Tuple[np.ndarray, float, Tuple[List[float], List[float]], float]:
    """Mean of some frames of the first movie, (ny, nx) float32, made smaller by a factor; that factor; the first pixels
    of the patches along y and x and their size, in pixels of the frame."""
    path, settings = first_movie(protocol)
    with open_movie(path, settings) as movie:
        n = min(movie.n_frames, PREVIEW_FRAMES)
        mean = np.zeros(movie.shape[1:], np.float32)
        for i in range(n):
            mean += movie.frame(i)
    ny, nx = mean.shape
    step = max(max(ny, nx) // PREVIEW_PIXELS, 1)
    small = mean[: ny // step * step, : nx // step * step]
    small = small.reshape(ny // step, step, nx // step, step).mean(axis=(1, 3)) / n
    patch = settings.min_local_res / settings.pixel_size
    counts = (settings.patches_y, settings.patches_x)
    if settings.auto_patches:
        counts = math.ceil(ny / patch), math.ceil(nx / patch)
    return small, float(step), (patch_edges(ny, patch, counts[0]), patch_edges(nx, patch, counts[1])), patch


class _FlexAlignWizard(Wizard):
    def show(self, form: Any, *params: Any) -> None:
        try:
            self._show(form)
        except FlexAlignError as error:
            showError("FlexAlign", str(error), form.root)

    def _show(self, form: Any) -> None:
        raise NotImplementedError


class AlignedFramesWizard(_FlexAlignWizard):
    """All frames that the first movie has."""

    _targets = [(ProtFlexAlign, ["alignFrame0", "alignFrameN"])]
    names = ("alignFrame0", "alignFrameN")

    def _show(self, form: Any) -> None:
        n = frame_count(form.protocol)
        for name, value in zip(self.names, (1, n)):
            form.setVar(name, value)
        showInfo(
            "Frames", f"The first movie has {n} frames. For movies of different lengths leave *to* at 0.", form.root
        )


class SummedFramesWizard(AlignedFramesWizard):
    """All frames that the first movie has, for the sum."""

    _targets = [(ProtFlexAlign, ["sumFrame0", "sumFrameN"])]
    names = ("sumFrame0", "sumFrameN")


class GainOrientationWizard(_FlexAlignWizard):
    """Ranks the orientations of the gain by how well they explain the first movie."""

    _targets = [(ProtFlexAlign, ["gainRot", "gainFlip"])]

    def _show(self, form: Any) -> None:
        verdict = gain_verdict(form.protocol)
        text = verdict_text(verdict)
        if verdict.best is None:
            showInfo("Orientation of the gain", text, form.root)
        elif askYesNo("Orientation of the gain", text, form.root):
            best = verdict.best
            form.setVar("gainRot", GAIN_ROTATIONS.index(best.rotation))
            form.setVar("gainFlip", GAIN_FLIPS.index(best.flip))
            form.setVar("gainConvention", GAIN_CONVENTIONS.index(best.convention))


class PatchesWizard(_FlexAlignWizard):
    """Draws the patches over the first movie."""

    _targets = [(ProtFlexAlign, ["minLocalRes", "patchesX", "patchesY"])]

    def _show(self, form: Any) -> None:
        patches_window(*preview(form.protocol)).show()


def patches_window(image: np.ndarray, step: float, edges: Tuple[List[float], List[float]], patch: float) -> Plotter:
    plotter = Plotter(1, 1, figsize=(7.5, 7.5), windowTitle="Patches")
    axes = plotter.createSubPlot(
        f"{len(edges[1])} x {len(edges[0])} patches of {patch:.0f} px, each in its own colour", "x (px)", "y (px)"
    )
    low, high = np.percentile(image, (1, 99))
    height, width = image.shape[0] * step, image.shape[1] * step
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, extent=(0, width, height, 0))
    from matplotlib.patches import Rectangle

    for row, y in enumerate(edges[0]):
        for column, x in enumerate(edges[1]):
            colour = f"C{(row * len(edges[1]) + column) % 10}"
            axes.add_patch(Rectangle((x, y), patch, patch, fill=False, edgecolor=colour, linewidth=1.2, alpha=0.8))
            axes.plot(x + patch / 2, y + patch / 2, ".", color=colour)
    return plotter
