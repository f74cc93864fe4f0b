"""The known motion of a phantom movie, and the error of a motion model relative to it.

The convention is the aligner's: `aligned(p) = frame_t(p - shift(t, p))`. The shift is evaluated at the *reference*
position p, where the content is at zero shift. A frame is rendered with the inverse map: `frame_t(q) = structure(p)`
where `p = q + shift(t, p)`.

The grid phantom is that of Strelak 2020, section 4.1. With t = 1 .. n, its frame t shows at (x, y) the grid at

    equation 5:  x_t = x + a1 (n - t) + a2 (n - t)^2 + cos(n - t) / 10
    equation 6:  y_t = y + b1 (n - t) + b2 (n - t)^2 + sin((n - t)^2) / 5
    equation 7:  r_out = r (1 + k1 r^2 + k2 r^4)

Equation 7 is the barrel distortion (doming): the position (x_t, y_t) at distance r from the centre is moved radially to
distance r_out. x and y are scaled separately so that r = 1 at the middle of each edge. k1 and k2 change linearly
with t.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
from scipy.interpolate import CubicSpline

from ..files import atomic_path

TRUTH_FORMAT = "flexalign-truth-1"
GRID_A, GRID_B = (-0.039, 0.002), (-0.02, 0.002)  # (a1, a2) of equation 5, (b1, b2) of equation 6, pixels
GRID_K1, GRID_K2 = (0.04, 0.05), (0.02, 0.025)  # k1 and k2 of equation 7, each at t = 0 and t = n

Pair = Tuple[np.ndarray, np.ndarray]
Path = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Truth:
    """The known motion of a phantom; saved as a JSON file beside the movie.

    Attributes
    ----------
    kind : "particles" or "grid".
    frame_shape : (ny, nx).
    n_frames : frames in the movie; t runs from 0 to n_frames - 1 and may be fractional.
    pixel_size_A : pixel size in Angstrom.
    parameters : of the formulas, see `particle_phantom` and `grid_phantom`.
    """

    kind: str
    frame_shape: Tuple[int, int]
    n_frames: int
    pixel_size_A: float
    parameters: Dict[str, Any]

    def shift(self, t: Any, y: Any, x: Any) -> Pair:
        """True shift (sy, sx) in px at reference position (y, x) of frame t; broadcasts as `MotionModel.shift` does.

        Reference positions are those in the frame in which the shift is zero: the first one for "particles", frame
        `parameters["reference_frame"]` (from 0) for "grid".
        """
        t, y, x = np.broadcast_arrays(*(np.asarray(a, float) for a in (t, y, x)))
        if self.kind == "particles":
            return self._particle_shift(t, y, x)
        qy, qx = self._undome(t, *self._dome(np.full(t.shape, float(self.parameters["reference_frame"])), y, x))
        return y - qy, x - qx

    def to_reference(self, t: Any, y: Any, x: Any) -> Pair:
        """Reference position p of the content at q = (y, x) in frame t: the inverse of q = p - shift(t, p).

        ValueError if the map has no inverse.
        """
        t, y, x = np.broadcast_arrays(*(np.asarray(a, float) for a in (t, y, x)))
        if self.kind == "particles":
            py, px = y, x
            for _ in range(100):  # each iteration multiplies the error by the motion's gradient, about 1e-2
                sy, sx = self._particle_shift(t, py, px)
                moved = max(abs(y + sy - py).max(), abs(x + sx - px).max())
                py, px = y + sy, x + sx
                if moved < 1e-5:
                    return py, px
            raise ValueError("the local motion folds the image over itself: use larger frames or less local motion")
        return self._undome(np.full(t.shape, float(self.parameters["reference_frame"])), *self._dome(t, y, x))

    def _particle_shift(self, t: np.ndarray, y: np.ndarray, x: np.ndarray) -> Pair:
        p = self.parameters
        drift, grown = (_saturating(t, self.n_frames, p[tau]) for tau in ("drift_decay_frames", "local_decay_frames"))
        control = np.asarray(p["local_px"])
        by, bx = (natural_basis(control.shape[1 + i], n, v) for i, (n, v) in enumerate(zip(self.frame_shape, (y, x))))
        local = np.einsum("...k,akl,...l->a...", by, control, bx, optimize=True)
        return p["drift_px"][0] * drift + grown * local[0], p["drift_px"][1] * drift + grown * local[1]

    def grid_constants(self, t: Any) -> Tuple[Any, Any, Any, Any]:
        """(shift_y, shift_x, k1, k2) of equations 6, 5 and 7 in frame t; t runs from 1 to n there, from 0 here."""
        n, doming = self.n_frames, self.parameters["doming"]
        remaining = n - (t + 1.0)
        sx = GRID_A[0] * remaining + GRID_A[1] * remaining**2 + np.cos(remaining) / 10
        sy = GRID_B[0] * remaining + GRID_B[1] * remaining**2 + np.sin(remaining**2) / 5
        k1, k2 = (doming * (k[0] + (t + 1.0) * (k[1] - k[0]) / n) for k in (GRID_K1, GRID_K2))
        return sy, sx, k1, k2

    def _dome(self, t: np.ndarray, y: np.ndarray, x: np.ndarray) -> Pair:
        """Position on the undistorted grid that frame t shows at (y, x): equations 5 to 7."""
        sy, sx, k1, k2 = self.grid_constants(t)
        cy, cx = self.frame_shape[0] / 2, self.frame_shape[1] / 2
        v, u = (y + sy - cy) / cy, (x + sx - cx) / cx
        r2 = u * u + v * v
        scale = 1 + k1 * r2 + k2 * r2 * r2
        return v * scale * cy + cy, u * scale * cx + cx

    def _undome(self, t: np.ndarray, y: np.ndarray, x: np.ndarray) -> Pair:
        """Position at which frame t shows the point (y, x) of the undistorted grid: the inverse of `_dome`."""
        sy, sx, k1, k2 = self.grid_constants(t)
        cy, cx = self.frame_shape[0] / 2, self.frame_shape[1] / 2
        v, u = (y - cy) / cy, (x - cx) / cx
        r_out = np.hypot(u, v)
        r = r_out
        for _ in range(20):  # Newton on r (1 + k1 r^2 + k2 r^4) = r_out; monotone, so it converges from outside
            r = r - (r * (1 + k1 * r**2 + k2 * r**4) - r_out) / (1 + 3 * k1 * r**2 + 5 * k2 * r**4)
        scale = 1 / (1 + k1 * r**2 + k2 * r**4)
        return v * scale * cy + cy - sy, u * scale * cx + cx - sx

    def save(self, path: Path) -> None:
        """Write the truth as JSON; OutputError if this fails."""
        values = {"format": TRUTH_FORMAT, **dataclasses.asdict(self)}
        with atomic_path(os.fspath(path)) as temporary, open(temporary, "w") as f:
            json.dump(values, f, indent=1)

    @classmethod
    def load(cls, path: Path) -> Truth:
        """Truth from the file that `save` wrote; ValueError if it has another format."""
        with open(path) as f:
            d = json.load(f)
        if d.get("format") != TRUTH_FORMAT:
            raise ValueError(f"{os.fspath(path)}: truth format is {d.get('format')!r}, expected {TRUTH_FORMAT!r}")
        shape = (int(d["frame_shape"][0]), int(d["frame_shape"][1]))
        return cls(d["kind"], shape, int(d["n_frames"]), float(d["pixel_size_A"]), d["parameters"])


class FieldError(NamedTuple):
    """RMS lengths in px of the error of a motion model, and of the uncorrected motion (`uncorrected_px`)."""

    rms_px: float
    uncorrected_px: float


def field_rms_error(
    model: Any,
    truth: Truth,
    frames: Optional[Sequence[int]] = None,
    mesh: int = 41,
    central: float = 1.0,
) -> FieldError:
    """RMS difference between a motion model and the truth, over a mesh of positions and all frames.

    The positions are those of the model's reference frame, which need not be that of the truth: the content that the
    model puts onto one position is followed to the truth's reference frame, where it should meet again. Each position's
    mean over the frames is removed, as the choice of the reference frame is free. The result is the root of the mean of
    dy^2 + dx^2.

    Parameters
    ----------
    model : anything with `shift(t, y, x) -> (sy, sx)`, as `MotionModel`.
    frames : 0-based frames to compare; all by default.
    mesh : positions on each axis.
    central : fraction of each axis that the mesh spans, about the centre.
    """
    t = np.arange(truth.n_frames) if frames is None else np.asarray(frames)
    y, x = ((n - 1) / 2 * (1 + central * np.linspace(-1, 1, mesh)) for n in truth.frame_shape)
    at = (t[:, None, None].astype(float), y[None, :, None], x[None, None, :])
    estimate = np.stack(model.shift(*at))
    error = np.stack(truth.to_reference(at[0], at[1] - estimate[0], at[2] - estimate[1]))
    true = np.stack(truth.shift(*at))

    def rms(field: np.ndarray) -> float:
        deviation = field - field.mean(axis=1, keepdims=True)
        return float(np.sqrt((deviation**2).sum(axis=0).mean()))

    return FieldError(rms(error), rms(true))


def _saturating(t: np.ndarray, n: int, decay: float) -> np.ndarray:
    """Path from 0 at the first frame to 1 at the last, with a speed that decays exponentially."""
    return np.expm1(-t / decay) / math.expm1(-max(n - 1, 1) / decay)


def natural_basis(n_points: int, length: int, at: np.ndarray) -> np.ndarray:
    """Weights (..., n_points) of control points at 0 .. length-1 in the natural cubic spline through them."""
    nodes = np.linspace(0, length - 1, n_points)
    distinct, index = np.unique(at, return_inverse=True)
    return CubicSpline(nodes, np.eye(n_points), bc_type="natural")(distinct)[index.reshape(at.shape)]
