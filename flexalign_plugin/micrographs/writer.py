"""All files of one movie, written together or not at all."""

from __future__ import annotations

import os
from typing import ContextManager, Dict, List

from .. import __version__
from ..result import MovieResult
from . import pictures, psd, star
from .files import OutputFiles
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
    {what: path} of the files written; keys: micrograph, aligned_movie, psd, psd_image, plot_psd, plot_global,
    plot_local, thumbnail, shifts_star, motion.

    Raises
    ------
    OutputError : a file can't be written. No file of this result is left then, and an earlier result's files are as
        they were.
    """
    settings, model, summed = result.settings, result.model, result.summed_frames
    files: Dict[str, str] = {}
    with OutputFiles(output_dir) as out:

        def new(what: str, ending: str) -> ContextManager[str]:
            files[what] = os.path.join(output_dir, root + ending)
            return out.file(root + ending)

        pixel_size = result.micrograph_pixel_size_A
        if settings.do_save_ave_mic:
            with new("micrograph", "_aligned_mic.mrc") as path:
                labels = _labels(result, f"mean of {len(summed)} frames", summed)
                write_mrc(path, result.micrograph, pixel_size, labels)
        if settings.do_save_movie and result.aligned_movie is not None:
            with new("aligned_movie", "_aligned_movie.mrcs") as path:
                write_mrc(
                    path, result.aligned_movie, pixel_size, _labels(result, "aligned frames", model.aligned_frames)
                )

        small = pictures.thumbnail(result.micrograph) if settings.do_plots else None
        if settings.do_compute_psd:
            corrected, uncorrected = psd.power_spectrum(result.aligned), psd.power_spectrum(result.uncorrected)
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
            if model.is_local:
                with new("plot_local", "_plot_local.png") as path:
                    plots.local_field(path, model, settings, small)
            if settings.do_compute_psd:
                with new("plot_psd", "_plot_psd.png") as path:
                    plots.spectra(path, corrected, uncorrected, settings.pixel_size)

        result.quality.update(motion_figures(model, settings))
        fit = star.fit_polynomial(model) if model.is_local else None
        if fit is not None:
            result.quality.update(relion_fit_rms_px=fit.rms_px, relion_fit_max_px=fit.max_px)
        with new("shifts_star", "_shifts.star") as path:
            _write_text(path, star.star_text(model, settings, result.movie, PROGRAM, fit))
        # Last, and so the last to appear: where this file is, the others are complete.
        with new("motion", "_motion.json") as path:
            _write_text(path, json_text(result_to_dict(result)))
    return files


def _labels(result: MovieResult, content: str, frames: range) -> List[str]:
    return [f"{content}, {PROGRAM}", f"frames {frames.start + 1} to {frames.stop} of {os.path.basename(result.movie)}"]


def _write_text(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)
