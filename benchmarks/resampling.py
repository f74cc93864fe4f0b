"""Effect of the resampling on noise and signal: the aligner's resampling of white noise, compared with exact shifts.

    python benchmarks/resampling.py            prints the table, draws docs/resampling.png; 2 minutes

Frames of white noise are moved in three ways and summed: by half a pixel along both axes, by random shifts, and by
local motion. Each sum is compared with the exact sum, of the same frames sampled at the same positions from their
Fourier series. The spectra and the cross-spectrum of the two sums give
- noise power: power of the sum divided by that of the exact sum. A value below 1 means that the noise is blurred;
- signal: fraction of the exact sum's amplitude that is in the sum. It can be low even where the noise is flat;
- information: signal^2 / noise power, the fraction of the signal-to-noise ratio that the resampling preserves.
"""

from __future__ import annotations

import argparse
import os
from typing import Any, Dict, List, Tuple

import matplotlib
import numpy as np
import scipy.fft
import scipy.ndimage

from benchmark_movies import ROOT
from flexalign_plugin.backend import FrameSource
from flexalign_plugin.correction.resampling import plain_mix
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion import MotionModel

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PICTURE = os.path.join(ROOT, "docs", "resampling.png")
TILE = 64  # pixels of the periodograms
OVERSAMPLING = 4
QUINTIC = np.array([66.0, 26.0, 1.0]) / 120  # B-spline of order 5 at 0, 1, 2
EDGE = 16  # px, more than any shift here; pixels closer to the edge are left out, because frames may not cover them
LIMIT = 0.8  # of Nyquist
N_FRAMES = 30
METHODS = ("FlexAlign", "prefiltered cubic B-spline", "linear")


class NoiseMovie:
    """A movie of white noise, with the attributes that the backend needs."""

    path, notes, dtype = "noise", (), np.dtype(np.float32)

    def __init__(self, n: int, size: int, seed: int):
        self.shape, self.seed = (n, size, size), seed

    def frame(self, i: int) -> np.ndarray:
        return np.random.default_rng((self.seed, i)).standard_normal(self.shape[1:], np.float32)


def cases(size: int, seed: int) -> Dict[str, MotionModel]:
    """The motion models. They do not affect the noise in the frames."""
    rng = np.random.default_rng(seed)

    def model(shifts: np.ndarray, coefficients: Any = None) -> MotionModel:
        return MotionModel((size, size), len(shifts), 0, shifts, coefficients, 1.0)

    return {
        "common shift of 0.5 px": model(np.full((N_FRAMES, 2), 0.5)),
        f"random shifts of {N_FRAMES} frames": model(rng.uniform(-4, 4, (N_FRAMES, 2))),
        "local field": model(rng.uniform(-4, 4, (N_FRAMES, 2)), rng.uniform(-3, 3, (2, 6, 5, 5))),
    }


def exact(frame: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The frame's Fourier series at the positions `at` (2, ny, nx).

    The frame is oversampled four times by padding its spectrum, then interpolated with quintic B-splines, whose error
    is below 1e-5 at these frequencies. The prefilter of the spline is a division in Fourier space.
    """
    n = frame.shape[0]
    fine = OVERSAMPLING * n
    spectrum = scipy.fft.rfft2(frame, norm="forward")
    half = n // 2
    spectrum[half], spectrum[:, half] = 0, 0  # the Nyquist frequency is left out, because its sign is undefined
    padded = np.zeros((fine, fine // 2 + 1), np.complex64)
    padded[:half, :half], padded[-half:, :half] = spectrum[:half, :half], spectrum[-half:, :half]
    filters = [
        QUINTIC[0] + 2 * QUINTIC[1] * np.cos(2 * np.pi * f) + 2 * QUINTIC[2] * np.cos(4 * np.pi * f)
        for f in (scipy.fft.fftfreq(fine), scipy.fft.rfftfreq(fine))
    ]
    padded /= np.outer(*filters).astype(np.float32)
    spline = scipy.fft.irfft2(padded, (fine, fine), norm="forward", overwrite_x=True)
    out = np.empty(frame.shape, np.float32)
    return scipy.ndimage.map_coordinates(spline, OVERSAMPLING * at, out, order=5, prefilter=False, mode="grid-wrap")


def sums(movie: NoiseMovie, model: MotionModel, backend: Any) -> Tuple[np.ndarray, Dict[str, np.ndarray]]:
    """The exact sum of the moved frames, and the sums of the methods."""
    n, size, _ = movie.shape
    frames = range(n)
    total = {name: np.zeros((size, size)) for name in ("exact", *METHODS[1:])}
    y = np.arange(size, dtype=float)
    for t in frames:
        frame = movie.frame(t)
        at = np.stack(np.broadcast_arrays(y[:, None], y)) - model.frame_field(t, y, y)
        total["exact"] += exact(frame, at)
        for name, order in zip(METHODS[1:], (3, 1)):
            total[name] += scipy.ndimage.map_coordinates(frame, at, order=order, mode="nearest")
    source = FrameSource(movie, None, None, None)
    warped = backend.warp_sum(source, model, frames, np.ones((1, n)), np.zeros(n))
    (total["FlexAlign"],) = backend.mix(warped, [plain_mix(model, frames)])
    return total.pop("exact"), total


def spectra(image: np.ndarray, reference: np.ndarray) -> List[np.ndarray]:
    """Spectra |image|^2, Re(image * conj(reference)) and |reference|^2, averaged over tapered tiles that overlap by
    half."""
    taper = np.outer(*[np.hanning(TILE + 1)[:-1]] * 2)
    inner = slice(EDGE, -EDGE)
    tiles = [
        np.lib.stride_tricks.sliding_window_view(a[inner, inner], (TILE, TILE))[:: TILE // 2, :: TILE // 2]
        for a in (image, reference)
    ]
    f, g = (scipy.fft.rfft2(t * taper) for t in tiles)
    return [np.mean(p, axis=(0, 1)) for p in (abs(f) ** 2, (f * g.conj()).real, abs(g) ** 2)]


def measure(model: MotionModel, size: int, repeats: int, backend: Any) -> Dict[str, Dict[str, np.ndarray]]:
    """For each method the noise power, signal and information at every frequency, (TILE, TILE // 2 + 1)."""
    total: Dict[str, Any] = dict.fromkeys(METHODS, 0)
    for k in range(repeats):
        reference, results = sums(NoiseMovie(N_FRAMES, size, seed=k), model, backend)
        for name in METHODS:
            total[name] = total[name] + np.array(spectra(results[name], reference))
    return {
        name: {"noise power": p / r, "signal": c / r, "information": c**2 / (p * r)}
        for name, (p, c, r) in total.items()
    }


def radius() -> np.ndarray:
    """Radius of each frequency in units of Nyquist, (TILE, TILE // 2 + 1)."""
    return 2 * np.hypot(scipy.fft.fftfreq(TILE)[:, None], scipy.fft.rfftfreq(TILE))


def rings(values: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Radius of each ring up to Nyquist and the mean of the values in it."""
    ring = np.rint(radius() * TILE / 2).astype(int).ravel()
    count = np.bincount(ring)
    mean = np.bincount(ring, values.ravel()) / count
    return (np.arange(len(mean)) * 2 / TILE)[1 : TILE // 2], mean[1 : TILE // 2]


def worst(values: np.ndarray) -> Tuple[float, float]:
    """Lowest value below the limit: of the means over rings, and of single frequencies."""
    r, mean = rings(values)
    inside = (radius() <= LIMIT) & (radius() > 1.5 / TILE)
    return float(mean[r <= LIMIT].min()), float(values[inside].min())


def draw(measured: Dict[str, Dict[str, Dict[str, np.ndarray]]], path: str) -> None:
    quantities = ("noise power", "signal", "information")
    figure, axes = plt.subplots(
        len(quantities), len(measured), figsize=(11, 8), sharex=True, sharey=True, layout="constrained"
    )
    for column, (case, methods) in enumerate(measured.items()):
        for row, quantity in enumerate(quantities):
            ax = axes[row, column]
            ax.axvline(LIMIT, color="0.8", lw=1)
            ax.axhline(1, color="0.8", lw=1)
            for name, style in zip(METHODS, ("-", "--", ":")):
                ax.plot(*rings(methods[name][quantity]), style, lw=2, label=name)
            if row == 0:
                ax.set_title(case)
            if column == 0:
                ax.set_ylabel(f"{quantity} / exact")
    axes[0, 0].legend(loc="lower left")
    axes[0, 0].set(xlim=(0, 1), ylim=(0, 1.15))
    for ax in axes[-1]:
        ax.set_xlabel("spatial frequency / Nyquist")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="frame width and height in pixels (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="number of movies to average (default %(default)s)")
    parser.add_argument("--picture", default=PICTURE, metavar="PNG", help="file of the plot (default %(default)s)")
    arguments = parser.parse_args()
    backend = select_backend("cpu")
    measured = {}
    print(f"Lowest value below {LIMIT:g} Nyquist, relative to exact shifts: mean over directions (single frequency)\n")
    print("| case | method | noise power | signal | information |\n|---|---|---|---|---|")
    for case, model in cases(arguments.size, seed=1).items():
        measured[case] = measure(model, arguments.size, arguments.repeats, backend)
        for name, values in measured[case].items():
            lows = " | ".join("{:.3f} ({:.3f})".format(*worst(v)) for v in values.values())
            print(f"| {case} | {name} | {lows} |", flush=True)
    draw(measured, arguments.picture)
    print(f"\nPlot: {os.path.relpath(arguments.picture)}")


if __name__ == "__main__":
    main()
