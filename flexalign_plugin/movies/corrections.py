"""Gain, dark and defects of a movie in the orientation and size of its frames.

`corrected = (raw - dark) * gain`, then defects are replaced.

Gain and dark are oriented in three steps. Their rows are brought into the movie's order: TIFF, EER and DM store the top
row first, MRC the bottom row. Then they are rotated by `gain_rot` degrees as numpy.rot90 does, which is counter-
clockwise on a screen that shows row 0 at the top and clockwise on one that shows it at the bottom. Then they are
flipped by `gain_flip`. Defect lists and maps are given on the movie's own frames and are neither rotated nor flipped,
but the rows of a map, and of a list that counts rows from the top of the camera, are brought into the movie's order.
Defects that are listed in the gain's own file are oriented like the gain.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Tuple

import numpy as np

from ..errors import CorrectionError, MovieError
from ..settings import Settings
from .defect_lists import defect_text, gain_defects, read_defect_file
from .movie import Movie
from .reading import first_bytes, open_movie

MAX_DEFECT_FRACTION = 0.1
DM_STARTS = (b"\0\0\0\3", b"\0\0\0\4")  # DigitalMicrograph's version number
TOP_ROW_FIRST = ("TIFF", "EER", "DM")  # kinds of files whose first stored row is the top one
ZOOMS = (2, 4)  # an EER movie rendered at 16K needs its 4K gain enlarged by 4


@dataclass(frozen=True)
class Corrections:
    """Images that correct the raw frames, each (ny, nx) as the movie's frames, or None if there is none.

    Attributes
    ----------
    dark : float32, subtracted from the raw frame.
    gain : float32, multiplied with the difference; 1 at defects.
    defects : bool, pixels to be replaced by their good neighbours.
    notes : what was done to the files, as sentences for the user.
    counts : number of pixels that each source marks as defects: `gain`, `gain_list`, `defect_map`, `defect_file`.
        Sources that are not used are left out. A pixel that two sources mark counts in both.
    plain_gain : whether RELION applies the gain's file to this movie in the same way.
    """

    dark: Optional[np.ndarray] = None
    gain: Optional[np.ndarray] = None
    defects: Optional[np.ndarray] = None
    notes: List[str] = field(default_factory=list)
    counts: Dict[str, int] = field(default_factory=dict)
    plain_gain: bool = True


def load_corrections(movie: Movie, settings: Settings) -> Corrections:
    """Read the gain, dark, defect list and defect map of `settings` and bring them onto the frames of `movie`.

    Raises
    ------
    CorrectionError : a file can't be read, has another size, or marks more than 10 % of the pixels as defects.
    """
    notes: List[str] = []
    dark = gain = None
    plain = True
    marked: Dict[str, np.ndarray] = {}
    if settings.dark:
        dark = _dark(movie, settings, notes)
    if settings.gain:
        gain, marked, plain = _gain(movie, settings, notes)
    if settings.defect_map:
        image, kind = read_image(settings.defect_map, "Defect map")
        image = _rows_like(movie, image, kind, settings.gain_row_order, "Defect map", notes)
        _check_size(image.shape, movie, f"Defect map {settings.defect_map}")
        marked["defect_map"] = np.nan_to_num(image, nan=1.0) != 0
        notes.append(f"Defect map marks {np.count_nonzero(marked['defect_map'])} pixels.")
    if settings.defect_file:
        marked["defect_file"] = _defect_file(movie, settings, notes)
    counts = {source: int(np.count_nonzero(mask)) for source, mask in marked.items()}
    defects = np.zeros(movie.shape[1:], bool)
    for mask in marked.values():
        defects |= mask
    n_defects = np.count_nonzero(defects)
    if n_defects > MAX_DEFECT_FRACTION * defects.size:
        raise CorrectionError(
            f"{movie.path}: {n_defects / defects.size:.0%} of its pixels are marked as defects by gain, defect map and "
            f"defect file together, more than {MAX_DEFECT_FRACTION:.0%}: check these files."
        )
    return Corrections(dark, gain, defects if n_defects else None, notes, counts, plain)


def check_files(settings: Settings) -> None:
    """Read the gain, dark and defect files, so that a wrong name is reported before the first movie.

    Raises
    ------
    CorrectionError : a file can't be read or is no image. Its size is not checked, because that depends on the movie.
    """
    for path, what in (
        (settings.gain, "Gain reference"),
        (settings.dark, "Dark reference"),
        (settings.defect_map, "Defect map"),
    ):
        if path:
            read_image(path, what)
    if settings.defect_file:
        defect_text(settings.defect_file)


def _defect_file(movie: Movie, settings: Settings, notes: List[str]) -> np.ndarray:
    """Map of the defect file on the movie's frames."""
    path = str(settings.defect_file)
    mask, on_camera = read_defect_file(path, (movie.shape[1], movie.shape[2]))
    if on_camera:
        mask = _rows_like(movie, mask, "TIFF", settings.gain_row_order, "Defect file", notes)
        zoom = _zoom(mask.shape, movie)
        if zoom is None:
            raise CorrectionError(
                f"Defect file {path}: its camera has {mask.shape[1]} x {mask.shape[0]} pixels, but the frames of "
                f"{movie.path} are {movie.shape[2]} x {movie.shape[1]}: give the list that was saved with these movies."
            )
        mask = _zoomed_mask(mask, zoom)
    notes.append(f"Defect file marks {np.count_nonzero(mask)} pixels.")
    return mask


def read_image(path: str, what: str) -> Tuple[np.ndarray, str]:
    """The only image of a file as (ny, nx) float32, and the kind of file: "MRC", "TIFF" or "DM".

    Raises
    ------
    CorrectionError : the file can't be read or holds several images. Its text begins with `what`.
    """
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
    from ncempy.io import dm  # imported here because it is slow to import

    try:
        with dm.fileDM(path) as file:
            data = np.asarray(file.getDataset(0)["data"])
    except Exception as error:  # a damaged file can raise nearly any exception
        raise MovieError(f"{path}: this DigitalMicrograph file can't be read ({error}): save it as MRC.") from error
    if data.ndim not in (2, 3) or data.dtype.kind not in "uif":
        raise MovieError(f"{path}: this DigitalMicrograph file holds no image of real numbers: save it as MRC.")
    return data.reshape((-1,) + data.shape[-2:])


def gain_divides(settings: Settings) -> bool:
    """Whether movies are divided by the gain."""
    by_name = str(settings.gain).lower().endswith(".gain")
    return settings.gain_convention == "divide" or (settings.gain_convention == "auto" and by_name)


def _gain(movie: Movie, settings: Settings, notes: List[str]) -> Tuple[np.ndarray, Dict[str, np.ndarray], bool]:
    """Multiplicative gain on the movie's frames, its defects by source, and whether RELION applies it alike."""
    path = str(settings.gain)
    image, kind = read_image(path, "Gain reference")
    listed = _listed_defects(path, image, kind, notes)
    if listed is not None:
        listed = _oriented(movie, listed, kind, settings, "Gain", [])
    image = _oriented(movie, image, kind, settings, "Gain", notes)
    zoom = _gain_zoom(image.shape, movie, path)
    divides = gain_divides(settings)
    broken = ~(np.isfinite(image) & (image > 0))
    bad = broken if listed is None else broken | listed
    if np.count_nonzero(bad) > MAX_DEFECT_FRACTION * bad.size:
        raise CorrectionError(
            f"Gain reference {path}: {np.count_nonzero(bad) / bad.size:.0%} of its pixels are zero, negative, NaN, "
            f"infinite or listed as defects, more than {MAX_DEFECT_FRACTION:.0%}: give another gain reference."
        )
    if broken.any():
        notes.append(f"Gain: {np.count_nonzero(broken)} pixels are zero, negative, NaN or infinite: taken as defects.")
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
        image = _resampled(image, bad, zoom)
    marked = {"gain": broken} if listed is None else {"gain": broken, "gain_list": listed}
    plain = _same_as_in_relion(movie, settings, path, kind, divides, zoom)
    return image, {source: _zoomed_mask(mask, zoom) for source, mask in marked.items() if mask.any()}, plain


def _same_as_in_relion(movie: Movie, settings: Settings, path: str, kind: str, divides: bool, zoom: float) -> bool:
    """Whether RELION, which only reads the gain's file, orients and applies the gain as we do.

    RELION flips TIFF files upside down, movies and gains alike, but not EER movies. For an EER movie it does not flip a
    `.gain` file, divides by it and enlarges it.
    """
    if movie.kind == "TIFF" and movie.top_row_first:  # RELION flips its frames: no gain fits both them and ours
        return True
    of_eer = movie.kind == "EER" and path.lower().endswith(".gain")
    oriented = (settings.gain_rot, settings.gain_flip) != ("none", "none")
    same_rows = _flips_rows(movie, kind, settings.gain_row_order) == (kind == "TIFF" and not of_eer)
    return kind != "DM" and not oriented and same_rows and divides == of_eer and (zoom == 1 or of_eer)


def _listed_defects(path: str, image: np.ndarray, kind: str, notes: List[str]) -> Optional[np.ndarray]:
    """(ny, nx) bool: defects listed in the gain's own file, rows as stored there."""
    if kind != "TIFF":
        return None
    try:
        listed = gain_defects(path, (image.shape[0], image.shape[1]))
    except ValueError as error:
        notes.append(f"Gain: the defects listed in its file are left out, because {error}.")
        return None
    if listed is not None:
        notes.append(f"Gain: the list in its file marks {np.count_nonzero(listed)} of its pixels as defects.")
    return listed


def _resampled(gain: np.ndarray, bad: np.ndarray, zoom: float) -> np.ndarray:
    """The gain enlarged by an integer zoom, or halved; 1 for pixels that contain a defect."""
    if zoom > 1:
        n = int(zoom)
        return gain.repeat(n, 0).repeat(n, 1)
    ny, nx = gain.shape[0] // 2, gain.shape[1] // 2
    gain = gain.reshape(ny, 2, nx, 2).mean((1, 3), dtype=np.float64).astype(np.float32)
    gain[_zoomed_mask(bad, zoom)] = 1
    return gain


def _zoomed_mask(mask: np.ndarray, zoom: float) -> np.ndarray:
    """The map enlarged by an integer zoom, or halved; a pixel that contains a defect is one."""
    if zoom >= 1:
        return mask.repeat(int(zoom), 0).repeat(int(zoom), 1)
    ny, nx = mask.shape[0] // 2, mask.shape[1] // 2
    return mask.reshape(ny, 2, nx, 2).any((1, 3))


def _gain_zoom(shape: Tuple[int, ...], movie: Movie, path: str) -> float:
    """How many times larger the movie's frames are."""
    zoom = _zoom(shape, movie)
    if zoom is None:
        _check_size(shape, movie, f"Gain reference {path}")
        raise AssertionError("unreachable")
    return zoom


def _zoom(shape: Tuple[int, ...], movie: Movie) -> Optional[float]:
    """How many times larger the movie's frames are than `shape`; None if it is not one of the usual factors."""
    frame = movie.shape[1:]
    if shape == (2 * frame[0], 2 * frame[1]):
        return 0.5
    zooms = (1, *(ZOOMS if movie.kind == "EER" else ZOOMS[:1]))
    return next((zoom for zoom in zooms if frame == (zoom * shape[0], zoom * shape[1])), None)


def _check_size(shape: Tuple[int, ...], movie: Movie, what: str) -> None:
    frame = movie.shape[1:]
    if shape != frame:
        transposed = shape[::-1] == frame
        raise CorrectionError(
            f"{what} is {shape[1]} x {shape[0]} pixels after orientation, but the frames of {movie.path} are "
            f"{frame[1]} x {frame[0]}: "
            + ("rotate it by 90 or 270 degrees." if transposed else "give the file of this camera.")
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
    """Row order, then rotation, then flip: see the module's docstring."""
    image = _rows_like(movie, image, kind, settings.gain_row_order, what, notes)
    image = rotate_and_flip(image, settings.gain_rot, settings.gain_flip)
    if (settings.gain_rot, settings.gain_flip) != ("none", "none"):
        notes.append(f"{what}: rotated counter-clockwise: {settings.gain_rot}; flipped: {settings.gain_flip}.")
    return np.ascontiguousarray(image)


def rotate_and_flip(image: np.ndarray, rotation: str, flip: str) -> np.ndarray:
    """View of an image (ny, nx), rotated and then flipped.

    Parameters
    ----------
    rotation, flip : values of the settings `gain_rot` and `gain_flip`.
    """
    if rotation != "none":
        image = np.rot90(image, int(rotation) // 90)
    if flip != "none":
        image = np.flip(image, 0 if flip == "upside-down" else 1)
    return image


def _flips_rows(movie: Movie, kind: str, row_order: str) -> bool:
    differ = (kind in TOP_ROW_FIRST) != movie.top_row_first
    return row_order == "flipped" or (row_order == "auto" and differ)


def _rows_like(movie: Movie, image: np.ndarray, kind: str, row_order: str, what: str, notes: List[str]) -> np.ndarray:
    """The image with its rows in the movie's order."""
    if not _flips_rows(movie, kind, row_order):
        return image
    flipped = " turned upside down" if movie.kind in TOP_ROW_FIRST and not movie.top_row_first else ""
    reason = (
        f"{kind} and {movie.kind} files{flipped} store their rows in opposite order"
        if row_order == "auto"
        else "as asked for"
    )
    notes.append(f"{what}: flipped upside-down first, {reason}.")
    return np.ascontiguousarray(np.flipud(image))
