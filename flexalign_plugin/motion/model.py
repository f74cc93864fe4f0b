"""The motion model: one function `shift(t, y, x)` that motion correction, plots, tracks and exports evaluate.

Sign and units: a shift is *added to the content* of frame t to bring it onto the reference,
`aligned(p) = frame(p - shift)`, in unbinned pixels of the stored frame; t counts from 0 at the movie's first frame.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple, TypedDict, Union

import numpy as np
from numpy.typing import ArrayLike

from ..inputs import dataclass_of, read_json, shortened
from .bspline import basis

MODEL_FORMAT = "flexalign-motion-1"
MAX_SIZE = 1_000_000  # of a saved model: frames, pixels along an axis, pixels of a shift


class SavedModel(TypedDict):
    """A `MotionModel` as JSON; names and shapes are those of its attributes."""

    format: str
    frame_shape: Sequence[int]
    n_frames: int
    first_frame: int
    pixel_size_A: float
    global_shifts_px: List[List[float]]
    coefficients_px: Optional[List[List[List[List[float]]]]]


@dataclass(frozen=True)
class _Saved:
    """`SavedModel` with the types that are checked."""

    format: str
    frame_shape: Tuple[int, int]
    n_frames: int
    first_frame: int
    pixel_size_A: float
    global_shifts_px: List[List[float]]
    coefficients_px: Optional[List[List[List[List[float]]]]]


@dataclass(frozen=True)
class MotionModel:
    """Global shift of each frame plus the local motion, a B-spline in (t, y, x) (Strelak 2020, equation 4).

    For each axis `shift(t, y, x) = g(t) + sum_lmn c[l, m, n] B_l(t) B_m(y) B_n(x)`; g are the global shifts, c the
    coefficients, B the basis functions of `bspline`.

    Attributes
    ----------
    frame_shape : (ny, nx) of the unbinned frame.
    n_frames : frames in the movie.
    first_frame : 0-based index of the first aligned frame.
    global_shifts_px : (n_aligned, 2) float64, columns (sy, sx).
    coefficients_px : (2, KT, KY, KX) float64 or None; [0] is sy, [1] is sx. Spans the aligned frames in time and
        pixel centres 0 .. ny-1, 0 .. nx-1 in space, clamped uniform knots (`bspline.knot_vector`).
    pixel_size_A : unbinned pixel size, A.
    """

    frame_shape: Tuple[int, int]
    n_frames: int
    first_frame: int
    global_shifts_px: np.ndarray
    coefficients_px: Optional[np.ndarray]
    pixel_size_A: float

    @property
    def n_aligned(self) -> int:
        return len(self.global_shifts_px)

    @property
    def aligned_frames(self) -> range:
        """0-based indices of the frames that the model covers."""
        return range(self.first_frame, self.first_frame + self.n_aligned)

    @property
    def is_local(self) -> bool:
        return self.coefficients_px is not None

    def shift(self, t: ArrayLike, y: ArrayLike, x: ArrayLike) -> Tuple[np.ndarray, np.ndarray]:
        """Shift of any pixel in any frame (equation 4).

        Parameters
        ----------
        t, y, x : broadcastable arrays. t: 0-based frame of the movie (between two frames the shift is interpolated),
            y, x: unbinned pixel coordinates, origin at the centre of pixel (0, 0).

        Returns
        -------
        (sy, sx) : float64 arrays of the broadcast shape, unbinned pixels; NaN outside the aligned frames.
        """
        t, y, x = np.broadcast_arrays(*(np.asarray(a, float) for a in (t, y, x)))
        shape, t, y, x = t.shape, t.ravel(), y.ravel(), x.ravel()
        at = t - self.first_frame
        inside = (at >= 0) & (at <= self.n_aligned - 1)
        frames = np.arange(self.n_aligned)
        out = [np.interp(at, frames, self.global_shifts_px[:, axis]) for axis in (0, 1)]
        if self.coefficients_px is not None:
            _, kt, ky, kx = self.coefficients_px.shape
            ny, nx = self.frame_shape
            # Points often share their t, y or x (meshes): evaluate each distinct value once.
            bt, it = _basis_of_distinct(kt, self.n_aligned - 1, at)
            by, iy = _basis_of_distinct(ky, ny - 1, y)
            bx, ix = _basis_of_distinct(kx, nx - 1, x)
            for axis in (0, 1):
                if len(bt) * len(by) * len(bx) <= 4 * len(at) + 1000:
                    grid = np.einsum("tl,lmn,ym,xn->tyx", bt, self.coefficients_px[axis], by, bx, optimize=True)
                    out[axis] = out[axis] + grid[it, iy, ix]
                else:
                    out[axis] = out[axis] + np.einsum(
                        "pl,lmn,pm,pn->p", bt[it], self.coefficients_px[axis], by[iy], bx[ix], optimize=True
                    )
        return tuple(np.where(inside, o, np.nan).reshape(shape) for o in out)  # type: ignore[return-value]

    def frame_field(self, frame: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Shifts of one frame on the mesh y (m,) by x (n,): (2, m, n) float64, [0] is sy."""
        return np.stack(self.shift(float(frame), np.asarray(y)[:, None], np.asarray(x)[None, :]))

    def fields(self, frames: Sequence[int], y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Shifts of aligned frames (n,) on the mesh y (m,) by x (k,): (n, 2, m, k) float64, [:, 0] is sy."""
        at = np.asarray(frames, int) - self.first_frame
        out = self.global_shifts_px[at][:, :, None, None] + np.zeros((len(y), len(x)))
        if self.coefficients_px is not None:
            sizes = self.n_aligned - 1, self.frame_shape[0] - 1, self.frame_shape[1] - 1
            bases = [basis(*of_axis) for of_axis in zip(self.coefficients_px.shape[1:], sizes, (at, y, x))]
            out += np.einsum("almn,tl,ym,xn->tayx", self.coefficients_px, *bases, optimize=True)
        return out

    def control_points(self, frames: Sequence[int]) -> np.ndarray:
        """Coefficients of each aligned frame's field: (n, 2, KY, KX) float64, [:, 0] is sy; (n, 2, 1, 1) of a global
        model. Each is the sum of the global shift and the spline at the frame's time (equation 4)."""
        at = np.asarray(frames) - self.first_frame
        points = self.global_shifts_px[at][:, :, None, None]
        if self.coefficients_px is not None:
            in_time = basis(self.coefficients_px.shape[1], self.n_aligned - 1, at)
            points = points + np.einsum("tl,alyx->tayx", in_time, self.coefficients_px)
        return points

    def to_dict(self) -> SavedModel:
        """The model as JSON-ready values, as `_motion.json` holds it under "model"."""
        return {
            "format": MODEL_FORMAT,
            "frame_shape": list(self.frame_shape),
            "n_frames": self.n_frames,
            "first_frame": self.first_frame,
            "pixel_size_A": self.pixel_size_A,
            "global_shifts_px": self.global_shifts_px.tolist(),
            "coefficients_px": None if self.coefficients_px is None else self.coefficients_px.tolist(),
        }

    @classmethod
    def from_dict(cls, d: SavedModel) -> MotionModel:
        """Model from `to_dict`'s values; ValueError if they have another format or are not those of a model."""
        saved_format = d.get("format") if isinstance(d, dict) else None
        if saved_format != MODEL_FORMAT:
            raise ValueError(
                f"motion model format is {shortened(saved_format)}, but this version reads {MODEL_FORMAT!r}"
            )
        saved = dataclass_of(_Saved, d)
        shifts = np.array(saved.global_shifts_px, float)
        last = saved.first_frame + len(shifts)
        if not (0 <= saved.first_frame < last <= saved.n_frames <= MAX_SIZE):
            raise ValueError("its motion model has impossible numbers of frames")
        if not all(0 < n <= MAX_SIZE for n in (*saved.frame_shape, saved.pixel_size_A)):
            raise ValueError("its motion model has an impossible frame or pixel size")
        if shifts.shape[1:] != (2,) or np.abs(shifts).max() > MAX_SIZE:
            raise ValueError("its motion model has no shifts along y and x, or impossible ones")
        coefficients = None
        if saved.coefficients_px is not None:
            coefficients = np.array(saved.coefficients_px, float)  # ValueError if the rows differ in length
            shape = coefficients.shape
            if len(shape) != 4 or shape[0] != 2 or min(shape) < 1 or np.abs(coefficients).max() > MAX_SIZE:
                raise ValueError("its local motion is not a field of control points, or impossible")
        ny, nx = saved.frame_shape
        return cls((ny, nx), saved.n_frames, saved.first_frame, shifts, coefficients, float(saved.pixel_size_A))

    @classmethod
    def load(cls, path: Union[str, os.PathLike[str]]) -> MotionModel:
        """Model from a movie's `_motion.json`."""
        d = read_json(os.fspath(path))
        return cls.from_dict(d["model"] if isinstance(d, dict) and "model" in d else d)


def _basis_of_distinct(n_points: int, length: float, values: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    distinct, index = np.unique(values, return_inverse=True)
    return basis(n_points, length, distinct), index.reshape(-1)
