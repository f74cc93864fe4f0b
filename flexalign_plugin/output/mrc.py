"""Micrographs and stacks as MRC files whose bytes depend only on the data.

The layout and the constants of the header come from mrcfile. Its writers are not used because they write the time into
the first label, and because they need a second copy of a stack in memory for its statistics.
"""

from __future__ import annotations

import errno
from typing import Sequence

import numpy as np
from mrcfile.constants import IMAGE_STACK_SPACEGROUP, MAP_ID
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import machine_stamp_from_byte_order, mode_from_dtype

_FORMAT_VERSION = 20141
_LABEL_LENGTH = 80
_MAX_LABELS = 10


def write_mrc(
    path: str,
    data: np.ndarray,
    pixel_size_A: float,
    labels: Sequence[str] = (),
    dtype: type = np.float32,
) -> None:
    """Write an image or a stack of images.

    Parameters
    ----------
    path : file to write; combine with `files.atomic_path`.
    data : (ny, nx) image or (n, ny, nx) stack of images. Row 0 is the first row of the file.
    pixel_size_A : pixel size of `data`.
    labels : up to ten text labels for the header; characters outside ASCII become "?", text beyond 80
        characters is cut.
    dtype : numpy.float32 (MRC mode 2) or numpy.float16 (mode 12).
    """
    if data.ndim not in (2, 3):
        raise ValueError(f"an MRC image or stack has 2 or 3 axes, not {data.ndim}")
    frames = data[None] if data.ndim == 2 else data
    header = np.zeros((), HEADER_DTYPE)
    header["nz"], header["ny"], header["nx"] = frames.shape
    header["mz"], header["my"], header["mx"] = 1, frames.shape[1], frames.shape[2]
    header["mode"] = mode_from_dtype(np.dtype(dtype))
    for axis in "xyz":
        header["cella"][axis] = header["m" + axis] * pixel_size_A
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90.0
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["ispg"] = IMAGE_STACK_SPACEGROUP
    header["nversion"] = _FORMAT_VERSION
    header["map"] = MAP_ID
    header["machst"] = machine_stamp_from_byte_order("=")
    header["nlabl"] = min(len(labels), _MAX_LABELS)
    for i, label in enumerate(labels[:_MAX_LABELS]):
        header["label"][i] = label.encode("ascii", "replace")[:_LABEL_LENGTH].ljust(_LABEL_LENGTH)

    stats = np.zeros((len(frames), 4))
    with open(path, "wb") as f:
        f.write(header.tobytes())
        for i, frame in enumerate(frames):
            stored = _stored(frame, dtype)
            values = stored.astype(np.float32, copy=False)
            stats[i] = values.min(), values.max(), values.mean(dtype=np.float64), values.std()
            f.write(stored.data)
        mean = stats[:, 2].mean()
        header["dmin"], header["dmax"], header["dmean"] = stats[:, 0].min(), stats[:, 1].max(), mean
        header["rms"] = np.sqrt(np.mean(stats[:, 3] ** 2 + (stats[:, 2] - mean) ** 2))
        f.seek(0)
        f.write(header.tobytes())


def _stored(frame: np.ndarray, dtype: type) -> np.ndarray:
    if np.finfo(dtype).bits < 32 and np.abs(frame).max(initial=0) > np.finfo(dtype).max:
        raise OSError(errno.ERANGE, f"values beyond {np.finfo(dtype).max}")
    return np.ascontiguousarray(frame, dtype)
