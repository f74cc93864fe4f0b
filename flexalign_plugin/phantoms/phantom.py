"""Phantom movies with a known motion, for tests, tuning and the demo.

There are two kinds: `grid_phantom`, the test movie of Strelak et al. 2020 (section 4.1, equations 5 to 7), and
`particle_phantom`, a band-limited random structure under smooth motion. The latter has no false correlation peaks and
is more realistic.

The motion, its sign convention and the error measure are in `truth`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Iterator, Optional, Tuple

import numba
import numpy as np
from scipy import fft

from ..jit import njit
from .truth import FieldError, Truth, field_rms_error

__all__ = ["FieldError", "Phantom", "Truth", "field_rms_error", "grid_phantom", "particle_phantom"]

DISPLACEMENT_NODES = 257  # mesh on which the inverse map is solved; linear in between costs < 1e-3 px
GRID_STEP_PX, GRID_LINE_PX = 50, 5
GRID_BACKGROUND, GRID_LINE_DEPTH = 1.25, 0.20  # counts per pixel and frame


@dataclass(frozen=True)
class Phantom:
    """A movie that is rendered frame by frame. The counts depend only on the seed, not on machine or threads.

    Attributes
    ----------
    truth : the motion.
    dose : mean electrons per pixel and frame.
    seed : of the counting noise.
    spline : (py, px) float32 B-spline coefficients of the structure (particles), or None (grid).
    margin : pixels by which the structure exceeds the frame on the low side.
    gain : (ny, nx) float32 multiplicative gain that corrects the movie (0: dead pixel), or None.
    hot : flat indices of hot pixels, which the gain does not mark.
    """

    truth: Truth
    dose: float
    seed: int
    spline: Optional[np.ndarray] = None
    margin: int = 0
    gain: Optional[np.ndarray] = None
    hot: Tuple[int, ...] = ()

    @property
    def shape(self) -> Tuple[int, int, int]:
        return (self.truth.n_frames, *self.truth.frame_shape)

    def expected(self, t: float) -> np.ndarray:
        """(ny, nx) float32 expected electrons at time t (frames, may be fractional), before gain and noise."""
        ny, nx = self.truth.frame_shape
        out = np.empty((ny, nx), np.float32)
        if self.spline is None:
            sy, sx, k1, k2 = self.truth.grid_constants(t)
            _render_grid(out, float(sy), float(sx), float(k1), float(k2))
            return out
        node_y, node_x = (np.linspace(0, n - 1, min(n, DISPLACEMENT_NODES)) for n in (ny, nx))
        py, px = self.truth.to_reference(t, node_y[:, None], node_x[None, :])
        u = np.stack([py - node_y[:, None], px - node_x[None, :]])
        _render_spline(out, self.spline, u + self.margin, self.dose)
        return out

    def counts(self, t: float, exposure: float = 1.0, stream: int = 0) -> np.ndarray:
        """(ny, nx) uint8 raw counts at time t.

        Parameters
        ----------
        exposure : dose relative to that of one frame. stream : number of the noise; different numbers are independent.
        """
        rate = self.expected(t)
        if self.gain is not None:
            seen = self.gain > 0
            np.divide(rate, self.gain, out=rate, where=seen)
            rate[~seen] = 0
            rate.ravel()[list(self.hot)] = 30 * self.dose
        out = np.empty(rate.shape, np.uint8)
        _poisson(out, rate, exposure, np.uint64(self.seed), np.uint64(stream))
        return out

    def frame(self, i: int) -> np.ndarray:
        """(ny, nx) uint8 raw counts of frame i (0-based); more than 255 counts saturate."""
        return self.counts(float(i), stream=i)

    def frames(self) -> Iterator[np.ndarray]:
        """All frames in order, each rendered when it is needed."""
        return (self.frame(i) for i in range(self.truth.n_frames))


def grid_phantom(
    shape: Tuple[int, int, int] = (30, 4096, 4096), doming: float = 1.0, pixel_size_A: float = 1.0, seed: int = 1
) -> Phantom:
    """The phantom of Strelak et al. 2020, section 4.1: lines of 5 px every 50 px, with drift and doming.

    With t = 1 .. n, frame t shows at (x, y) the value v of the grid at the position of equations 5 to 7:

        equation 5:  x_t = x + a1 (n - t) + a2 (n - t)^2 + cos(n - t) / 10
        equation 6:  y_t = y + b1 (n - t) + b2 (n - t)^2 + sin((n - t)^2) / 5
        equation 7:  r_out = r (1 + k1 r^2 + k2 r^4)

    Equation 7 moves (x_t, y_t) radially about the centre from r to r_out; r = 1 at the middle of an edge, and k1 and k2
    grow linearly with t. v is 1 on lines, 0 between them and interpolated bilinearly. Counts are Poisson distributed
    with mean 1.25 - 0.20 v. The constants (`truth.GRID_A` and following) are the paper's at any frame size.

    Parameters
    ----------
    shape : (n_frames, ny, nx).
    doming : multiplies k1 and k2; 0: drift only.
    pixel_size_A : in A. seed : of the counting noise.
    """
    parameters = {"doming": doming, "reference_frame": (shape[0] - 1) // 2}
    truth = Truth("grid", (shape[1], shape[2]), shape[0], pixel_size_A, parameters)
    return Phantom(truth, GRID_BACKGROUND, seed)


def particle_phantom(
    shape: Tuple[int, int, int] = (30, 4096, 4096),
    pixel_size_A: float = 1.0,
    dose: float = 1.0,
    contrast: float = 0.15,
    band_limit_A: float = 10.0,
    drift_px: float = 9.0,
    local_px: float = 6.0,
    seed: int = 1,
    control_points: int = 4,
    defocus_A: float = 0.0,
) -> Phantom:
    """Band-limited random structure with a drift and smooth local motion; both slow down exponentially.

    Parameters
    ----------
    shape : (n_frames, ny, nx).
    dose : electrons per pixel and frame. The signal-to-noise ratio of a frame is contrast^2 * dose.
    contrast : rms of the structure relative to its mean.
    band_limit_A : finest detail of the structure; up to this limit its spectrum is flat, with a soft edge.
    drift_px : length of the common drift from the first to the last frame; its direction is random.
    local_px : largest value of the local motion at a control point on each axis, in the last frame (so up to sqrt(2)
        times this length). The mean over the control points is zero, so that it contains no common drift.
    seed : of structure, motion and counting noise.
    control_points : random values on each axis, interpolated by a natural cubic spline.
    defocus_A : underfocus of a microscope (300 kV, Cs 2.7 mm, 10 % amplitude contrast) whose contrast transfer is
        applied to the structure, which gives Thon rings up to the band limit; 0: no contrast transfer.

    Raises
    ------
    ValueError : the band limit is finer than two pixels, or coarser than the frame.
    """
    n, ny, nx = shape
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi)
    control = rng.uniform(-1, 1, (2, control_points, control_points))
    control -= control.mean(axis=(1, 2), keepdims=True)
    control *= local_px / abs(control).max(axis=(1, 2), keepdims=True)
    parameters = {
        "drift_px": [drift_px * math.sin(angle), drift_px * math.cos(angle)],
        "drift_decay_frames": n / 5,
        "local_px": control.tolist(),
        "local_decay_frames": n / 2.5,
    }
    truth = Truth("particles", (ny, nx), n, pixel_size_A, parameters)
    margin = math.ceil(drift_px + 2 * local_px) + 4
    size = [fft.next_fast_len(k + 2 * margin, real=True) for k in (ny, nx)]

    def seen(k: np.ndarray) -> np.ndarray:
        return _contrast_transfer(k / pixel_size_A, defocus_A) if defocus_A else np.ones_like(k)

    spline = _random_structure(rng, size[0], size[1], pixel_size_A / band_limit_A, contrast, seen)
    return Phantom(truth, dose, seed, spline, margin)


def _contrast_transfer(k: np.ndarray, defocus_A: float) -> np.ndarray:
    """Contrast transfer at spatial frequencies k in 1/A: 300 kV, Cs 2.7 mm, amplitude contrast 0.1."""
    wavelength, cs, amplitude = 0.0197, 2.7e7, 0.1
    phase = np.pi * wavelength * k**2 * (defocus_A - 0.5 * cs * wavelength**2 * k**2) + math.asin(amplitude)
    return np.sin(phase)


def _random_structure(
    rng: np.random.Generator, ny: int, nx: int, limit: float, contrast: float, seen: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """B-spline coefficients (ny, nx) float32 of a periodic random image, mean 1, rms `contrast`.

    The spectrum is zero above `limit` (cycles/px), has a raised-cosine edge from 0.8 of it and is multiplied by
    `seen(k)`. Division by the B-spline's transfer function in Fourier space is the exact prefilter of a periodic image.
    """
    coarsest = 1 / min(ny, nx)  # one wave across the structure
    if not coarsest < limit <= 0.5:
        raise ValueError(
            f"the structure's limit of {limit:g} cycles/px must lie between {coarsest:.2g} and 0.5: change band limit"
        )
    ky, kx = fft.fftfreq(ny), fft.rfftfreq(nx)
    rows, columns = np.flatnonzero(abs(ky) < limit), np.flatnonzero(kx < limit)
    k = np.hypot(ky[rows, None], kx[None, columns])
    edge = np.clip((k / limit - 0.8) / 0.2, 0, 1)
    band = rng.standard_normal(k.shape) + 1j * rng.standard_normal(k.shape)
    band *= 0.5 * (1 + np.cos(np.pi * edge))
    band *= seen(k)
    band[k == 0] = 0
    transfer = [(2 + np.cos(2 * np.pi * f)) / 3 for f in (ky[rows], kx[columns])]
    spectrum = np.zeros((ny, len(kx)), np.complex64)
    spectrum[np.ix_(rows, columns)] = band
    image = fft.irfft2(spectrum, (ny, nx), overwrite_x=True)
    rms = float(image.std(dtype=np.float64))
    spectrum = np.zeros((ny, len(kx)), np.complex64)
    spectrum[np.ix_(rows, columns)] = band * (contrast / rms) / (transfer[0][:, None] * transfer[1])
    spectrum[0, 0] = ny * nx
    return fft.irfft2(spectrum, (ny, nx), overwrite_x=True)


@numba.njit(inline="always")
def _weights(f: float) -> Tuple[float, float, float, float]:
    g = 1.0 - f
    return g * g * g / 6, (4 - 3 * f * f * (2 - f)) / 6, (4 - 3 * g * g * (2 - g)) / 6, f * f * f / 6


@njit(parallel=True)
def _render_spline(out: np.ndarray, spline: np.ndarray, displacement: np.ndarray, dose: float) -> None:
    """out(q) = dose * structure(q + displacement(q)); displacement (2, my, mx) on a regular mesh over the frame."""
    ny, nx = out.shape
    py, px = spline.shape
    my, mx = displacement.shape[1:]
    for y in numba.prange(ny):
        v = y * (my - 1) / max(ny - 1, 1)
        j = min(int(v), max(my - 2, 0))
        jn = min(j + 1, my - 1)
        row_y = displacement[0, j] + (v - j) * (displacement[0, jn] - displacement[0, j])
        row_x = displacement[1, j] + (v - j) * (displacement[1, jn] - displacement[1, j])
        for x in range(nx):
            u = x * (mx - 1) / max(nx - 1, 1)
            i = min(int(u), max(mx - 2, 0))
            inext = min(i + 1, mx - 1)
            at_y = y + row_y[i] + (u - i) * (row_y[inext] - row_y[i])
            at_x = x + row_x[i] + (u - i) * (row_x[inext] - row_x[i])
            # All positions are within the margin; the bounds prevent reading outside the array if one were not.
            y0 = min(max(int(math.floor(at_y)), 1), py - 3)
            x0 = min(max(int(math.floor(at_x)), 1), px - 3)
            wy, wx = _weights(at_y - y0), _weights(at_x - x0)
            total = 0.0
            for a in range(4):
                line = spline[y0 + a - 1]
                along = wx[0] * line[x0 - 1] + wx[1] * line[x0] + wx[2] * line[x0 + 1] + wx[3] * line[x0 + 2]
                total += wy[a] * along
            out[y, x] = max(dose * total, 0.0)


@numba.njit(inline="always")
def _on_line(at: int, size: int) -> bool:
    half = GRID_LINE_PX // 2
    return GRID_STEP_PX - half <= at < size and (at + half) % GRID_STEP_PX < GRID_LINE_PX


@numba.njit(inline="always")
def _grid_value(y: int, x: int, ny: int, nx: int) -> float:
    if y < 0 or x < 0 or y >= ny or x >= nx:
        return 0.0
    return 1.0 if _on_line(y, ny) or _on_line(x, nx) else 0.0


@njit(parallel=True)
def _render_grid(out: np.ndarray, sy: float, sx: float, k1: float, k2: float) -> None:
    """Expected counts of the grid at the positions of equations 5 to 7 (`Truth.grid_constants`)."""
    ny, nx = out.shape
    cy, cx = ny / 2, nx / 2
    for y in numba.prange(ny):
        v = (y + sy - cy) / cy
        for x in range(nx):
            u = (x + sx - cx) / cx
            r2 = u * u + v * v
            scale = 1 + k1 * r2 + k2 * r2 * r2
            at_y, at_x = v * scale * cy + cy, u * scale * cx + cx
            y0, x0 = int(math.floor(at_y)), int(math.floor(at_x))
            fy, fx = at_y - y0, at_x - x0
            top = (1 - fx) * _grid_value(y0, x0, ny, nx) + fx * _grid_value(y0, x0 + 1, ny, nx)
            bottom = (1 - fx) * _grid_value(y0 + 1, x0, ny, nx) + fx * _grid_value(y0 + 1, x0 + 1, ny, nx)
            out[y, x] = GRID_BACKGROUND - GRID_LINE_DEPTH * ((1 - fy) * top + fy * bottom)


@numba.njit(inline="always")
def _mix(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(parallel=True)
def _poisson(out: np.ndarray, rate: np.ndarray, exposure: float, seed: np.uint64, stream: np.uint64) -> None:
    """Poisson counts of mean rate * exposure by inversion; each row has its own splitmix64 random numbers."""
    step = np.uint64(0x9E3779B97F4A7C15)
    ny, nx = out.shape
    for y in numba.prange(ny):
        state = _mix(_mix(_mix(seed + step) + stream + step) + np.uint64(y) + step)
        for x in range(nx):
            left = float(rate[y, x]) * exposure
            count = 0
            while left > 0:
                mean = min(left, 32.0)  # a sum of Poisson numbers is Poisson distributed; keeps exp() in range
                left -= mean
                state += step
                uniform = (_mix(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)
                p = math.exp(-mean)
                reached = p
                k = 0
                while uniform > reached and p > 0:
                    k += 1
                    p *= mean / k
                    reached += p
                count += k
            out[y, x] = min(count, 255)
