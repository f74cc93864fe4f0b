"""Runs torch-motion-correction on the same movie files, in a Python of its own (it needs Python 3.11 and PyTorch).

    python -m venv FOLDER && FOLDER/bin/pip install torch-motion-correction torch-fourier-rescale
    python benchmarks/accuracy.py --only real --torch FOLDER/bin/python

It estimates global shifts first, then local motion with the package's optimiser, starting from these shifts, with
patches of 512 px and a grid of one node per 4 frames in time and 6 x 6 in space. All other options have the package's
defaults.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Tuple

import numpy as np

MESH = 41


@dataclass(frozen=True)
class MeshMotion:
    """Motion on a regular mesh over the frame, (frames, 2, MESH, MESH) in pixels, interpolated linearly."""

    fields_px: np.ndarray
    frame_shape: Tuple[int, int]

    def shift(self, t: Any, y: Any, x: Any) -> Tuple[np.ndarray, np.ndarray]:
        from scipy.ndimage import map_coordinates

        t, y, x = np.broadcast_arrays(*(np.asarray(a, float) for a in (t, y, x)))
        at = [t, *(v * (MESH - 1) / (n - 1) for v, n in zip((y, x), self.frame_shape))]
        sy, sx = (map_coordinates(self.fields_px[:, axis], at, order=1, mode="nearest") for axis in (0, 1))
        return sy, sx


def torch_motion(python: str, movie: Any) -> MeshMotion:
    """Motion of a `MovieFile` as estimated by the package in the Python `python`."""
    truth = movie.truth
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "motion.npz")
        command = [python, os.path.abspath(__file__), movie.path, str(truth.pixel_size_A), out]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        with np.load(out) as estimated:
            print(f"(torch-motion-correction: {estimated['cpu_s']:.0f} CPU s)", file=sys.stderr, flush=True)
            return MeshMotion(estimated["fields_px"], truth.frame_shape)


def _estimate(path: str, pixel_size_A: float, out: str) -> None:
    import torch
    from torch_motion_correction import (
        DeformationField,
        OptimizationConfig,
        PatchSamplingConfig,
        estimate_global_motion,
        estimate_local_motion,
    )

    header = np.fromfile(path, np.int32, 24)
    nx, ny, n, mode = (int(v) for v in header[:4])
    dtype = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16}[mode]
    frames = np.memmap(path, dtype, "r", offset=1024 + int(header[23]), shape=(n, ny, nx))
    image = torch.from_numpy(frames.astype(np.float32))
    started = time.process_time()
    whole = estimate_global_motion(image, pixel_size_A)
    field, _ = estimate_local_motion(
        image,
        pixel_size_A,
        (max(n // 4, 3), 6, 6),
        PatchSamplingConfig(patch_shape=(512, 512)),
        initial_deformation_field=whole,
        optimization=OptimizationConfig(),
    )
    seconds = time.process_time() - started
    assert isinstance(field, DeformationField)
    with torch.no_grad():
        shifts = [field.evaluate_at_t(t / (n - 1), (MESH, MESH)).numpy() for t in range(n)]
    # Its field is the position of a point in each frame; ours is the shift that corrects it, hence the sign.
    np.savez(out, fields_px=-np.stack(shifts) / pixel_size_A, cpu_s=seconds)


if __name__ == "__main__":
    _estimate(sys.argv[1], float(sys.argv[2]), sys.argv[3])
