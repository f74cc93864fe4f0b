"""The alignment of one movie: `align` turns a movie into a `MovieResult`.

It is the table of contents of FlexAlign, in the order of Strelak et al. 2020 (Electronics 9:1040): detector correction,
global alignment (section 2.1.1), local alignment (section 2.1.2) and motion correction with the spline of equation 4.
Each step is one call into the package that implements it.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from typing import Callable, Dict, Iterator, List, Optional

import numpy as np

from .backend import Backend
from .correction.magnification import resampling_model
from .correction.motion_correction import Images, MovedFrames, correct_motion, uncovered_border
from .correction.power_spectra import Spectra, spectra_of
from .motion.estimation import EstimationOptions, estimate_motion
from .motion.model import MotionModel
from .motion.relion_polynomial import PolynomialFit, fit_polynomial, residual_warnings
from .movies import Corrections, Movie, load_corrections, settings_of_frames
from .movies.exposure import contradictions, no_dose_note
from .movies.inspection import Inspection, check_size, inspect
from .quality.figures import Figures
from .quality.frc import halves_agreement
from .quality.judgement import judge, with_doses
from .quality.thon_rings import thon_rings
from .result import KnownMotion, MovieResult
from .settings import MIDDLE_MOST, Settings

Progress = Callable[[str, float], None]


def align(
    movie: Movie,
    settings: Settings,
    backend: Backend,
    corrections: Optional[Corrections] = None,
    progress: Optional[Progress] = None,
    known: Optional[KnownMotion] = None,
) -> MovieResult:
    """Align one movie.

    Parameters
    ----------
    movie : from `movies.open_movie`.
    backend : from `kernels.select_backend`.
    corrections : gain, dark and defects; None: read from the files that the settings name.
    progress : called with the name of each stage and the fraction of the work that is done before it.
    known : the motion if it was measured before; None: it is measured.

    Raises
    ------
    MovieError : the movie can't be read or aligned.
    CorrectionError : the gain, dark or a defect file can't be used.
    SettingsError : the settings do not suit the movie.
    """
    clock = Clock(progress)
    given, settings = settings, settings_of_frames(movie, settings)
    n_frames, ny, nx = movie.shape
    check_size(movie)
    aligned, summed = settings.frame_ranges(n_frames, movie.path)
    window = settings.crop_window(ny, nx, movie.path)
    settings.check_field(ny, nx, movie.path)
    settings.check_doses(n_frames, movie.path)
    settings.check_control_points(ny, nx, movie.path)

    with clock.stage("gain, dark and defects", 0.0):
        corrections = corrections or load_corrections(movie, settings)
    with clock.stage("read and sum", 0.02):
        seen = inspect(movie, backend, corrections, aligned, settings)
    if known is None:
        motion = _measured(backend, seen, aligned, settings, clock)
    else:
        doses = settings.dose_after(aligned), settings.pre_exposure
        motion = replace(known, figures=with_doses(known.figures, known.model, *doses))
    resampling = resampling_model(motion.model, settings)
    scale = float(movie.upsampling**2)  # a finer grid has fewer counts in a pixel, but the same per area
    with clock.stage("motion correction", 0.65):
        moved = MovedFrames(backend, seen.source, resampling, seen.fill, scale)
        images = correct_motion(moved, summed, window, settings)
    spectra = None
    if settings.do_compute_psd:
        with clock.stage("power spectra", 0.9):
            uncorrected = seen.mean if scale == 1 else seen.mean * np.float32(scale)
            spectra = spectra_of(images.full, uncorrected, settings.pixel_size, backend)
    polynomial = fit_polynomial(motion.model) if motion.model.is_local else None

    return MovieResult(
        movie=movie.path,
        settings=settings,
        given=given,
        model=motion.model,
        summed_frames=summed,
        images=images,
        spectra=spectra,
        polynomial=polynomial,
        figures=_figures(motion.figures, seen, resampling, images, spectra, polynomial, settings),
        # Each once: the warnings on a known motion may hold some of the others.
        warnings=list(
            dict.fromkeys(
                [*movie.warnings, *contradictions(movie, given), *seen.warnings, *motion.warnings]
                + residual_warnings(polynomial, settings.pixel_size)
            )
        ),
        notes=_notes(movie, given, corrections, seen) + motion.notes,
        timings_s=clock.timings,
        defects_px=seen.defects_px,
        turned_gain=None if corrections.plain_gain else corrections.gain,
        hardware_frames=movie.hardware_frames_per_frame,
        facts=seen.facts,
    )


class Clock:
    """Measures wall and CPU seconds of each stage and reports the progress when a stage starts."""

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


def _measured(backend: Backend, seen: Inspection, aligned: range, settings: Settings, clock: Clock) -> KnownMotion:
    """The motion of the frames `aligned`, measured and judged."""
    estimate = estimate_motion(backend, seen.source, aligned, _options(settings), clock.stage)
    judgement = judge(estimate, settings.max_shift, settings.dose_after(aligned), settings.pre_exposure)
    notes = list(estimate.notes)
    if estimate.local is None and judgement.figures.global_error_px is not None:
        notes.append(
            "Local motion was not measured, so the expected error of the motion is not known. That of the whole-frame "
            f"shifts alone is {judgement.figures.global_error_px:.2f} px; local motion is often ten times as large."
        )
    return KnownMotion(estimate.model, judgement.figures, judgement.warnings, notes)


def _options(settings: Settings) -> EstimationOptions:
    """The settings of the motion estimate; `motion` does not depend on `Settings`."""
    points = (settings.control_point_t, settings.control_point_y, settings.control_point_x)
    return EstimationOptions(
        pixel_size_A=settings.pixel_size,
        max_res_A=settings.max_res_for_correlation,
        max_shift_A=settings.max_shift,
        local=settings.do_local_alignment,
        patch_A=settings.min_local_res,
        patches=None if settings.auto_patches else (settings.patches_y, settings.patches_x),
        group=settings.group_n_frames,
        control_points=None if settings.auto_control_points else points,
        refine=settings.do_refinement,
        middle_most=settings.reference_frame == MIDDLE_MOST,
    )


def _figures(
    figures: Figures,
    seen: Inspection,
    resampling: MotionModel,
    images: Images,
    spectra: Optional[Spectra],
    polynomial: Optional[PolynomialFit],
    settings: Settings,
) -> Figures:
    """The figures of the alignment, with those of defects and images added."""
    border = uncovered_border(resampling)
    figures = replace(
        figures,
        uncovered_border_px=border._asdict(),
        pixels_replaced=len(seen.defects_px),
        defects=seen.defect_counts,
        counted_dose_A2=seen.facts.counted_A2,
        mean_intensity=float(seen.mean.mean(dtype="f8")),
    )
    if images.even is not None and images.odd is not None:
        rim = max(border) / settings.output_binning
        halves = halves_agreement(images.even, images.odd, settings.micrograph_pixel_size, rim)
        figures = replace(
            figures,
            frc_frequency_per_A=halves.frequency_per_A,
            frc=halves.correlation,
            frc_0143_A=halves.finest_0143_A,
            frc_05_A=halves.finest_05_A,
        )
    if spectra is not None:
        profiles = {"corrected": spectra.corrected, "uncorrected": spectra.uncorrected}
        figures = replace(figures, psd_profile={k: s.profile.round(3).tolist() for k, s in profiles.items()})
        rings = {k: thon_rings(s.halves) for k, s in profiles.items() if s.halves is not None}
        if rings:
            figures = replace(
                figures,
                thon_rings_A=rings["corrected"].seen_to_A,
                thon_rings_uncorrected_A=rings["uncorrected"].seen_to_A,
                thon_ring_correlation={k: r.correlation for k, r in rings.items()},
            )
    if polynomial is not None:
        figures = replace(figures, relion_fit_rms_px=polynomial.rms_px, relion_fit_max_px=polynomial.max_px)
    return figures


def _notes(movie: Movie, settings: Settings, corrections: Corrections, seen: Inspection) -> List[str]:
    """Notes for the user on what was done before the motion was measured."""
    notes = [*movie.notes, *movie.damage()]
    if settings.do_apply_dose_filter and not settings.is_dose_weighted:
        notes.append(no_dose_note(movie, settings))
    return notes + corrections.notes + seen.notes
