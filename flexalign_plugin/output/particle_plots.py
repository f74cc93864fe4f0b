"""The plots of aligned particles: directions of view, scores and errors, the best and the worst, agreement of runs.

Each function draws on a figure and returns it: on a new one, without pyplot, whose global state is not thread-safe; or
on the figure of a window, or a part of it.
"""

from __future__ import annotations

from typing import Optional, Sequence, Tuple, Union

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Ellipse
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from scipy.spatial import cKDTree

from ..particles.views import view_density
from .pictures import to_grey, write_png

AnyFigure = Union[Figure, SubFigure]

_DPI = 100
_PLAIN, _ALARM, _GOOD = "#2b6cb0", "#b3261e", "#0b6e4f"
_RUNS = ("#2b6cb0", "#b7791f", "#0b6e4f", "#8e44ad", "#b0413e", "#5b4b8a")
_DENSITY_COLOURS = "viridis"
_MAP_PIXELS = 400  # height of the map
_SINGLE_DOTS = 5000  # more particles than this are drawn as a density
_SMALLEST_DEG = 0.1  # angles below it are drawn there
_SURE = 0.9  # a posterior from which on a pose counts as sure


def pixels(figure: AnyFigure) -> np.ndarray:
    """(ny, nx, 3) uint8 of a figure."""
    canvas = FigureCanvasAgg(figure.figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def save(figure: AnyFigure, path: str) -> None:
    """Write a figure as PNG."""
    write_png(path, pixels(figure))


def directions(poses: np.ndarray, group: Optional[np.ndarray] = None, figure: Optional[AnyFigure] = None) -> AnyFigure:
    """Equal-area map (Mollweide) of the sphere with the density of the directions of view.

    Parameters
    ----------
    poses : (n, 3, 3). group : (g, 3, 3) symmetry of the volume.
    """
    figure = _figure(figure, (8.4, 4.3))
    sphere, density = view_density(poses, group)
    longitude, latitude = _mollweide(_MAP_PIXELS)
    seen = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=-1
    )
    distance, nearest = cKDTree(sphere).query(seen, k=4)
    weights = 1 / (distance + 1e-3)
    values = (density[nearest] * weights).sum(axis=-1) / weights.sum(axis=-1)
    axes = figure.add_axes((0.07, 0.1, 0.76, 0.8))
    picture = axes.imshow(
        values,
        extent=(-2, 2, -1, 1),
        origin="lower",
        cmap=_DENSITY_COLOURS,
        vmin=0,
        vmax=max(float(density.max()), 2.0),
        interpolation="antialiased",
    )
    picture.set_clip_path(Ellipse((0, 0), 4, 2, transform=axes.transData))
    _graticule(axes)
    bar = figure.colorbar(picture, cax=figure.add_axes((0.875, 0.17, 0.022, 0.66)))
    bar.set_label("density, 1 if even", fontsize=10)
    empty = float((density < 0.1).mean())
    text = f"Directions of view of {len(poses):,} particles"
    if group is not None and len(group) > 1:
        text += f" and their {len(group)} symmetric copies"
    figure.suptitle(text, fontsize=11, y=0.985)
    figure.text(
        0.07,
        0.02,
        f"x: rot, y: tilt. Largest density {density.max():.1f}; {100 * empty:.0f} % of all directions are hardly seen.",
        fontsize=9,
        color="0.35",
    )
    return figure


def histograms(
    score: np.ndarray,
    angle_sd_deg: np.ndarray,
    shift_sd_px: np.ndarray,
    pixel_A: float,
    figure: Optional[AnyFigure] = None,
) -> AnyFigure:
    """Histograms of the scores (n,) and of the predicted errors (n,) of angle and shift."""
    figure = _figure(figure, (9.6, 3.4))
    left, middle, right = (figure.add_subplot(1, 3, column) for column in (1, 2, 3))
    figure.subplots_adjust(left=0.065, right=0.985, top=0.86, bottom=0.17, wspace=0.28)
    _histogram(left, score, "score (nats above no particle)", ".0f")
    _histogram(middle, angle_sd_deg, "predicted error of the angle (degrees)", ".1f")
    _histogram(right, shift_sd_px * pixel_A, "predicted error of the shift (Å)", ".2f")
    left.set_ylabel("particles")
    return figure


def posterior_against_score(score: np.ndarray, posterior: np.ndarray, figure: Optional[AnyFigure] = None) -> AnyFigure:
    """Probability (n,) of each pose against its score (n,)."""
    figure = _figure(figure, (5.6, 4.6))
    grid = figure.add_gridspec(1, 2, width_ratios=(4, 1), wspace=0.04, left=0.12, right=0.97, top=0.88, bottom=0.12)
    axes = figure.add_subplot(grid[0])
    side = figure.add_subplot(grid[1], sharey=axes)
    low, high = _range(score.astype(float))
    drawn = np.clip(score.astype(float), low, high)
    axes.grid(True, color="0.92")
    axes.set_axisbelow(True)
    if len(score) > _SINGLE_DOTS:
        counts, x, y = np.histogram2d(drawn, posterior, bins=(80, 60), range=((low, high), (0, 1)))
        axes.pcolormesh(x, y, np.where(counts > 0, counts, np.nan).T, cmap="Blues", norm=LogNorm(0.3, counts.max()))
    else:
        axes.scatter(drawn, posterior, s=9, color=_PLAIN, alpha=0.5, linewidths=0)
    axes.axhline(_SURE, color="0.45", linewidth=0.9, linestyle="--")
    axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("score (nats above no particle)")
    axes.set_ylabel("probability of the pose (posterior)")
    side.hist(posterior, bins=np.linspace(0, 1, 31).tolist(), orientation="horizontal", color=_PLAIN, alpha=0.8)
    side.tick_params(labelleft=False, left=False)
    side.xaxis.set_major_locator(MaxNLocator(2, integer=True))
    side.set_xlabel("particles")
    share = 100 * float((posterior >= _SURE).mean())
    figure.suptitle(
        f"{share:.0f} % of the particles have a pose of probability {_SURE:g} or more", fontsize=11, y=0.965
    )
    return figure


def examples(
    best: Tuple[np.ndarray, np.ndarray, Sequence[str]],
    worst: Tuple[np.ndarray, np.ndarray, Sequence[str]],
    figure: Optional[AnyFigure] = None,
) -> AnyFigure:
    """The best and the worst particles above their projections.

    Parameters
    ----------
    best, worst : images (k, N, N), projections (k, N, N) with the same contrast, and a short line for each.
    """
    blocks = [(name, *block) for name, block in (("best", best), ("worst", worst)) if len(block[0])]
    columns = max(len(images) for _, images, _, _ in blocks)
    left, cell, gap, head = 0.85, 1.15, 0.3, 0.22  # inches
    width, height = left + columns * cell, len(blocks) * (2 * cell + gap) - gap + head
    figure = _figure(figure, (width, height))
    # One picture on one pair of axes: many axes are slow. Its unit is the side of a particle's image.
    axes = figure.add_axes((left / width, 0, 1 - left / width, 1))
    axes.set_axis_off()
    axes.set_xlim(0, columns)
    axes.set_ylim(height / cell, 0)
    for number, (name, images, projections, lines) in enumerate(blocks):
        top = (head + number * (2 * cell + gap)) / cell
        for row, (kind, pictures) in enumerate(((f"{name}\nparticles", images), ("their\nprojections", projections))):
            middle = top + row + 0.5
            figure.text(0.01, 1 - middle * cell / height, kind, fontsize=9, va="center")
            tiles = np.concatenate([_framed(picture) for picture in pictures], axis=1)
            axes.imshow(
                tiles,
                cmap="gray",
                vmin=0,
                vmax=255,
                interpolation="bilinear",
                aspect="auto",
                extent=(0, len(pictures), top + row + 1, top + row),
            )
        for column, line in enumerate(lines):
            axes.text(column + 0.5, top - 0.04, line, fontsize=8, ha="center", va="bottom", parse_math=False)
    axes.set_xlim(0, columns)
    axes.set_ylim(height / cell, 0)
    return figure


def _framed(picture: np.ndarray) -> np.ndarray:
    """(N + 2, N + 2) uint8 of a particle's image (N, N), with a white frame."""
    low, high = np.percentile(picture, (0.5, 99.5))
    return np.pad(to_grey(picture, low, high), 1, constant_values=255)


def agreement(
    distances_deg: np.ndarray, names: Sequence[str], limit_deg: float, figure: Optional[AnyFigure] = None
) -> AnyFigure:
    """How far the poses of several runs lie from the consensus: the share of particles within an angle.

    Parameters
    ----------
    distances_deg : (runs, n) degrees; NaN where a run has no pose. names : of the runs.
    """
    below = 0.75 + 0.24 * len(names)  # inches for the axis and the names
    height = 3.8 + below
    figure = _figure(figure, (6.4, height))
    axes = figure.add_axes((0.11, below / height, 0.85, 3.35 / height))
    axes.grid(True, which="major", color="0.9")
    axes.set_axisbelow(True)
    within = []
    for number, (distances, name) in enumerate(zip(distances_deg, names)):
        known = np.sort(np.clip(distances[np.isfinite(distances)], _SMALLEST_DEG, 180.0))
        if not len(known):
            continue
        within.append(float((known <= limit_deg).mean()))
        x = np.concatenate([[_SMALLEST_DEG], known, [180.0]])
        y = np.concatenate([[0], 100 * np.arange(1, len(known) + 1) / len(known), [100]])
        label = f"{name}: {100 * within[-1]:.0f} % within {limit_deg:g}°, median {np.median(known):.1f}°"
        axes.step(x, y, where="post", color=_RUNS[number % len(_RUNS)], linewidth=1.6, label=label)
    axes.axvline(limit_deg, color="0.35", linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(_SMALLEST_DEG, 180)
    axes.set_ylim(0, 101)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("angle between the run's pose and the consensus (degrees)")
    axes.set_ylabel("particles within this angle (%)")
    if within:
        axes.legend(fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.17), frameon=False, borderaxespad=0)
    figure.suptitle(f"Agreement of {len(names)} runs on {distances_deg.shape[1]:,} particles", fontsize=11, y=0.975)
    return figure


def _figure(figure: Optional[AnyFigure], inches: Tuple[float, float]) -> AnyFigure:
    return Figure(figsize=inches, dpi=_DPI) if figure is None else figure


def _mollweide(height: int) -> Tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude (radians) of the pixels (height, 2 height) of a map; beside it, of its nearest point."""
    y, x = np.meshgrid(_centres(height), _centres(2 * height), indexing="ij")
    outside = np.maximum(np.hypot(x, y), 1)
    x, y = x / outside, y / outside
    theta = np.arcsin(y)
    longitude = np.pi * np.clip(x / np.maximum(np.cos(theta), 1e-9), -1, 1)
    return longitude, np.arcsin(np.clip((2 * theta + np.sin(2 * theta)) / np.pi, -1, 1))


def _centres(n: int) -> np.ndarray:
    return (2 * np.arange(n) + 1) / n - 1


def _on_map(longitude: np.ndarray, latitude: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(x, y) in the map of radians: 2 theta + sin 2 theta = pi sin(latitude), from a table."""
    theta = np.linspace(-np.pi / 2, np.pi / 2, 2001)
    found = np.interp(np.sin(latitude), (2 * theta + np.sin(2 * theta)) / np.pi, theta)
    return 2 * longitude / np.pi * np.cos(found), np.sin(found)


def _graticule(axes: Axes) -> None:
    """Outline, meridians and parallels, labelled with rot and tilt."""
    line = np.linspace(-1, 1, 181)

    def draw(longitude: np.ndarray, latitude: np.ndarray) -> None:
        axes.plot(*_on_map(longitude, latitude), color="white", linewidth=0.6, alpha=0.45)

    for rot in range(-120, 121, 60):
        draw(np.full(181, np.radians(rot)), line * np.pi / 2)
    for tilt in (30, 60, 90, 120, 150):
        latitude = np.radians(90 - tilt)
        draw(line * np.pi, np.full(181, latitude))
        x, y = (float(v[0]) for v in _on_map(np.array([-np.pi]), np.array([latitude])))
        axes.text(x - 0.05, y, f"{tilt}°", ha="right", va="center", fontsize=8, color="0.3")
    for rot in (-120, -60, 0, 60, 120):
        x = float(_on_map(np.array([np.radians(rot)]), np.zeros(1))[0][0])
        axes.text(x + 0.02, 0.015, f"{rot}°", fontsize=8, color="white")
    axes.text(0, 1.03, "tilt 0°", ha="center", va="bottom", fontsize=8, color="0.3")
    axes.text(0, -1.03, "tilt 180°", ha="center", va="top", fontsize=8, color="0.3")
    axes.add_patch(Ellipse((0, 0), 4, 2, fill=False, edgecolor="0.4", linewidth=1))
    axes.set_xlim(-2.02, 2.02)
    axes.set_ylim(-1.02, 1.02)
    axes.set_axis_off()


def _range(values: np.ndarray) -> Tuple[float, float]:
    """Limits of a chart that a few outliers do not stretch; never empty."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, middle, high = np.percentile(known, (0.1, 50, 99.9))
    if high - low < 1e-9 * max(abs(middle), 1.0):
        return float(middle) - 0.5, float(middle) + 0.5
    return float(low), float(high)


def _histogram(axes: Axes, values: np.ndarray, label: str, number: str) -> None:
    known = values[np.isfinite(values)].astype(float)  # in single precision the largest could lie outside the bins
    low, high = _range(known)
    bins = int(np.clip(np.sqrt(len(known)), 10, 60))
    axes.hist(np.clip(known, low, high), bins=np.linspace(low, high, bins + 1).tolist(), color=_PLAIN, alpha=0.85)
    axes.set_xlabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(True, axis="y", color="0.92")
    axes.set_axisbelow(True)
    if len(known):
        middle = float(np.median(known))
        axes.axvline(middle, color=_ALARM, linewidth=1.2)
        axes.set_title(f"median {format(middle, number)}", fontsize=10, color=_ALARM)
