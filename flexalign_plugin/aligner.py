"""FlexAlign, the table of contents: one movie in, one `MovieResult` out.

Read top to bottom beside Strelak et al. 2020 (Electronics 9:1040): correction of the detector, global alignment
(section 2.1.1), local alignment (2.1.2), correction of the motion (2.1.3). Each step is a call into the module of
that name.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np

from .errors import MovieError
from .kernels.backend import FrameSource
from .micrographs.frc import halves_figures
from .micrographs.psd import power_spectrum
from .motion.band import correlation_band
from .motion.band_movie import BandMovie
from .motion.bspline import basis
from .motion.confidence import confidence_figures, motion_doubts
from .motion.global_alignment import GlobalAlignment, align_globally, refine_globally, signal_end_A
from .motion.limits import FINE_DETAIL_A, START_SHIFT_A, Limits, limit_notes, limits
from .motion.local_alignment import LocalAlignment, align_locally
from .motion.magnification import resampling_model
from .motion.model import MotionModel
from .motion.patches import lay_patches
from .motion.spline_fit import automatic_control_points
from .motion_correction import Images, MovedFrames, correct_motion
from .movies import Corrections, Movie, find_hot_pixels, load_corrections, neighbour_table, replace_defects
from .movies.gain_orientation import orientation_warnings
from .result import MovieResult
from .settings import Settings

Progress = Callable[[str, float], None]
NAMED_FRAMES = 5  # in an error; more are only counted


def align(
    movie: Movie,
    settings: Settings,
    backend: Any,
    corrections: Optional[Corrections] = None,
    progress: Optional[Progress] = None,
) -> MovieResult:
    """Align one movie.

    Parameters
    ----------
    movie : from `movies.open_movie`.
    backend : from `kernels.select_backend`.
    corrections : gain, dark and defects, read from the settings' files when None.
    progress : called with the name of each stage and the fraction of the work that is done before it.

    Raises
    ------
    MovieError, CorrectionError, SettingsError : with the sentence for the user.
    """
    clock = Clock(progress)
    n_frames, ny, nx = movie.shape
    aligned, summed = settings.frame_ranges(n_frames, movie.path)
    window = settings.crop_window(ny, nx, movie.path)
    notes: List[str] = list(movie.notes)
    warnings: List[str] = []

    if settings.do_apply_dose_filter and not settings.is_dose_weighted:
        notes.append("No dose weighting: the dose per frame is not known.")
    with clock.stage("references", 0.0):
        if corrections is None:
            corrections = load_corrections(movie, settings)
        notes += corrections.notes
    with clock.stage("read and sum", 0.02):
        source, uncorrected, fill = _look_at_sum(movie, backend, corrections, aligned, settings, notes, warnings)
    with clock.stage("spectra", 0.08):
        correlated = backend.frame_fft_size(ny, nx, len(aligned))
        bounds = limits(settings, correlated)
        frames = _spectra(backend, source, aligned, correlated, settings.pixel_size, bounds)
    with clock.stage("global alignment", 0.3):
        overall = align_globally(frames, bounds.max_res_A, bounds.max_shift_A, bounds.growing)
        if bounds.coarser_A and signal_end_A(frames, overall) > FINE_DETAIL_A:
            bounds = dataclasses.replace(bounds, max_res_A=bounds.coarser_A)
            del frames
            frames = _spectra(backend, source, aligned, correlated, settings.pixel_size, bounds)
            overall = align_globally(frames, bounds.max_res_A, bounds.max_shift_A, bounds.growing)
        notes += limit_notes(settings, bounds, overall.max_shift_A)
    with clock.stage("local alignment", 0.45):
        wanted = settings.do_local_alignment and overall.believed
        local = _local(frames, overall, settings, bounds, notes) if wanted else None
        if local is None and overall.believed and settings.do_refinement:
            overall = refine_globally(frames, overall)
        del frames
    model = motion_model((ny, nx), n_frames, aligned.start, overall, local, settings.pixel_size)
    trust = confidence_figures(overall, local, model, settings.dose_per_frame)
    warnings += _doubts(overall, len(aligned), settings) + motion_doubts(trust, model)
    resampling = resampling_model(model, settings)
    with clock.stage("motion correction", 0.65):
        images = correct_motion(MovedFrames(backend, source, resampling, fill), summed, window, settings)
    spectra = None
    if settings.do_compute_psd:
        with clock.stage("power spectra", 0.9):
            spectra = power_spectrum(images.full, backend=backend), power_spectrum(uncorrected, backend=backend)
    return MovieResult(
        movie=movie.path,
        settings=settings,
        model=model,
        summed_frames=summed,
        images=images,
        micrograph_pixel_size_A=settings.pixel_size * settings.output_binning,
        uncorrected=uncorrected,
        spectra=spectra,
        quality={
            "correlated_area_px": list(correlated),
            "max_res_for_correlation_A": bounds.max_res_A,
            "max_shift_A": overall.max_shift_A,
            **_quality(overall, local, resampling),
            **trust,
            **_defects(corrections, source),
            **_halves(images, resampling, settings),
        },
        warnings=warnings,
        notes=notes,
        timings_s=clock.timings,
        defects_px=_defects_px(source),
        turned_gain=None if corrections.plain_gain else corrections.gain,
        hardware_frames=movie.hardware_frames_per_frame,
    )


class Clock:
    """Wall and CPU seconds of each stage; tells the progress as stages begin."""

    def __init__(self, progress: Optional[Progress] = None):
        self.timings: Dict[str, Dict[str, float]] = {}
        self._progress = progress

    @contextmanager
    def stage(self, name: str, done: float) -> Iterator[None]:
        if self._progress:
            self._progress(name, done)
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.timings[name] = {
            "wall": round(time.perf_counter() - wall, 3),
            "cpu": round(time.process_time() - cpu, 3),
        }


def _look_at_sum(
    movie: Movie,
    backend: Any,
    corrections: Corrections,
    aligned: range,
    settings: Settings,
    notes: List[str],
    warnings: List[str],
) -> Tuple[FrameSource, np.ndarray, np.ndarray]:
    """Frames with their corrections, hot pixels included; the mean without motion correction; each frame's mean."""
    plain = FrameSource(movie, corrections.dark, corrections.gain, None)
    total, means = backend.sum_raw(plain, aligned)
    broken = _frame_list(aligned, ~np.isfinite(means))
    if broken:
        raise MovieError(
            f"{movie.path}: {broken} holds pixels that are not numbers (NaN or infinite): "
            "the file is damaged, write it again or leave these frames out of the range to align."
        )
    empty = _frame_list(aligned, means == 0)
    if empty:
        raise MovieError(
            f"{movie.path}: {empty} is empty (all pixels are 0): "
            "check the recording, or leave these frames out of the range to align."
        )
    total /= len(aligned)
    warnings += orientation_warnings(total, corrections, settings)
    mean = total if plain.dark is None and plain.gain is None else backend.correct(plain, total)
    defects = corrections.defects
    if settings.remove_hot_pixels:
        hot = find_hot_pixels(mean, defects)
        count = np.count_nonzero(hot)
        if count:
            notes.append(f"{count} hot or dead pixels were found in the movie and replaced.")
        defects = hot if defects is None else hot | defects
    if defects is not None and defects.any():
        source = dataclasses.replace(plain, defects=neighbour_table(defects))
        replace_defects(mean, source.defects)
    else:
        source = plain
    dark = 0.0 if corrections.dark is None else float(corrections.dark.mean())
    level = float(means.mean()) - dark
    fill = (means - dark) * (float(mean.mean()) / level if level else 1.0)
    return source, mean, fill


def _spectra(
    backend: Any, source: FrameSource, aligned: range, area: Tuple[int, int], pixel_size_A: float, bounds: Limits
) -> BandMovie:
    """The frames as far as they are compared; `area` (fy, fx) is the part of them that is transformed."""
    band = correlation_band(area, pixel_size_A, bounds.max_res_A)
    _, ny, nx = source.movie.shape
    return BandMovie(backend, backend.spectra(source, aligned, band), band, len(aligned), (ny, nx), pixel_size_A)


def _frame_list(aligned: range, which: np.ndarray) -> str:
    """The marked frames in words, numbered from 1; empty when there are none."""
    numbers = [str(aligned[k] + 1) for k in np.flatnonzero(which)]
    if len(numbers) > NAMED_FRAMES:
        return f"frame {', '.join(numbers[:NAMED_FRAMES])} and {len(numbers) - NAMED_FRAMES} more"
    return f"frame {', '.join(numbers)}" if numbers else ""


def _local(
    frames: BandMovie, overall: GlobalAlignment, settings: Settings, bounds: Limits, notes: List[str]
) -> Optional[LocalAlignment]:
    """Local alignment, or None with a note when the frame is too small for it."""
    counts = None if settings.auto_patches else (settings.patches_y, settings.patches_x)
    layout = lay_patches(frames, overall.shifts_px, settings.min_local_res, counts)
    if layout is None:
        notes.append(
            f"No local alignment: the area that all frames share has no room for two patches of "
            f"{settings.min_local_res:g} A on each axis; smaller ones need a strong signal (--min-local-res)."
        )
        return None
    if settings.auto_control_points:
        points = automatic_control_points(frames.frame_shape, settings.pixel_size, frames.n)
    else:
        points = (settings.control_point_t, settings.control_point_y, settings.control_point_x)
    local = align_locally(
        frames,
        layout,
        overall,
        bounds.max_res_A,
        bounds.max_shift_A,
        settings.group_n_frames,
        points,
        settings.do_refinement,
        settings.auto_control_points,
    )
    if local.coefficients_px is None:
        notes.append("No local motion was found that rises above the noise: the global alignment is used everywhere.")
    return local


def motion_model(
    frame_shape: Tuple[int, int],
    n_frames: int,
    first: int,
    overall: GlobalAlignment,
    local: Optional[LocalAlignment],
    pixel_size_A: float,
) -> MotionModel:
    """Global shifts and field in one model, zero everywhere in the reference frame."""
    shifts, coefficients = overall.shifts_px, None
    if local is not None:
        shifts = local.shifts_px
        if local.coefficients_px is not None:
            kt = local.coefficients_px.shape[1]
            at_reference = basis(kt, len(shifts) - 1, np.array([overall.reference]))[0]
            # The temporal basis sums to 1: taking a field off all control points takes it off all frames.
            still = np.einsum("l,alyx->ayx", at_reference, local.coefficients_px)
            coefficients = local.coefficients_px - still[:, None]
    shifts = shifts - shifts[overall.reference]
    return MotionModel(frame_shape, n_frames, first, shifts, coefficients, pixel_size_A)


def _halves(images: Images, model: MotionModel, settings: Settings) -> Dict[str, Any]:
    """How well the means of even and odd frames agree, if they were made."""
    if images.even is None or images.odd is None:
        return {}
    pixel_size = settings.pixel_size * settings.output_binning
    return halves_figures(images.even, images.odd, pixel_size, max(_border(model)) / settings.output_binning)


def _border(model: MotionModel) -> Tuple[float, float, float, float]:
    """Widths in pixels, on the sides of the first and last row and column, that not all frames cover."""
    ny, nx = model.frame_shape
    edge_y, edge_x = np.linspace(0, ny - 1, 9), np.linspace(0, nx - 1, 9)
    sy, sx = model.shift(np.array(model.aligned_frames, float)[:, None, None], edge_y[:, None], edge_x[None, :])
    return max(sy.max(), 0), max(-sy.min(), 0), max(sx.max(), 0), max(-sx.min(), 0)


def _doubts(overall: GlobalAlignment, n: int, settings: Settings) -> List[str]:
    """Sentences about what may be wrong with the alignment."""
    doubts = []
    if not overall.believed:
        return [
            "No motion could be measured: the movie holds no image or too little signal. Its frames were summed as "
            "they are; look at the micrograph before you use it."
        ]
    if overall.by_search:
        doubts.append(
            f"Little signal: {overall.rejected:.0%} of the frame pairs contradict each other, so that the motion was "
            "searched over all of them at once. Treat it with care."
        )
    elif overall.on_rim > 0.1:
        doubts.append(
            f"For {overall.on_rim:.0%} of the frame pairs no shift was found within the search range: "
            f"the maximum shift of {overall.max_shift_A:.0f} A may be too small."
        )
    steps = np.linalg.norm(np.diff(overall.shifts_px, axis=0), axis=1) * settings.pixel_size
    usual = settings.max_shift or START_SHIFT_A
    if n > 2 and steps.max() > usual:
        what = f"the maximum shift of {usual:g} A" if settings.max_shift else f"the usual {usual:g} A at most"
        doubts.append(
            f"Frame {int(steps.argmax()) + 2} of the aligned range jumps by {steps.max():.0f} A, more than {what}: "
            "see its plot, and leave jumping frames at the beginning out."
        )
    return doubts


def _defects_px(source: FrameSource) -> np.ndarray:
    table = source.defects
    return np.zeros((0, 2), np.int32) if table is None else np.stack([table.rows, table.cols], axis=1)


def _defects(corrections: Corrections, source: FrameSource) -> Dict[str, Any]:
    """How many pixels are replaced, and how many each source marks."""
    replaced = len(_defects_px(source))
    known = 0 if corrections.defects is None else int(np.count_nonzero(corrections.defects))
    return {"pixels_replaced": replaced, "defects": {**corrections.counts, "hot_or_dead": replaced - known}}


def _rounded(fractions: Optional[np.ndarray]) -> Optional[List[float]]:
    return None if fractions is None else np.round(fractions, 3).tolist()


def _quality(overall: GlobalAlignment, local: Optional[LocalAlignment], model: MotionModel) -> Dict[str, Any]:
    """Figures of the fit, documented in docs/outputs.md."""
    border = _border(model)
    figures: Dict[str, Any] = {
        "reference_frame": overall.reference + model.first_frame + 1,
        "pairs_rejected": overall.rejected,
        "frame_pairs_rejected": _rounded(overall.frames_rejected),
        "pairs_on_rim": overall.on_rim,
        "pair_residual_px": overall.residual_px,
        "pair_significance": overall.significance,
        "uncovered_border_px": {
            name: float(width) for name, width in zip(("top_row_side", "last_row_side", "left", "right"), border)
        },
    }
    if local is not None:
        figures.update(
            patches=list(local.layout.counts),
            patch_centres_px=np.round(local.layout.centres_px, 2).tolist(),
            patch_shifts_px=np.round(local.patch_shifts_px, 3).tolist(),
            patch_pairs_rejected=local.rejected,
            patches_rejected=_rounded(local.patches_rejected),
            control_points=None if local.coefficients_px is None else list(local.coefficients_px.shape[1:]),
            local_log_evidence=local.log_evidence,
        )
    return figures
