"""The charts of one movie, drawn from its `flexalign_plugin.report_pages.details`."""

from __future__ import annotations

import contextlib
import os
import textwrap
from typing import Any, Dict, List, Optional

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgb
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import MaxNLocator

from flexalign_plugin.errors import ResultError
from flexalign_plugin.output.pictures import read_png
from flexalign_plugin.output.plots import CORRECTED, FIRST_FRAME, UNCORRECTED
from flexalign_plugin.quality.figures import in_chart
from flexalign_plugin.quality.thon_rings import SEEN
from flexalign_plugin.report_pages.concerns import in_words

ALARM, PLAIN, LEVEL = "#c62828", "#2b6cb0", "#5b6775"  # red is for what needs a look
_TIME = colormaps["viridis"]
(LOCAL,) = in_chart("local motion")
_RESOLUTIONS_A = (50, 20, 10, 7, 5, 4, 3, 2.5, 2, 1.7, 1.5, 1.2, 1, 0.8, 0.6)
_NUMBERED_PATCHES = 64  # with more patches there is no room for their numbers
_MANY_REJECTED = 0.5
_SMALL, _TINY = 8, 7  # font sizes


def prepare(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=_TINY)


def missing(axes: Axes, title: str, why: str) -> None:
    """An empty chart with the reason why this movie has no data for it."""
    axes.axis("off")
    prepare(axes, title)
    axes.text(0.5, 0.5, why, ha="center", va="center", color="0.45", fontsize=_SMALL, transform=axes.transAxes)


def picture(axes: Axes, path: str, title: str) -> None:
    if not os.path.exists(path):
        return missing(axes, title, "not written")
    try:
        image = read_png(path)
    except ResultError as error:
        return missing(axes, title, "\n".join(textwrap.wrap(str(error), 45)))
    axes.axis("off")
    prepare(axes, title)
    axes.imshow(image, cmap="gray", interpolation="antialiased")


def trajectory(axes: Axes, shown: Dict[str, Any]) -> None:
    """Path of the global shifts; early frames are dark, the ring is the first aligned frame."""
    prepare(axes, f"Global motion (px of {shown['pixel_size_A']:.3g} Å)")
    y, x = np.array(shown["shifts"]).T
    colours = _TIME(np.linspace(0, 0.92, len(x)))
    points = np.column_stack([x, y])
    axes.add_collection(LineCollection(np.stack([points[:-1], points[1:]], 1), colors=colours[1:], linewidths=1.6))
    axes.scatter(x, y, s=14, c=colours, zorder=3)
    axes.scatter(x[:1], y[:1], s=70, facecolors="none", edgecolors=FIRST_FRAME, linewidths=1.5, zorder=4)
    half = max(0.6 * np.ptp(x), 0.6 * np.ptp(y), 0.5)
    axes.set_xlim((x.max() + x.min()) / 2 - half, (x.max() + x.min()) / 2 + half)
    axes.set_ylim((y.max() + y.min()) / 2 + half, (y.max() + y.min()) / 2 - half)
    axes.set_aspect("equal")
    axes.grid(True, color="0.92")
    first = shown["first_frame"]
    axes.set_xlabel(f"frames {first} (ring) to {first + len(x) - 1}; y downwards", fontsize=_SMALL)


def radial_averages(axes: Axes, profile: Dict[str, Any], rings: Optional[Dict[str, Any]]) -> None:
    """Radial averages of the power spectra, without the lowest frequencies, where they are steep."""
    _before_and_after(axes, profile, max(3, len(profile["corrected"]) // 32))
    axes.text(0.99, 0.95, "log power", ha="right", va="top", fontsize=_TINY, transform=axes.transAxes)
    _ends_of_rings(axes, rings)
    if rings:  # the chart below has the same axis
        axes.tick_params(labelbottom=False)
        axes.set_xlabel("")


def ring_correlation(axes: Axes, rings: Dict[str, Any]) -> None:
    """Correlation of the Thon rings in two halves of the tiles, and the resolution to which they are seen."""
    _before_and_after(axes, rings, 0)
    axes.set_ylim(-0.15, 1.05)
    axes.axhline(SEEN, color=LEVEL, linewidth=0.8, linestyle="--")
    axes.text(0.99, 0.95, "rings", ha="right", va="top", fontsize=_TINY, transform=axes.transAxes)
    _ends_of_rings(axes, rings)


def spectrum_title(rings: Optional[Dict[str, Any]]) -> str:
    title = "Power spectrum: corrected | uncorrected"
    if rings is None:
        return title
    return title + "\nrings to " + " | ".join(f"{a:.3g} Å" if a else "none" for a in rings["seen_to_A"])


def _before_and_after(axes: Axes, curves: Dict[str, Any], start: int) -> None:
    for name, colour in (("uncorrected", UNCORRECTED), ("corrected", CORRECTED)):
        values = np.array(curves[name], float)
        frequency = np.arange(len(values)) / (len(values) * curves["nyquist_A"])
        axes.plot(frequency[start:], values[start:], color=colour, linewidth=1.2, label=name)
    _over_resolution(axes, curves["nyquist_A"])
    axes.tick_params(labelsize=_TINY)


def _ends_of_rings(axes: Axes, rings: Optional[Dict[str, Any]]) -> None:
    for seen_to_A, colour in zip(rings["seen_to_A"] if rings else (), (CORRECTED, UNCORRECTED)):
        if seen_to_A:
            axes.axvline(1 / seen_to_A, color=colour, linewidth=0.9, linestyle="--")


class LocalMotion:
    """Magnified local motion on a mesh over the frame, from the first frame up to a chosen one."""

    def __init__(self, axes: Axes, shown: Dict[str, Any], background: str) -> None:
        field = shown["field"]
        (ny, nx), y, x = shown["shape"], np.array(field["y"]), np.array(field["x"])
        moved = np.array(field["motion"], float).reshape(-1, len(y), len(x), 2) * field["step_px"]
        self.frames: List[int] = field["frames"]
        largest = float(np.hypot(moved[..., 0], moved[..., 1]).max())
        spacing = max(ny, nx) / max(len(y), len(x))
        factor = _round(0.8 * spacing / max(largest, 1e-3))
        self._points_xy = np.stack(
            [x[None, None, :] + factor * moved[..., 1], y[None, :, None] + factor * moved[..., 0]], -1
        )
        prepare(axes, "Local motion")
        with contextlib.suppress(ResultError):  # without a picture, or with one that `picture` reports
            x0, y0, x1, y1 = shown["window"]
            axes.imshow(read_png(background), cmap="gray", alpha=0.25, extent=(x0, x1, y1, y0), aspect="equal")
        axes.add_patch(Rectangle((0, 0), nx, ny, fill=False, edgecolor="0.6"))
        axes.set_xlim(-0.3 * spacing, nx + 0.3 * spacing)
        axes.set_ylim(ny + 0.3 * spacing, -0.3 * spacing)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(
            f"relative to frame {shown['first_frame']}, drawn {factor:g} times larger;\n"
            f"at most {in_words(LOCAL, field['largest_px'], shown['pixel_size_A'])}, edges included",
            fontsize=_SMALL,
        )
        self._mesh = LineCollection([], colors=PLAIN, alpha=0.4, linewidths=0.8)
        self._paths = LineCollection(
            [], cmap=_TIME, norm=Normalize(0, len(self.frames)), linewidths=1.8, capstyle="round"
        )
        axes.add_collection(self._mesh)
        axes.add_collection(self._paths)
        self.points = axes.scatter([], [], s=9, color=FIRST_FRAME, zorder=3)

    def draw(self, i: int) -> None:
        """Draw the motion up to the `i`-th of `frames`."""
        mesh = self._points_xy[i]
        across, down = np.stack([mesh[:, :-1], mesh[:, 1:]], 2), np.stack([mesh[:-1], mesh[1:]], 2)
        self._mesh.set_segments(list(across.reshape(-1, 2, 2)) + list(down.reshape(-1, 2, 2)))
        paths = self._points_xy[: i + 1].reshape(i + 1, -1, 2)
        self._paths.set_segments(list(np.stack([paths[:-1], paths[1:]], 2).reshape(-1, 2, 2)))
        self._paths.set_array(np.repeat(np.arange(1, i + 1), paths.shape[1]))
        self.points.set_offsets(mesh.reshape(-1, 2))


def residuals(axes: Axes, shown: Dict[str, Any]) -> None:
    """Positions of the patches: larger circles have larger residuals; most frame pairs of red ones were rejected."""
    prepare(axes, f"Patches: residual (px of {shown['pixel_size_A']:.3g} Å), rejected")
    (ny, nx), patches = shown["shape"], shown["patches"]
    largest = max(max(patch[2] for patch in patches), 1e-6)
    spacing = min(ny, nx) / len(patches) ** 0.5
    for y, x, residual, rejected in patches:
        share = 0.0 if rejected is None else rejected
        radius = max(0.45 * spacing * (residual / largest) ** 0.5, 0.01 * nx)
        # Radii are in data units, so that the circles scale with the map when the window is resized.
        axes.add_patch(_circle(x, y, radius, share))
        if len(patches) <= _NUMBERED_PATCHES:
            text = f"{residual:.2g}" if rejected is None else f"{residual:.2g}\n{100 * share:.0f} %"
            axes.text(x, y, text, ha="center", va="center", fontsize=_TINY if len(patches) <= 25 else 5)
    axes.set_xlim(0, nx)
    axes.set_ylim(ny, 0)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(
        "larger: larger residual from the spline (rms);\nred: most of its frame pairs rejected", fontsize=_SMALL
    )


def _circle(x: float, y: float, radius: float, share: float) -> Circle:
    colour = to_rgb(ALARM if share > _MANY_REJECTED else PLAIN)
    return Circle((x, y), radius, facecolor=(*colour, 0.35), edgecolor=colour, linewidth=1.2)


def rejected_pairs(axes: Axes, shown: Dict[str, Any]) -> None:
    """Percentage of each frame's pairs that contradict the global shifts and were rejected."""
    shares = 100 * np.array(shown["frame_rejected"], float)
    if not np.nan_to_num(shares).any():
        return missing(axes, "Rejected pairs of each frame", "none: all frame pairs agree")
    prepare(axes, "Rejected pairs of each frame (%)")
    frames = shown["first_frame"] + np.arange(len(shares))
    axes.bar(frames, shares, width=0.85, color=[ALARM if s > 100 * _MANY_REJECTED else PLAIN for s in shares])
    axes.set_ylim(0, max(10.0, 1.1 * shares.max()))
    axes.set_xlim(frames[0] - 0.7, frames[-1] + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("frame", fontsize=_SMALL)
    axes.grid(True, axis="y", color="0.92")
    axes.set_axisbelow(True)


def even_odd_frc(axes: Axes, frc: Dict[str, Any]) -> None:
    """Fourier ring correlation of even and odd frames."""
    prepare(axes, "FRC of even and odd frames")
    frequency, values = np.array(frc["curve"], float).T
    axes.plot(frequency, values, color=CORRECTED, linewidth=1.3)
    for level in (0.143, 0.5):
        axes.axhline(level, color=LEVEL, linewidth=0.8, linestyle="--")
    _over_resolution(axes, frc["nyquist_A"])
    axes.set_ylim(min(0.0, float(values.min())), 1.02)


def _over_resolution(axes: Axes, nyquist_A: float) -> None:
    """Horizontal axis of frequencies up to Nyquist, labelled with resolutions where there is room."""
    limit = 1 / nyquist_A
    ticks: List[float] = []
    for resolution in _RESOLUTIONS_A:
        if 1 / resolution <= 1.001 * limit and (not ticks or 1 / resolution - 1 / ticks[-1] > 0.1 * limit):
            ticks.append(resolution)
    axes.set_xlim(0, limit)
    axes.set_xticks([1 / resolution for resolution in ticks], [f"{resolution:g}" for resolution in ticks])
    axes.set_xlabel("resolution (Å)", fontsize=_SMALL)
    axes.grid(True, color="0.92")


def _round(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `value`."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)))
