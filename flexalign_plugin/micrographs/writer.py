"""All files of one movie, written together or not at all."""

from __future__ import annotations

import os
import zlib
from typing import ContextManager, Dict, Iterator, List, Optional, Tuple

import numpy as np

from .. import __version__
from ..result import MovieResult
from . import pictures, psd, star
from .files import OutputFiles, atomic_path
from .motion_json import json_text, result_to_dict
from .mrc import write_mrc
from .quality import motion_figures

PROGRAM = f"FlexAlign {__version__}"


def write_result(result: MovieResult, output_dir: str, root: str) -> Dict[str, str]:
    """Write every file that the settings ask for, see docs/outputs.md.

    The figures of `quality.motion_figures` and of the fit for RELION are added to `result.quality`.
    FFTs use as many threads as `scipy.fft.set_workers` allows.

    Parameters
    ----------
    output_dir : created if missing.
    root : start of all file names.

    Returns
    -------
    {what: path} of the files written; keys: micrograph, micrograph_dw, micrograph_even, micrograph_odd, aligned_movie,
    amplitude_spectrum, psd, psd_image, plot_psd, plot_global,
    plot_local, thumbnail, shifts_star, motion.

    Raises
    ------
    OutputError : a file can't be written. No file of this result is left then, and an earlier result's files are as
        they were.
    """
    settings, model, summed, images = result.settings, result.model, result.summed_frames, result.images
    number_type = np.float16 if settings.save_float16 else np.float32
    files: Dict[str, str] = {}
    with OutputFiles(output_dir) as out:

        def new(what: str, ending: str) -> ContextManager[str]:
            files[what] = os.path.join(output_dir, root + ending)
            return out.file(root + ending)

        for what, ending, image, content in _micrographs(result):
            with new(what, ending) as path:
                write_mrc(path, image, result.micrograph_pixel_size_A, _labels(result, content, summed), number_type)
        if images.movie is not None:
            with new("aligned_movie", "_aligned_movie.mrcs") as path:
                labels = _labels(result, "aligned frames", model.aligned_frames)
                write_mrc(path, images.movie, result.micrograph_pixel_size_A, labels, number_type)
        if images.amplitudes is not None:
            with new("amplitude_spectrum", "_PS.mrc") as path:
                labels = _labels(result, "amplitude spectrum, sum over groups of 4 e/A^2", summed)
                write_mrc(path, images.amplitudes, settings.pixel_size, labels)

        small = pictures.thumbnail(images.micrograph) if settings.do_plots else None
        if settings.do_compute_psd:
            if result.spectra is None:
                result.spectra = psd.power_spectrum(images.full), psd.power_spectrum(result.uncorrected)
            corrected, uncorrected = result.spectra
            result.quality["psd_profile"] = {
                "corrected": psd.flattened(corrected)[1].round(3).tolist(),
                "uncorrected": psd.flattened(uncorrected)[1].round(3).tolist(),
            }
            with new("psd", "_psd.mrc") as path:
                write_mrc(
                    path, corrected, settings.pixel_size, _labels(result, "power spectrum of the aligned mean", summed)
                )
            with new("psd_image", "_psd.png") as path:
                pictures.write_png(path, psd.composite(psd.flattened(corrected)[0], psd.flattened(uncorrected)[0]))
        if small is not None:
            # Matplotlib takes longer to import than to draw with: only when there is something to draw.
            from . import plots

            with new("thumbnail", "_thumbnail.png") as path:
                pictures.write_png(path, small)
            with new("plot_global", "_plot_global.png") as path:
                plots.global_trajectory(path, model, settings)
            if model.is_local or settings.do_local_alignment:  # also where none was found: tables have a column of it
                with new("plot_local", "_plot_local.png") as path:
                    plots.local_field(path, model, settings, small)
            if settings.do_compute_psd:
                with new("plot_psd", "_plot_psd.png") as path:
                    plots.spectra(path, corrected, uncorrected, settings.pixel_size)

        result.quality.update(motion_figures(model, settings))
        fit = star.fit_polynomial(model) if model.is_local else None
        if fit is not None:
            result.quality.update(relion_fit_rms_px=fit.rms_px, relion_fit_max_px=fit.max_px)
            result.warnings += star.residual_warning(fit, settings.pixel_size)
        with new("shifts_star", "_shifts.star") as path:
            gain = _gain_for_relion(result, output_dir)
            text = star.star_text(
                model, settings, result.movie, PROGRAM, fit, result.defects_px, result.hardware_frames, gain
            )
            _write_text(path, text)
        # Last, and so the last to appear: where this file is, the others are complete.
        with new("motion", "_motion.json") as path:
            _write_text(path, json_text(result_to_dict(result)))
    return files


def _micrographs(result: MovieResult) -> Iterator[Tuple[str, str, np.ndarray, str]]:
    """(key, file ending, image, content) of each micrograph that is to be written."""
    settings, images = result.settings, result.images
    if not settings.do_save_ave_mic:
        return
    mean = f"mean of {len(result.summed_frames)} frames"
    weighted = "dose-weighted " if images.weighted is not None else ""
    if images.weighted is None or settings.do_save_unweighted_mic:
        yield "micrograph", "_aligned_mic.mrc", images.micrograph, mean
    if images.weighted is not None:
        yield "micrograph_dw", "_aligned_mic_DW.mrc", images.weighted, weighted + mean
    if images.even is not None and images.odd is not None:
        yield "micrograph_even", "_aligned_mic_EVN.mrc", images.even, weighted + "mean of the even frames"
        yield "micrograph_odd", "_aligned_mic_ODD.mrc", images.odd, weighted + "mean of the odd frames"


def _gain_for_relion(result: MovieResult, output_dir: str) -> Optional[str]:
    """File with the gain as it was applied, one for all movies of the folder; None if the gain's own file will do."""
    gain = result.turned_gain
    if gain is None:
        return None
    stem = os.path.splitext(os.path.basename(str(result.settings.gain)))[0]
    # Named after its content: runs with other settings in the same folder have theirs.
    path = os.path.join(output_dir, f"{stem}_relion_{zlib.crc32(np.ascontiguousarray(gain).data):08x}.mrc")
    if not os.path.exists(path):
        with atomic_path(path) as temporary:
            write_mrc(temporary, gain, result.settings.pixel_size, [f"gain as it was applied, {PROGRAM}"])
    return path


def _labels(result: MovieResult, content: str, frames: range) -> List[str]:
    return [f"{content}, {PROGRAM}", f"frames {frames.start + 1} to {frames.stop} of {os.path.basename(result.movie)}"]


def _write_text(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)
