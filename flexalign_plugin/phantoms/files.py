"""Files of phantoms: MRC, TIFF or EER movies, with the detector's gain and faulty pixels."""

from __future__ import annotations

import dataclasses
import os
from typing import Callable, Dict, Iterable, Iterator, Optional, Tuple

import numpy as np

from .movie_writers import eer_metadata_text, write_eer_movie, write_mrc_movie, write_tiff_movie
from .phantom import Phantom
from .truth import natural_basis

FORMATS = {"mrc": ".mrc", "tiff": ".tif", "eer": ".eer"}
GAIN_ENDINGS = {"mrc": ".mrc", "tiff": ".tif", "gain": ".gain"}  # "gain": TIFF by which frames are divided, for EER
USUAL_GAIN = {"mrc": "mrc", "tiff": "tiff", "eer": "gain"}
TOP_ROW_FIRST = ("tiff", "gain", "eer")
SUB_PIXELS = 4  # sub-pixel positions of an EER event on each axis
FAULTY_FRACTION = 2e-5  # fraction of dead pixels, and of hot pixels


def with_detector(phantom: Phantom, seed: int = 1) -> Phantom:
    """The phantom recorded by a detector of uneven gain (5 % smooth, 3 % between pixels) with dead and hot pixels.

    Dead pixels are 0 in the gain; hot pixels are not marked there. Both depend on the seed.
    """
    ny, nx = phantom.truth.frame_shape
    rng = np.random.default_rng(seed)
    by, bx = (natural_basis(4, n, np.arange(float(n))) for n in (ny, nx))
    gain = (1 + 0.05 * (by @ rng.uniform(-1, 1, (4, 4)) @ bx.T)) * rng.normal(1, 0.03, (ny, nx)).clip(0.8, 1.2)
    n_faulty = max(int(FAULTY_FRACTION * gain.size), 2)
    faulty = rng.choice(gain.size, 2 * n_faulty, replace=False)
    gain /= gain.mean()
    gain.ravel()[faulty[:n_faulty]] = 0
    return dataclasses.replace(phantom, gain=gain.astype(np.float32), hot=tuple(faulty[n_faulty:].tolist()))


def hardware_frames(phantom: Phantom, per_frame: int) -> Iterator[np.ndarray]:
    """Events (n, 4) int64, columns y, x, sub_y, sub_x, of each hardware frame; `per_frame` of them make one frame.

    The sample moves from one hardware frame to the next. A pixel reports at most one electron, as a real detector does.
    """
    rng = np.random.default_rng(phantom.seed)
    for i in range(phantom.truth.n_frames * per_frame):
        time = (i + 0.5) / per_frame - 0.5
        y, x = np.nonzero(phantom.counts(time, 1 / per_frame, stream=1000 + i))
        yield np.column_stack([y, x, rng.integers(0, SUB_PIXELS, (len(y), 2))])


def write_gain(path: str, gain: np.ndarray, gain_format: str, movie_format: str, pixel_size_A: float) -> None:
    """Write the gain with the row order and convention of its format, so that the aligner's `auto` settings apply it.

    Parameters
    ----------
    gain : (ny, nx) float32 in the row order of the movie, multiplies; 0 marks dead pixels.
    gain_format : key of `GAIN_ENDINGS`. movie_format : key of `FORMATS`.
    """
    if gain_format == "gain":
        gain = np.divide(1000, gain, out=np.zeros_like(gain), where=gain > 0)
    if (gain_format in TOP_ROW_FIRST) != (movie_format in TOP_ROW_FIRST):
        gain = gain[::-1]
    if gain_format == "mrc":
        write_mrc_movie(path, [gain], pixel_size_A)
    else:
        write_tiff_movie(path, [gain])


def phantom_files(folder: str, name: str, movie_format: str, gain_format: str) -> Dict[str, str]:
    """Paths of the files of a phantom, as `write_phantom` returns them. gain_format : as there, or "none"."""
    start = os.path.join(folder, name)
    files = {"movie": start + FORMATS[movie_format], "truth": start + "_truth.json"}
    if gain_format != "none":
        files["gain"] = start + "_gain" + GAIN_ENDINGS[_gain_format(gain_format, movie_format)]
    return files


def write_phantom(
    phantom: Phantom,
    folder: str,
    name: str,
    movie_format: str = "mrc",
    compression: str = "none",
    gain_format: str = "auto",
    hardware_per_frame: int = 8,
    progress: Optional[Callable[[], object]] = None,
) -> Dict[str, str]:
    """Write the movie, its truth and, if the phantom has one, its gain.

    Parameters
    ----------
    movie_format : key of `FORMATS`. compression : TIFF only, "none", "lzw", "deflate" or "zstd".
    gain_format : key of `GAIN_ENDINGS`, or "auto" for the usual one of the movie's format.
    hardware_per_frame : EER only, hardware frames in each frame.
    progress : called after each frame; with EER after each hardware frame.

    Returns
    -------
    {"movie": path, "truth": path, "gain": path}; "gain" only if there is one.

    Raises
    ------
    OutputError : a file can't be written.
    """
    files = phantom_files(folder, name, movie_format, gain_format if phantom.gain is not None else "none")
    pixel_size_A = phantom.truth.pixel_size_A
    if movie_format == "mrc":
        write_mrc_movie(files["movie"], _reported(phantom.frames(), progress), pixel_size_A)
    elif movie_format == "tiff":
        chosen = None if compression == "none" else compression
        write_tiff_movie(files["movie"], _reported(phantom.frames(), progress), compression=chosen, rows_per_strip=64)
    else:
        shape: Tuple[int, int] = phantom.truth.frame_shape
        n = phantom.truth.n_frames
        own = eer_metadata_text(pixel_size_A, phantom.dose * n, n * hardware_per_frame)
        events = _reported(hardware_frames(phantom, hardware_per_frame), progress)
        write_eer_movie(files["movie"], events, shape, metadata=own)
    if phantom.gain is not None:
        gain_format = _gain_format(gain_format, movie_format)
        write_gain(files["gain"], phantom.gain, gain_format, movie_format, pixel_size_A)
    phantom.truth.save(files["truth"])
    return files


def _gain_format(gain_format: str, movie_format: str) -> str:
    return USUAL_GAIN[movie_format] if gain_format == "auto" else gain_format


def _reported(frames: Iterable[np.ndarray], progress: Optional[Callable[[], object]]) -> Iterator[np.ndarray]:
    for frame in frames:
        yield frame
        if progress is not None:
            progress()
