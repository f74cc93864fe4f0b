"""Quality and time of several interpolations.

    python benchmarks/interpolations.py        prints the table; 1 minute

Frames whose shifts have random fractions of a pixel are interpolated and summed, and the sum is whitened. In this sum
the signal is multiplied by the mean of the transfer function H over all fractions, and the power of noise and aliases
by the mean of |H|^2. Their ratio |mean H|^2 / mean |H|^2 is the fraction of the signal-to-noise ratio that is
preserved: it is 1 for an exact shift, and 0.9 means the same loss as 10 % fewer electrons. It is computed from the
kernel, not measured. It is given for frequencies along one axis; for others the factors of both axes are multiplied.

Times are CPU milliseconds for one frame of 4096 x 4096 on one core, in two passes (rows, then columns) that are the
same for all kernels: weights from a table, consecutive pixels. "2x, cubic B-spline" first pads the frame's transform to
twice the size. The aligner's own passes compute their weights and follow a shift field.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Callable, Dict, List, Tuple

import numba
import numpy as np
import scipy.fft
from scipy.interpolate import BSpline

FREQUENCIES = (0.5, 0.6, 0.7, 0.8, 0.9)  # of Nyquist
FRACTIONS = (np.arange(256) + 0.5) / 256
TABLE = 1024
Kernel = Callable[[np.ndarray], np.ndarray]


def b_spline(degree: int) -> Kernel:
    spline = BSpline.basis_element(np.arange(degree + 2) - (degree + 1) / 2, extrapolate=False)
    return lambda x: np.nan_to_num(spline(x))


def lanczos(lobes: int) -> Kernel:
    return lambda x: np.where(np.abs(x) < lobes, np.sinc(x) * np.sinc(x / lobes), 0)


KERNELS: Dict[str, Tuple[Kernel, int]] = {
    "linear": (b_spline(1), 2),
    "cubic B-spline": (b_spline(3), 4),
    "Lanczos-3": (lanczos(3), 6),
    "quintic B-spline": (b_spline(5), 6),
    "Lanczos-4": (lanczos(4), 8),
    "septic B-spline": (b_spline(7), 8),
}


def weights(kernel: Kernel, taps: int, fractions: np.ndarray) -> np.ndarray:
    """(len(fractions), taps) weights of the pixels -taps / 2 + 1 .. taps / 2 for a sample at the fraction."""
    return kernel(np.arange(-taps // 2 + 1, taps // 2 + 1) - fractions[:, None])


def information(kernel: Kernel, taps: int, oversampling: int = 1) -> List[float]:
    """Fraction of the signal-to-noise ratio that is preserved at each of FREQUENCIES."""
    offsets = np.arange(-taps // 2 + 1, taps // 2 + 1) - FRACTIONS[:, None]
    fractions = []
    for frequency in FREQUENCIES:
        w = np.pi * frequency / oversampling
        transfer = (weights(kernel, taps, FRACTIONS) * np.exp(-1j * w * offsets)).sum(axis=1)
        fractions.append(float(abs(transfer.mean()) ** 2 / np.mean(np.abs(transfer) ** 2)))
    return fractions


def make_pass(taps: int) -> Callable[..., None]:
    """A function that resamples an image along its rows and then along its columns, by slowly changing shifts."""

    @numba.njit(nogil=True, fastmath=True, error_model="numpy", boundscheck=False)
    def along_rows(image, table, out):
        n = out.shape[1] - 64
        for y in range(out.shape[0]):
            row, to = image[y, 16:], out[y]
            w = table[y % len(table)]
            for x in range(n):
                total = np.float32(0)
                for k in range(taps):
                    total += w[k] * row[x + k]
                to[x] = total

    @numba.njit(nogil=True, fastmath=True, error_model="numpy", boundscheck=False)
    def along_columns(image, table, out):
        for y in range(16, out.shape[0] - 16):
            to = out[y]
            for x in range(out.shape[1]):
                to[x] = 0
            for k in range(taps):
                row, w = image[y + k - taps // 2], table[:, k]
                for x in range(out.shape[1]):
                    to[x] += w[x & (TABLE - 1)] * row[x]

    def both(image: np.ndarray, table: np.ndarray, half: np.ndarray, out: np.ndarray) -> None:
        along_rows(image, table, half)
        along_columns(half, table, out)

    return both


def oversampled(image: np.ndarray) -> np.ndarray:
    n = len(image)
    spectrum = scipy.fft.rfft2(image)
    padded = np.zeros((2 * n, n + 1), np.complex64)
    padded[: n // 2, : n // 2 + 1], padded[-n // 2 :, : n // 2 + 1] = spectrum[: n // 2], spectrum[n // 2 :]
    return scipy.fft.irfft2(padded, (2 * n, 2 * n))


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1e3 * median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="frame width and height in pixels (default %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed runs; the median is printed (default %(default)s)"
    )
    arguments = parser.parse_args()
    n = arguments.size
    image = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
    half, out = np.zeros_like(image), np.zeros_like(image)
    print("| interpolation, then whitened | pixels | " + " | ".join(f"{f:g} Nyquist" for f in FREQUENCIES) + " | ms |")
    print("|---" * (len(FREQUENCIES) + 3) + "|")
    cubic = 0.0
    for name, (kernel, taps) in KERNELS.items():
        table = weights(kernel, taps, np.arange(TABLE) / TABLE).astype(np.float32)
        resample = make_pass(taps)
        cost = milliseconds(lambda r=resample, t=table: r(image, t, half, out), arguments.repeats)  # type: ignore[misc]
        cubic = cost if taps == 4 else cubic
        _print(name, str(taps), information(kernel, taps), cost)
    # Only every second pixel of the fine image is a sample, so the passes take as long as without padding.
    with scipy.fft.set_workers(1):
        cost = cubic + milliseconds(lambda: oversampled(image), arguments.repeats)
    _print("2x, cubic B-spline", "4", information(*KERNELS["cubic B-spline"], oversampling=2), cost)


def _print(name: str, taps: str, preserved: List[float], cost: float) -> None:
    print(f"| {name} | {taps} | " + " | ".join(f"{v:.4f}" for v in preserved) + f" | {cost:.0f} |", flush=True)


if __name__ == "__main__":
    main()
