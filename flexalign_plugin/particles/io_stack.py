"""Stacks of particle images in MRC files, memory-mapped and read by any number of threads.

Only the header of a stack is kept between reads: a data set may have more stacks than a process may have open files.
"""

from __future__ import annotations

import os
import threading
import warnings
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple, Union

import mrcfile
import numpy as np
from mrcfile.utils import data_dtype_from_header

from ..errors import ParticleError
from ..inputs import open_regular

HEADER_BYTES = 1024
MOST_PX = 4096  # of a particle's box
READABLE = "give MRC or MRCS stacks"


@dataclass(frozen=True)
class Stack:
    """Where the images of a stack are.

    Attributes
    ----------
    path : of the file. n : images in the file. box : side in pixels, even. side : as it is stored, odd or even.
    dtype : of a pixel. offset : bytes before the first image.
    """

    path: str
    n: int
    box: int
    side: int
    dtype: np.dtype[np.generic]
    offset: int


def open_stack(path: str) -> Stack:
    """The layout of a stack, also one whose header says that it is a volume.

    Raises
    ------
    ParticleError : it can't be read or its images are not square.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what mrcfile finds wrong in a header is not said for every stack
            with mrcfile.open(path, permissive=True, header_only=True) as opened:
                header, extended = opened.header, int(opened.header.nsymbt)
                nx, ny, nz = int(header.nx), int(header.ny), int(header.nz)
                dtype = np.dtype(data_dtype_from_header(header))
    except OSError as error:
        raise ParticleError(
            f"{path}: can't be read ({error.strerror or error}): check that the file is there."
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ParticleError(f"{path}: is not an MRC stack: {READABLE}.") from error
    if min(nx, ny, nz) < 1 or extended < 0 or dtype.kind not in "iuf":
        raise ParticleError(f"{path}: its MRC header is damaged or not that of images: copy the file again.")
    if nx != ny:
        raise ParticleError(f"{path}: its images of {nx} x {ny} pixels are not square: extract the particles again.")
    if not 8 <= nx <= MOST_PX:
        raise ParticleError(f"{path}: its images have {nx} pixels a side: they must have 8 to {MOST_PX}.")
    held = max(size - HEADER_BYTES - extended, 0) // (nx * ny * dtype.itemsize)
    return Stack(path, min(nz, held), nx - nx % 2, nx, dtype, HEADER_BYTES + extended)


def read_images(stack: Stack, index: np.ndarray) -> np.ndarray:
    """Images of a stack.

    Parameters
    ----------
    index : (k,) from 0, each below `stack.n`.

    Returns
    -------
    (k, box, box) float32. The last row and column of an odd image are left out, which keeps its centre.
    """
    mapped = np.memmap(stack.path, stack.dtype, "r", stack.offset, (stack.n, stack.side, stack.side))
    return np.asarray(mapped[index, : stack.box, : stack.box], np.float32)


class Stacks:
    """The stacks of a table, opened when they are needed. Thread-safe."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._opened: Dict[int, Union[Stack, ParticleError]] = {}
        self._lock = threading.Lock()

    def stack(self, number: int) -> Stack:
        """The stack `number`. Raises ParticleError."""
        with self._lock:
            found = self._opened.get(number)
            if found is None:
                try:
                    found = open_stack(self._paths[number])
                except ParticleError as error:
                    found = error
                self._opened[number] = found
        if isinstance(found, ParticleError):
            raise found
        return found

    def read(self, file: np.ndarray, index: np.ndarray, box: int) -> Tuple[np.ndarray, Dict[int, str]]:
        """Images of any stacks.

        Parameters
        ----------
        file, index : (k,) numbers of the stacks and of the images in them. box : the side that images must have.

        Returns
        -------
        (k, box, box) float32, and {place in `file`: why the image can't be used}; such images are 0.
        """
        images = np.zeros((len(file), box, box), np.float32)
        problems: Dict[int, str] = {}
        for number in np.unique(file):
            own = np.flatnonzero(file == number)
            try:
                stack = self.stack(int(number))
                if stack.box != box:
                    raise ParticleError(
                        f"{stack.path}: its images have {stack.side} pixels a side, others of the same optics group "
                        f"{box}: give them an optics group of their own."
                    )
            except ParticleError as error:
                problems.update((int(i), str(error)) for i in own)
                continue
            inside = (index[own] >= 0) & (index[own] < stack.n)
            for i in own[~inside]:
                problems[int(i)] = (
                    f"image {index[i] + 1} is not in {stack.path}, which holds {stack.n} images: extract the particles "
                    "again."
                )
            own = own[inside]
            if len(own):
                own = own[np.argsort(index[own], kind="stable")]
                try:
                    images[own] = read_images(stack, index[own])
                except OSError as error:
                    problems.update((int(i), f"{stack.path}: can't be read ({error.strerror}).") for i in own)
        for i in range(len(images)):
            if i not in problems:
                reason = unusable(images[i])
                if reason:
                    problems[i] = reason
                    images[i] = 0
        return images, problems


def unusable(image: np.ndarray) -> str:
    """Why an image can't be aligned; empty if it can."""
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return "its image has pixels that are not numbers (NaN or infinite): extract the particle again."
    if low == high:
        return f"its image is empty (all pixels are {low:g}): extract the particle again."
    return ""


def found_in(names: Sequence[str], listed_in: str) -> List[str]:
    """Paths of stacks that a file lists with names relative to a project folder.

    The folder is the current one, or the nearest above the list in which the first stack is.
    """
    if not names or os.path.exists(names[0]):
        return list(names)
    folder = os.path.dirname(os.path.abspath(listed_in))
    while True:
        if os.path.exists(os.path.join(folder, names[0])):
            return [os.path.join(folder, name) for name in names]
        above = os.path.dirname(folder)
        if above == folder:
            return list(names)
        folder = above
