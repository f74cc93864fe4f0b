"""The plots of one movie: global trajectory, local motion, power spectra before and after.

Figures are drawn with the Agg canvas directly and not with pyplot, whose global state is not thread-safe. Few artists,
no mathematical text and Pillow's PNG writer keep drawing fast. y increases downwards as in `pictures`.
"""

from __future__ import annotations

from typing import List, Tuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..correction.power_spectra import Spectra
from ..motion.model import MotionModel
from ..quality.figures import Figures
from ..quality.motion_size import local_shifts, mesh_positions
from .pictures import spectra as spectra_picture
from .pictures import write_png

_DPI = 100
_TIME_COLOURS = "viridis"
CORRECTED, UNCORRECTED = "#0b6e4f", "#7b4ea3"
FIRST_FRAME = "#1d2733"  # of the ring around it; red is for what needs a look
_LABELLED_RESOLUTIONS_A = (50, 20, 10, 7, 5, 4, 3.5, 3, 2.5, 2.2, 2, 1.8, 1.6, 1.4, 1.2, 1, 0.8, 0.6, 0.5)
_FAINT_BLACK = -900  # grey value that is drawn black, so that a background picture is faint
_MESH_POINTS = 9  # along the longer side of the frame


def global_trajectory(path: str, model: MotionModel, figures: Figures) -> None:
    """Path of the global shifts, coloured by time, on axes in pixels and Angstrom."""
    y, x = model.global_shifts_px.T
    figure = Figure(figsize=(6, 6), dpi=_DPI)
    axes = figure.add_axes((0.125, 0.1, 0.74, 0.74))
    middle = (x.max() + x.min()) / 2, (y.max() + y.min()) / 2
    half = max(0.68 * np.ptp(x), 0.68 * np.ptp(y), 0.5)  # leaves room for the labels of the outer points
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] + half, middle[1] - half)
    axes.set_aspect("equal")
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    colours = colormaps[_TIME_COLOURS](np.linspace(0, 0.92, len(x)))
    points = np.column_stack([x, y])
    axes.add_collection(LineCollection(np.stack([points[:-1], points[1:]], 1), colors=colours[1:], linewidths=1.8))
    axes.scatter(x, y, s=22, c=colours, zorder=3)
    first = model.first_frame + 1
    axes.scatter(x[:1], y[:1], s=130, facecolors="none", edgecolors=FIRST_FRAME, linewidths=1.8, zorder=4)
    for i, place in _spaced_labels(points, 0.075 * half):
        is_first = i == 0
        reach = 14 if is_first else 11
        axes.annotate(
            f"frame {first}" if is_first else str(first + i),
            points[i],
            xytext=(reach * place[0], reach * place[1]),
            textcoords="offset points",
            ha="center" if abs(place[0]) < 0.5 else ("left" if place[0] > 0 else "right"),
            va="center",
            fontsize=9,
            color=FIRST_FRAME if is_first else "0.25",
        )
    axes.set_xlabel("shift x (px)")
    axes.set_ylabel("shift y (px), down as in the image")
    _angstrom_axes(axes, model.pixel_size_A)
    title = f"Global motion: {figures.accumulated_motion_total_A or 0.0:.1f} Å in all"
    if figures.accumulated_motion_early_A is not None:
        title += f", {figures.accumulated_motion_early_A:.1f} Å in the first 4 e/Å²"
    figure.suptitle(title, fontsize=11, y=0.975)
    _save(figure, path)


def local_field(
    path: str, model: MotionModel, figures: Figures, window: Tuple[slice, slice], background: np.ndarray
) -> None:
    """Magnified paths of the local shifts, on a mesh over the frame, relative to the first aligned frame.

    Parameters
    ----------
    window : part of the frame, (y, x), that the micrograph shows.
    background : (my, mx) uint8 thumbnail of the micrograph, drawn faintly where the micrograph lies in the frame.
    """
    ny, nx = model.frame_shape
    spacing = max(ny, nx) / _MESH_POINTS
    y0, x0 = (mesh_positions(n, spacing) for n in (ny, nx))
    motion = local_shifts(model, y0, x0)  # (2, n_aligned, y, x)
    largest = float(np.hypot(*motion).max())
    magnification = _round_down(0.9 * spacing / max(largest, 1e-3))
    margin = 0.4 * spacing  # paths of the outer points may end outside the frame
    figure, axes, bar_axes = _map_axes(ny + 2 * margin, nx + 2 * margin)
    window_y, window_x = window
    axes.imshow(
        background,
        cmap="gray",
        vmin=_FAINT_BLACK,
        vmax=255,
        interpolation="antialiased",
        aspect="equal",
        extent=(window_x.start - 0.5, window_x.stop - 0.5, window_y.stop - 0.5, window_y.start - 0.5),
    )
    axes.set_xlim(-margin, nx + margin)
    axes.set_ylim(ny + margin, -margin)
    axes.add_patch(Rectangle((-0.5, -0.5), nx, ny, fill=False, edgecolor="0.5", linewidth=0.8))
    paths = np.stack([x0[None, None, :] + magnification * motion[1], y0[None, :, None] + magnification * motion[0]], -1)
    paths = paths.reshape(model.n_aligned, -1, 2)  # (frame, mesh point, (x, y))
    segments = np.stack([paths[:-1], paths[1:]], 2).reshape(-1, 2, 2)
    first, last = model.first_frame + 1, model.first_frame + model.n_aligned
    colours = LineCollection(segments, cmap=_TIME_COLOURS, norm=Normalize(first, last), linewidths=2.2)
    colours.set_capstyle("round")
    colours.set_array(np.repeat(np.arange(first + 1, last + 1), paths.shape[1]))
    axes.add_collection(colours)
    axes.scatter(
        paths[0, :, 0], paths[0, :, 1], s=18, facecolors="white", edgecolors=FIRST_FRAME, linewidths=1.2, zorder=3
    )
    figure.colorbar(colours, cax=bar_axes, ticks=MaxNLocator(integer=True)).set_label("frame")
    axes.set_xlabel("x (px)")
    axes.set_ylabel("y (px)")
    largest = figures.local_motion_max_px or 0.0  # includes the edges of the frame, where it is often largest
    title = (
        f"Local shifts relative to frame {first} (circles)\n"
        f"drawn {magnification:g} times larger; at most {largest:.2f} px = {largest * model.pixel_size_A:.2f} Å"
    )
    if not model.is_local:
        title = "No local motion:\nshifts of the whole frame only"
    axes.set_title(title, fontsize=11)
    _save(figure, path)


def spectra(path: str, shown: Spectra, figures: Figures, pixel_size_A: float) -> None:
    """Picture of both power spectra, and below it their radial averages, and where their Thon rings end.

    Parameters
    ----------
    pixel_size_A : pixel size of the images that the spectra were computed from.
    """
    after, before = shown.corrected, shown.uncorrected
    n = len(after.image)
    figure = Figure(figsize=(6, 8.2), dpi=_DPI)
    image_axes = figure.add_axes((0.15, 0.335, 0.8, 0.8 * 6 / 8.2))
    image_axes.imshow(
        spectra_picture(after.image, before.image), cmap="gray", vmin=0, vmax=255, interpolation="antialiased"
    )
    image_axes.set_axis_off()
    ends = (
        ("corrected", figures.thon_rings_A, CORRECTED),
        ("uncorrected", figures.thon_rings_uncorrected_A, UNCORRECTED),
    )
    left, right = (name if seen_to_A is None else f"{name}, rings to {seen_to_A:.3g} Å" for name, seen_to_A, _ in ends)
    image_axes.set_title(left, loc="left", color=CORRECTED, fontsize=11)
    image_axes.set_title(right, loc="right", color=UNCORRECTED, fontsize=11)
    axes = figure.add_axes((0.15, 0.075, 0.8, 0.23))
    frequency = np.arange(len(after.profile)) / (n * pixel_size_A)
    drawn = slice(max(3, n // 64), None)
    axes.plot(frequency[drawn], before.profile[drawn], color=UNCORRECTED, linewidth=1.2, label="uncorrected")
    axes.plot(frequency[drawn], after.profile[drawn], color=CORRECTED, linewidth=1.4, label="corrected")
    for _, seen_to_A, colour in ends:
        if seen_to_A is not None:
            axes.axvline(1 / seen_to_A, color=colour, linewidth=1, linestyle="--")
    axes.set_xlim(0, 0.5 / pixel_size_A)
    ticks = _resolution_ticks(pixel_size_A)
    axes.set_xticks([1 / resolution for resolution in ticks], [f"{resolution:g}" for resolution in ticks])
    axes.set_xlabel("resolution (Å)")
    axes.set_ylabel("log power\nless background")
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.legend(loc="upper right", fontsize=9, frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: str) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    write_png(path, np.asarray(canvas.buffer_rgba())[..., :3])


def _angstrom_axes(axes: Axes, pixel_size_A: float) -> None:
    scale = (lambda px: px * pixel_size_A), (lambda angstrom: angstrom / pixel_size_A)
    axes.secondary_xaxis("top", functions=scale).set_xlabel("shift x (Å)")
    axes.secondary_yaxis("right", functions=scale).set_ylabel("shift y (Å)")


def _spaced_labels(points: np.ndarray, distance: float) -> List[Tuple[int, np.ndarray]]:
    """Frames to label, and the direction (x right, y up) from the point to its label, perpendicular to the line.

    Labels are at 2 `distance` from their points. A label within 2 `distance` of another one is left out.
    """
    chosen: List[Tuple[int, np.ndarray]] = []
    taken: List[np.ndarray] = []
    n = len(points)
    step = max(1, int(np.ceil(n / 12)))
    for i in [0, n - 1, *range(step, n - 1, step)]:
        before, after = points[max(i - 1, 0)], points[min(i + 1, n - 1)]
        along = after - before
        length = np.hypot(*along)
        away = np.array([-along[1], along[0]]) / length if length > 0 else np.array([1.0, 0.0])
        anchor = points[i] + 2 * distance * away
        if all(np.hypot(*(anchor - other)) > 2 * distance for other in taken):
            chosen.append((i, away * np.array([1, -1])))
            taken.append(anchor)
    return chosen


def _round_down(value: float) -> float:
    """The largest of 1, 1.5, 2, 3, 4, 5, 6 and 8 times a power of ten that does not exceed `value`."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(step for step in (1, 1.5, 2, 3, 4, 5, 6, 8) if step * power <= value * (1 + 1e-9)))


def _map_axes(ny: float, nx: float) -> Tuple[Figure, Axes, Axes]:
    """A figure, axes with the given aspect ratio, and narrow axes beside them for a colour bar."""
    long_side, left, right, bottom, top = 5.8, 0.85, 1.15, 0.6, 0.7  # inches
    width, height = long_side * nx / max(ny, nx), long_side * ny / max(ny, nx)
    figure = Figure(figsize=(left + width + right, bottom + height + top), dpi=_DPI)
    full_width, full_height = figure.get_size_inches()
    lower, tall = bottom / full_height, height / full_height
    axes = figure.add_axes((left / full_width, lower, width / full_width, tall))
    return figure, axes, figure.add_axes(((left + width + 0.12) / full_width, lower, 0.16 / full_width, tall))


def _resolution_ticks(pixel_size_A: float) -> List[float]:
    nyquist = 0.5 / pixel_size_A
    ticks: List[float] = []
    for resolution in _LABELLED_RESOLUTIONS_A:
        if 1 / resolution <= nyquist * 1.001 and (not ticks or 1 / resolution - 1 / ticks[-1] > 0.055 * nyquist):
            ticks.append(resolution)
    return ticks
