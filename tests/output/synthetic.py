"""Movie results with known truth, made without an aligner: a plausible motion, images with simulated Thon rings."""

from __future__ import annotations

from typing import Any, Optional, Tuple

import numpy as np
import scipy.fft

from flexalign_plugin.correction.motion_correction import Images
from flexalign_plugin.correction.power_spectra import spectra_of
from flexalign_plugin.kernels.cpu import CpuBackend
from flexalign_plugin.motion.model import MotionModel
from flexalign_plugin.motion.relion_polynomial import fit_polynomial
from flexalign_plugin.quality.figures import Figures
from flexalign_plugin.quality.motion_size import largest_local_motion_px, path_length
from flexalign_plugin.result import MovieResult
from flexalign_plugin.settings import Settings


def motion_model(
    shape: Tuple[int, int] = (512, 512),
    n_frames: int = 30,
    first_frame: int = 0,
    n_aligned: Optional[int] = None,
    local_px: float = 6.0,
    drift_px: float = 9.0,
    pixel_size_A: float = 1.0,
    seed: int = 1,
) -> MotionModel:
    """Drift that starts fast and decays, with jitter, plus doming of up to about `local_px` (0: a global model)."""
    rng = np.random.default_rng(seed)
    n = n_aligned or n_frames - first_frame
    t = np.arange(n)
    decay = 1 - np.exp(-t / 6.0)
    drift = drift_px * decay[:, None] * np.array([0.8, -0.6]) + np.cumsum(rng.normal(0, 0.12, (n, 2)), axis=0)
    coefficients = None
    if local_px:
        kt, ky, kx = max(int(np.ceil(n / 7)) + 2, 3), 5, 6
        course = 1 - np.exp(-np.arange(kt) / (kt / 3.0))
        y, x = np.meshgrid(np.linspace(-1, 1, ky), np.linspace(-1, 1, kx), indexing="ij")
        dome = np.stack([y * (1 - 0.5 * x**2), x * (1 - 0.3 * y)]) * (0.4 + 0.6 * (x**2 + y**2) / 2)
        dome = dome + rng.normal(0, 0.06, dome.shape)
        coefficients = local_px * dome[:, None] * course[:, None, None]
    return MotionModel(shape, n_frames, first_frame, drift - drift[n // 2], coefficients, pixel_size_A)


def images(model: MotionModel, dose: float = 30.0, defocus_A: float = 12000.0) -> Tuple[np.ndarray, np.ndarray]:
    """(uncorrected, aligned), (ny, nx) float32: a specimen seen through a CTF and shot noise; the uncorrected one is
    blurred by the model's global motion."""
    ny, nx = model.frame_shape
    rng = np.random.default_rng(7)
    ky, kx = scipy.fft.fftfreq(ny)[:, None], scipy.fft.rfftfreq(nx)[None, :]
    k2 = (ky**2 + kx**2) / model.pixel_size_A**2
    wavelength, cs = 0.0197, 2.7e7
    # Astigmatism of 6 % on the diagonal shows whether pictures are mirrored.
    astigmatic = defocus_A * (1 + 0.06 * 2 * ky * kx / np.maximum(ky**2 + kx**2, 1e-12))
    phase = np.pi * wavelength * k2 * (astigmatic - 0.5 * wavelength**2 * cs * k2)
    transfer = -np.sin(phase + 0.07) * np.exp(-k2 * 60 / 4)
    spectrum = scipy.fft.rfft2(rng.standard_normal((ny, nx), dtype=np.float32))
    amplitude = 0.25 * np.sqrt(1 + 40 * np.exp(-k2 * 40**2))
    centres = np.zeros((ny, nx), np.float32)
    centres.flat[rng.integers(0, ny * nx, ny * nx // 40000)] = 1500.0
    particles = scipy.fft.rfft2(centres) * (np.exp(-k2 * 120**2) - 0.6 * np.exp(-k2 * 60**2))
    specimen = (spectrum * amplitude + particles) * transfer
    blur = np.zeros(specimen.shape, complex)
    for sy, sx in model.global_shifts_px:
        blur += np.exp(2j * np.pi * (ky * sy + kx * sx)) / model.n_aligned
    noise = rng.standard_normal((ny, nx), dtype=np.float32) / np.sqrt(dose)
    aligned = 1 + scipy.fft.irfft2(specimen, s=(ny, nx)) + noise
    uncorrected = 1 + scipy.fft.irfft2(specimen * blur, s=(ny, nx)) + noise
    return uncorrected.astype(np.float32), aligned.astype(np.float32)


def movie_result(model: Optional[MotionModel] = None, **settings: Any) -> MovieResult:
    """A result with everything that the settings select and that follows from model and images."""
    model = model or motion_model()
    uncorrected, aligned = images(model)
    settings.setdefault("dose_per_frame", 1.0)
    settings.setdefault("pixel_size", model.pixel_size_A)
    chosen = Settings(**settings)
    spectra = spectra_of(aligned, uncorrected, model.pixel_size_A, CpuBackend(1)) if chosen.do_compute_psd else None
    return MovieResult(
        movie="movies/movie_01.mrc",
        settings=chosen,
        model=model,
        summed_frames=model.aligned_frames,
        images=Images(full=aligned, micrograph=aligned),
        spectra=spectra,
        polynomial=fit_polynomial(model) if model.is_local else None,
        figures=figures_of(model, chosen),
        timings_s={"read": {"wall": 1.0, "cpu": 0.8}},
    )


def figures_of(model: MotionModel, settings: Settings) -> Figures:
    path = path_length(model, settings.dose_after(model.aligned_frames), settings.pre_exposure)
    return Figures(
        pairs_rejected=0.03,
        accumulated_motion_total_A=path.total_A,
        accumulated_motion_early_A=path.early_A,
        accumulated_motion_late_A=path.late_A,
        local_motion_max_px=largest_local_motion_px(model),
    )
