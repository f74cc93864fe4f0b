"""Volumes that `particles.py` aligns images of: five shapes, symmetric ones, and real maps."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from typing import Tuple

import mrcfile
import numpy as np
from scipy import fft

from flexalign_plugin.particles.simulate import RESIDUE_A, beads, chains

SOURCE = "ccpem-utils==0.0.1.dev35"  # its source package contains the two maps, under the BSD licence
MAPS = {"EMD-11007": "emd_11007.map", "EMD-3488": "emd_3488.mrc"}
RESIDUES = 3500
MATES_APART_A = 18.0  # domains nearer to their symmetry mates than about the resolution would merge into a sphere
Volume = Tuple[np.ndarray, float, float]  # (box, box, box), pixel size in A, diameter in A


def shape(name: str, seed: int, workdir: str) -> Volume:
    """One of the five shapes, in a box of 64 pixels."""
    rng, box, pixel = np.random.default_rng(seed), 64, 4.0
    if name == "several domains":
        return chains(box, pixel, 146.0, RESIDUES, seed), pixel, 146.0
    if name == "flat":
        return chains(box, pixel, 146.0, RESIDUES, seed, flatness=0.35), pixel, 146.0
    if name == "long and curved":
        return beads(_hook(rng, 170.0), box, pixel), pixel, 170.0
    if name == "nearly C2":
        return beads(_nearly_c2(rng, 146.0), box, pixel), pixel, 146.0
    return real_map("EMD-11007", box, workdir)


def symmetric(group: np.ndarray, seed: int) -> Volume:
    """A volume with a symmetry, in a box of 64 pixels."""
    rng = np.random.default_rng(seed)
    share = RESIDUES // (4 * len(group))
    unit = np.concatenate([_walk(rng, share, _off_the_axes(rng, 73.0, group), 20.0) for _ in range(4)])
    return beads(np.concatenate([unit @ g.T for g in group]), 64, 4.0), 4.0, 146.0


def with_noise(
    density: np.ndarray, pixel_A: float, diameter_A: float, resolution_A: float, correlation: float, seed: int
) -> np.ndarray:
    """A volume with white noise in the particle's ball: two of these have this correlation at the resolution."""
    n = len(density)
    frequency = np.fft.fftfreq(n, 1 / n)
    radius = np.sqrt(frequency[:, None, None] ** 2 + frequency[:, None] ** 2 + frequency**2)
    power = np.abs(fft.fftn(density)) ** 2
    signal = power[np.rint(radius) == round(n * pixel_A / resolution_A)].mean()
    variance = signal * (1 - correlation) / correlation / n**3
    z, y, x = np.indices(density.shape) - n // 2
    ball = x**2 + y**2 + z**2 <= (diameter_A / pixel_A / 2) ** 2
    # The transform of noise in a ball has the power of the ball's share of the box.
    noise = np.random.default_rng(seed).normal(scale=np.sqrt(variance / ball.mean()), size=density.shape)
    return (density + noise * ball).astype(np.float32)


def real_map(name: str, box: int, workdir: str) -> Volume:
    """A map from the EMDB, cropped in Fourier space to the box. Fetched from the package index the first time."""
    path = os.path.join(workdir, MAPS[name])
    if not os.path.exists(path):
        _fetch(workdir)
    with mrcfile.open(path, permissive=True) as file:
        density, pixel = np.array(file.data, np.float32), float(file.voxel_size.x)
    n = len(density)
    middle = slice(n // 2 - box // 2, n // 2 - box // 2 + box)
    spectrum = fft.fftshift(fft.fftn(density))[middle, middle, middle]
    volume = fft.ifftn(fft.ifftshift(spectrum)).real * (box / n) ** 3
    return volume.astype(np.float32), pixel * n / box, 150.0 if name == "EMD-11007" else 65.0


def _fetch(workdir: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--dest", workdir, SOURCE]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (package,) = [name for name in os.listdir(workdir) if name.startswith("ccpem_utils") and name.endswith(".tar.gz")]
    with tarfile.open(os.path.join(workdir, package)) as archive:
        for member in archive.getmembers():
            if os.path.basename(member.name) in MAPS.values():
                member.name = os.path.basename(member.name)
                archive.extract(member, workdir)
    os.remove(os.path.join(workdir, package))


def _walk(rng: np.random.Generator, n: int, centre: np.ndarray, radius_A: float) -> np.ndarray:
    """A random walk of n residues that stays within a ball."""
    at, points = np.zeros(3), np.empty((n, 3))
    for i in range(n):
        step = rng.normal(size=3)
        moved = at + RESIDUE_A * step / np.linalg.norm(step)
        if np.linalg.norm(moved) > radius_A:
            moved = at - RESIDUE_A * at / np.linalg.norm(at)
        points[i] = at = moved
    return points + centre


def _within(rng: np.random.Generator, radius_A: float) -> np.ndarray:
    direction = rng.normal(size=3)
    return direction * radius_A * rng.uniform(0.3, 0.7) / np.linalg.norm(direction)


def _off_the_axes(rng: np.random.Generator, radius_A: float, group: np.ndarray) -> np.ndarray:
    """A centre whose symmetry mates are apart from it."""
    while True:
        centre = _within(rng, radius_A)
        if (np.linalg.norm(group[1:] @ centre - centre, axis=1) >= MATES_APART_A).all():
            return centre


def _hook(rng: np.random.Generator, diameter_A: float) -> np.ndarray:
    angle = np.linspace(0, np.radians(rng.uniform(150, 200)), 9)
    curve = 0.36 * diameter_A * np.stack([np.cos(angle), np.sin(angle), np.zeros(9)], axis=1)
    curve += rng.normal(size=(9, 3)) * [0, 0, 0.03 * diameter_A]
    curve -= curve.mean(axis=0)
    return np.concatenate([_walk(rng, RESIDUES // 9, at, rng.uniform(0.1, 0.17) * diameter_A) for at in curve])


def _nearly_c2(rng: np.random.Generator, diameter_A: float) -> np.ndarray:
    """Five domains and their mates by a turn of 180 degrees about z, of which one is missing."""
    radius = diameter_A / 2
    domains = [_walk(rng, RESIDUES // 10, _within(rng, radius), rng.uniform(0.2, 0.3) * radius) for _ in range(5)]
    return np.concatenate(domains + [domain * [-1, -1, 1] for domain in domains[:-1]])
