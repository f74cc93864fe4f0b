"""Writes all result files of one movie, or none of them."""

from __future__ import annotations

import os
import zlib
from functools import partial
from typing import ContextManager, Dict, Iterator, List, Optional, Tuple

import numpy as np

from .. import __version__
from .. import result_files as names
from ..files import OutputFiles, atomic_path
from ..result import MovieResult
from . import pictures, star
from .motion_json import json_text, result_to_dict
from .mrc import write_mrc
from .replacing import check_replaceable

PROGRAM = f"FlexAlign {__version__}"


def write_result(result: MovieResult, output_dir: str, root: str, keep_others: bool = False) -> Dict[str, str]:
    """Write all files that the settings select (docs/outputs.md).

    Parameters
    ----------
    output_dir : created if missing.
    root : beginning of all file names. keep_others : see `replacing.check_replaceable`.

    Returns
    -------
    {key: path} of the written files. Keys: micrograph, micrograph_dw, micrograph_even, micrograph_odd, aligned_movie,
    amplitude_spectrum, psd, psd_image, plot_psd, plot_global, plot_local, thumbnail, shifts_star, motion.

    Raises
    ------
    OutputError : a file can't be written, or must not be replaced. No file of this result is left then, and files of
        an earlier result are unchanged.
    """
    settings, model, summed, images = result.settings, result.model, result.summed_frames, result.images
    number_type = np.float16 if settings.save_float16 else np.float32
    files: Dict[str, str] = {}
    check = partial(check_replaceable, output_dir, root, result.movie, keep_others)
    with OutputFiles(output_dir, before_rename=check) as out:

        def new(key: str, ending: str) -> ContextManager[str]:
            files[key] = os.path.join(output_dir, root + ending)
            return out.file(root + ending)

        for key, ending, image, content in _micrographs(result):
            with new(key, ending) as path:
                write_mrc(path, image, result.micrograph_pixel_size_A, _labels(result, content, summed), number_type)
        if images.movie is not None:
            with new("aligned_movie", names.ALIGNED_MOVIE) as path:
                labels = _labels(result, "aligned frames", model.aligned_frames)
                write_mrc(path, images.movie, result.micrograph_pixel_size_A, labels, number_type)
        if images.amplitudes is not None:
            with new("amplitude_spectrum", names.AMPLITUDE_SPECTRUM) as path:
                labels = _labels(result, "amplitude spectrum, sum over groups of 4 e/A^2", summed)
                write_mrc(path, images.amplitudes.image, images.amplitudes.pixel_size_A, labels)

        if result.spectra is not None:
            corrected, uncorrected = result.spectra.corrected, result.spectra.uncorrected
            with new("psd", names.POWER_SPECTRUM) as path:
                labels = _labels(result, "power spectrum of the aligned mean", summed)
                write_mrc(path, corrected.power, settings.pixel_size, labels)
            with new("psd_image", names.POWER_SPECTRUM_PICTURE) as path:
                pictures.write_png(path, pictures.spectra(corrected.image, uncorrected.image))
        if settings.do_plots:
            # Imported only when needed, because importing matplotlib takes longer than drawing.
            from . import plots

            small = pictures.thumbnail(images.micrograph)
            with new("thumbnail", names.THUMBNAIL) as path:
                pictures.write_png(path, small)
            with new("plot_global", names.PLOT_GLOBAL) as path:
                plots.global_trajectory(path, model, result.figures)
            # Also if no local motion was found, because Scipion's tables have a column for it.
            if model.is_local or settings.do_local_alignment:
                with new("plot_local", names.PLOT_LOCAL) as path:
                    window = settings.crop_window(*model.frame_shape, result.movie)
                    plots.local_field(path, model, result.figures, window, small)
            if result.spectra is not None:
                with new("plot_psd", names.PLOT_SPECTRA) as path:
                    plots.spectra(path, result.spectra, result.figures, settings.pixel_size)

        with new("shifts_star", names.SHIFTS) as path:
            _write_text(path, star.star_text(result, PROGRAM, _gain_for_relion(result, output_dir)))
        sizes = {name[len(root) :]: size for name, size in out.sizes().items()}
        # The last file to appear: if it exists, all others are complete.
        with new("motion", names.MOTION) as path:
            _write_text(path, json_text(result_to_dict(result, sizes)))
    return files


def _micrographs(result: MovieResult) -> Iterator[Tuple[str, str, np.ndarray, str]]:
    """(key, file ending, image, content) of each micrograph to write."""
    settings, images = result.settings, result.images
    if not settings.do_save_ave_mic:
        return
    mean = f"mean of {len(result.summed_frames)} frames"
    weighted = "dose-weighted " if images.weighted is not None else ""
    if images.weighted is None or settings.do_save_unweighted_mic:
        yield "micrograph", names.MICROGRAPH, images.micrograph, mean
    if images.weighted is not None:
        yield "micrograph_dw", names.MICROGRAPH_WEIGHTED, images.weighted, weighted + mean
    if images.even is not None and images.odd is not None:
        yield "micrograph_even", names.MICROGRAPH_EVEN, images.even, weighted + "mean of the even frames"
        yield "micrograph_odd", names.MICROGRAPH_ODD, images.odd, weighted + "mean of the odd frames"


def _gain_for_relion(result: MovieResult, output_dir: str) -> Optional[str]:
    """File with the gain as it was applied, shared by all movies of the folder; None if the gain's file will do."""
    gain = result.turned_gain
    if gain is None:
        return None
    stem = os.path.splitext(os.path.basename(str(result.settings.gain)))[0]
    # The name depends on the content, because runs with other settings in the same folder need other files.
    path = os.path.join(output_dir, f"{stem}_relion_{zlib.crc32(np.ascontiguousarray(gain).data):08x}.mrc")
    if not os.path.exists(path):
        with atomic_path(path) as temporary:
            write_mrc(temporary, gain, result.settings.pixel_size, [f"gain as it was applied, {PROGRAM}"])
    return path


def _labels(result: MovieResult, content: str, frames: range) -> List[str]:
    return [f"{content}, {PROGRAM}", f"frames {frames.start + 1} to {frames.stop} of {os.path.basename(result.movie)}"]


def _write_text(path: str, text: str) -> None:
    # Names of files may have bytes that are not UTF-8.
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as f:
        f.write(text)
