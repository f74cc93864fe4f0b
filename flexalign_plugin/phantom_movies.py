"""Phantoms as files: movie, gain reference and truth, in the formats that microscopes write."""

from __future__ import annotations

import os
from typing import Dict, Iterator, Optional

import numpy as np

from .movies.writers import write_eer_movie, write_mrc_movie, write_tiff_movie
from .phantom import Phantom

ENDINGS = {"mrc": ".mrc", "tiff": ".tif", "eer": ".eer"}
HARDWARE_FRAMES = 8  # EER frames for each frame of the phantom
EVENT_STREAM = 1000  # counting noise of hardware frames must not repeat that of whole frames


def electron_events(phantom: Phantom, per_frame: int = HARDWARE_FRAMES) -> Iterator[np.ndarray]:
    """Hardware frames of an EER movie: (n, 4) electrons' row, column and quarters of a pixel within (y, x).

    The sample moves at frame steps only, so that `n_frames` output frames have exactly the phantom's motion.
    """
    rng = np.random.default_rng(phantom.seed)
    for i in range(phantom.shape[0] * per_frame):
        seen = phantom.counts(float(i // per_frame), 1 / per_frame, stream=EVENT_STREAM + i)
        y, x = np.nonzero(seen)
        yield np.column_stack([y, x, rng.integers(0, 4, (len(y), 2))])


def write_phantom(
    phantom: Phantom, folder: str, name: str, kind: str = "mrc", compression: Optional[str] = None
) -> Dict[str, str]:
    """Write `<name>.mrc|tif|eer`, `<name>_truth.json` and, if the phantom has one, `<name>_gain.mrc`.

    Parameters
    ----------
    kind : "mrc", "tiff" or "eer".
    compression : of TIFF, see `movies.writers.write_tiff_movie`.

    Returns
    -------
    {"movie": path, "truth": path, "gain": path}
    """
    os.makedirs(folder, exist_ok=True)
    pixel_A = phantom.truth.pixel_size_A
    paths = {"movie": os.path.join(folder, name + ENDINGS[kind]), "truth": os.path.join(folder, f"{name}_truth.json")}
    if kind == "mrc":
        write_mrc_movie(paths["movie"], phantom.frames(), pixel_A)
    elif kind == "tiff":
        write_tiff_movie(paths["movie"], phantom.frames(), compression=compression)
    else:
        write_eer_movie(paths["movie"], electron_events(phantom), phantom.shape[1:])
    if phantom.gain is not None:
        paths["gain"] = os.path.join(folder, f"{name}_gain.mrc")
        # MRC files store the bottom row first, TIFF and EER the top row.
        write_mrc_movie(paths["gain"], [phantom.gain if kind == "mrc" else phantom.gain[::-1]], pixel_A)
    phantom.truth.save(paths["truth"])
    return paths


def detector_gain(shape: tuple, seed: int = 11) -> np.ndarray:
    """Gain (ny, nx) float32 of a pretended detector: pixels differ by some 8 %, its blocks of columns by 5 %."""
    rng = np.random.default_rng(seed)
    ny, nx = shape
    blocks = np.repeat(rng.normal(1, 0.05, -(-nx // 128)), 128)[:nx]
    gain = rng.normal(1, 0.08, shape) * blocks
    return (gain / gain.mean()).clip(0.5, 2).astype(np.float32)
