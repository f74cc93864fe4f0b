"""Gain, dark and defects of a movie, brought onto its frames: `corrected = (raw - dark) * gain`, then defects replaced.

Orientation, for gain and dark alike, in this order: rows into the movie's order (TIFF, EER, DM store the top row first,
MRC the bottom one); `gain_rot` degrees as numpy.rot90 turns the array, which is counter-clockwise on a screen that
shows row 0 at the top and clockwise on one that shows it at the bottom; then `gain_flip`. Defect lists and maps are
given on the movie's own frames: neither rotated nor flipped, but a map's rows are brought into the movie's order.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import List, Optional, Tuple

import numpy as np

from ..errors import CorrectionError, MovieError
from ..settings import Settings
from .movie import Movie
from .reading import first_bytes, open_movie

MAX_DEFECT_FRACTION = 0.1
DM_STARTS = (b"\0\0\0\3", b"\0\0\0\4")  # DigitalMicrograph's version number
TOP_ROW_FIRST = ("TIFF", "EER", "DM")
ZOOMS = (2, 4)  # an EER movie rendered at 16K needs its 4K gain enlarged by 4


@dataclass(frozen=True)
class Corrections:
    """What turns raw frames into corrected ones, each on the movie's (ny, nx) or None if there is none.

    Attributes
    ----------
    dark : float32, subtracted from the raw frame.
    gain : float32, multiplied with the difference; 1 at defects.
    defects : bool, pixels to be replaced by their good neighbours.
    notes : what was done to the files that the user may want to know.
    """

    dark: Optional[np.ndarray] = None
    gain: Optional[np.ndarray] = None
    defects: Optional[np.ndarray] = None
    notes: List[str] = field(default_factory=list)


def load_corrections(movie: Movie, settings: Settings) -> Corrections:
    """Read the gain, dark, defect list and defect map of `settings` and bring them onto the frames of `movie`.

    Raises
    ------
    CorrectionError : a file can't be read, has another size, or marks more than 10 % of the pixels as defects.
    """
    notes: List[str] = []
    dark = gain = None
    defects = np.zeros(movie.shape[1:], bool)
    if settings.dark:
        dark = _dark(movie, settings, notes)
    if settings.gain:
        gain = _gain(movie, settings, defects, notes)
    if settings.defect_map:
        image, kind = read_image(settings.defect_map, "Defect map")
        image = _rows_like(movie, image, kind, settings.gain_row_order, "Defect map", notes)
        _check_size(image.shape, movie, f"Defect map {settings.defect_map}")
        marked = np.nan_to_num(image, nan=1.0) != 0
        notes.append(f"Defect map marks {np.count_nonzero(marked)} pixels.")
        defects |= marked
    if settings.defect_file:
        marked = read_defect_list(settings.defect_file, (movie.shape[1], movie.shape[2]))
        notes.append(f"Defect file marks {np.count_nonzero(marked)} pixels.")
        defects |= marked
    n_defects = np.count_nonzero(defects)
    if n_defects > MAX_DEFECT_FRACTION * defects.size:
        raise CorrectionError(
            f"{movie.path}: {n_defects / defects.size:.0%} of its pixels are marked as defects by gain, defect map and "
            f"defect file together, more than {MAX_DEFECT_FRACTION:.0%}: check these files."
        )
    return Corrections(dark, gain, defects if n_defects else None, notes)


def read_image(path: str, what: str) -> Tuple[np.ndarray, str]:
    """The one image in a file as (ny, nx) float32, and the kind of file: "MRC", "TIFF" or "DM"."""
    try:
        if first_bytes(path, 4) in DM_STARTS:
            image, kind = _read_dm(path), "DM"
            n_images = len(image)
        else:
            with open_movie(path, Settings()) as stack:
                n_images, kind = stack.n_frames, stack.kind
                image = stack.frame(0)[np.newaxis]
    except MovieError as error:
        raise CorrectionError(f"{what} {error}") from error
    if n_images != 1 or kind == "EER":
        count = "is an EER movie" if kind == "EER" else f"holds {n_images} images"
        raise CorrectionError(f"{what} {path}: {count}, but one image is needed: average them or give another file.")
    return image[0].astype(np.float32), kind


def _read_dm(path: str) -> np.ndarray:
    """Images (n, ny, nx) of a dm3 or dm4 file."""
    from ncempy.io import dm  # only now, it loads a lot

    try:
        with dm.fileDM(path) as file:
            data = np.asarray(file.getDataset(0)["data"])
    except Exception as error:  # on a damaged file it raises nearly anything
        raise MovieError(f"{path}: this DigitalMicrograph file can't be read ({error}): save it as MRC.") from error
    if data.ndim not in (2, 3) or data.dtype.kind not in "uif":
        raise MovieError(f"{path}: this DigitalMicrograph file holds no plain image: save it as MRC.")
    return data.reshape((-1,) + data.shape[-2:])


def gain_divides(settings: Settings) -> bool:
    """Whether movies are divided by the gain."""
    by_name = str(settings.gain).lower().endswith(".gain")
    return settings.gain_convention == "divide" or (settings.gain_convention == "auto" and by_name)


def _gain(movie: Movie, settings: Settings, defects: np.ndarray, notes: List[str]) -> np.ndarray:
    """Multiplicative gain on the movie's frames; `defects` is added to."""
    path = str(settings.gain)
    image, kind = read_image(path, "Gain reference")
    image = _oriented(movie, image, kind, settings, "Gain", notes)
    zoom = _gain_zoom(image.shape, movie, path)
    divides = gain_divides(settings)
    bad = ~(np.isfinite(image) & (image > 0))
    n_bad = np.count_nonzero(bad)
    if n_bad > MAX_DEFECT_FRACTION * bad.size:
        raise CorrectionError(
            f"Gain reference {path}: {n_bad / bad.size:.0%} of its pixels are zero, negative, NaN or infinite, more "
            f"than {MAX_DEFECT_FRACTION:.0%}: give another gain reference."
        )
    if n_bad:
        notes.append(f"Gain: {n_bad} pixels are zero, negative, NaN or infinite: taken as defects.")
    good = image[~bad]
    if good.min() == good.max():
        value = "1" if divides else f"{good[0]:g}"
        notes.append(
            f"Gain is {value} at every pixel, so it corrects nothing: is {os.path.basename(path)} the right file?"
        )
    if divides:
        mean = good.mean(dtype=np.float64)
        notes.append(f"Gain: movies are divided by it (multiplied by {mean:g} / gain).")
        image = np.divide(np.float32(mean), image, out=np.ones_like(image), where=~bad)
    image[bad] = 1
    if zoom != 1:
        notes.append(
            f"Gain is {image.shape[1]} x {image.shape[0]}, the movie's frames are {movie.shape[2]} x {movie.shape[1]}: "
            + (
                f"each of its pixels is used for {zoom:g} x {zoom:g}."
                if zoom > 1
                else "2 x 2 of its pixels are averaged."
            )
        )
        image, bad = _resampled(image, bad, zoom)
    defects |= bad
    return image


def _resampled(gain: np.ndarray, bad: np.ndarray, zoom: float) -> Tuple[np.ndarray, np.ndarray]:
    """Gain and its defects enlarged by an integer zoom, or halved; a pixel made of a defect is one."""
    if zoom > 1:
        n = int(zoom)
        return gain.repeat(n, 0).repeat(n, 1), bad.repeat(n, 0).repeat(n, 1)
    ny, nx = gain.shape[0] // 2, gain.shape[1] // 2
    bad = bad.reshape(ny, 2, nx, 2).any((1, 3))
    gain = gain.reshape(ny, 2, nx, 2).mean((1, 3), dtype=np.float64).astype(np.float32)
    gain[bad] = 1
    return gain, bad


def _gain_zoom(shape: Tuple[int, ...], movie: Movie, path: str) -> float:
    """By how much the gain has to be enlarged: 1, 2, 1/2, or 4 for an EER movie."""
    frame = movie.shape[1:]
    if shape == frame:
        return 1
    if shape == (2 * frame[0], 2 * frame[1]):
        return 0.5
    for zoom in ZOOMS if movie.kind == "EER" else ZOOMS[:1]:
        if frame == (zoom * shape[0], zoom * shape[1]):
            return zoom
    _check_size(shape, movie, f"Gain reference {path}")
    raise AssertionError("unreachable")


def _check_size(shape: Tuple[int, ...], movie: Movie, what: str) -> None:
    frame = movie.shape[1:]
    if shape != frame:
        turned = shape[::-1] == frame
        raise CorrectionError(
            f"{what}: is {shape[1]} x {shape[0]} pixels after orientation, but the frames of {movie.path} are "
            f"{frame[1]} x {frame[0]}: "
            + ("rotate it by 90 or 270 degrees." if turned else "give the one of this camera.")
        )


def _dark(movie: Movie, settings: Settings, notes: List[str]) -> np.ndarray:
    """Dark reference on the movie's frames."""
    path = str(settings.dark)
    image, kind = read_image(path, "Dark reference")
    image = _oriented(movie, image, kind, settings, "Dark", notes)
    _check_size(image.shape, movie, f"Dark reference {path}")
    bad = ~np.isfinite(image)
    if bad.any():
        raise CorrectionError(
            f"Dark reference {path}: {np.count_nonzero(bad)} of its pixels are NaN or infinite: give another one."
        )
    return image


def _oriented(
    movie: Movie, image: np.ndarray, kind: str, settings: Settings, what: str, notes: List[str]
) -> np.ndarray:
    """Row order, then rotation, then flip, as the module's docstring says."""
    image = _rows_like(movie, image, kind, settings.gain_row_order, what, notes)
    if settings.gain_rot != "none":
        image = np.rot90(image, int(settings.gain_rot) // 90)
    if settings.gain_flip != "none":
        image = np.flip(image, 0 if settings.gain_flip == "upside-down" else 1)
    if (settings.gain_rot, settings.gain_flip) != ("none", "none"):
        notes.append(f"{what}: rotated counter-clockwise: {settings.gain_rot}; flipped: {settings.gain_flip}.")
    return np.ascontiguousarray(image)


def _rows_like(movie: Movie, image: np.ndarray, kind: str, row_order: str, what: str, notes: List[str]) -> np.ndarray:
    """The image with its rows in the movie's order."""
    differ = (kind in TOP_ROW_FIRST) != (movie.kind in TOP_ROW_FIRST)
    if row_order == "same" or (row_order == "auto" and not differ):
        return image
    reason = (
        f"{kind} and {movie.kind} files store their rows in opposite order" if row_order == "auto" else "as asked for"
    )
    notes.append(f"{what}: flipped upside-down first, {reason}.")
    return np.ascontiguousarray(np.flipud(image))


def read_defect_list(path: str, shape: Tuple[int, int]) -> np.ndarray:
    """Defects (ny, nx) bool from a text file of rectangles.

    A line is `x y width height` in pixels of the movie's frames as they are aligned, `x`, `y` from 0 at the first
    stored pixel; commas are as good as blanks, `#` starts a comment. Rectangles are cut at the edge of the frame.
    """
    defects = np.zeros(shape, bool)
    try:
        text = first_bytes(path, 100_000_000).decode()
    except (MovieError, UnicodeDecodeError) as error:
        reason = (
            f"{path}: is no text file: give lines of 'x y width height'." if isinstance(error, ValueError) else error
        )
        raise CorrectionError(f"Defect file {reason}") from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            x, y, width, height = (int(word) for word in words)
        except ValueError:
            x = y = width = height = -1
        if min(x, y) < 0 or min(width, height) < 1:
            raise CorrectionError(
                f"Defect file {path}: line {number} is '{line.strip()}': write four whole numbers, 'x y width height'."
            )
        if x >= shape[1] or y >= shape[0]:
            raise CorrectionError(
                f"Defect file {path}: line {number} starts at x {x}, y {y}, outside the frames of {shape[1]} x "
                f"{shape[0]}: count pixels from 0 on this movie's frames."
            )
        defects[y : y + height, x : x + width] = True
    return defects
