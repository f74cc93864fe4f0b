"""Simulated particles as files: a stack, a STAR file with the true poses, and the map that they show."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence, Tuple

import mrcfile
import numpy as np

from ..errors import OutputError
from ..files import atomic_path, prepare_folder
from ..output.replacing import PROGRAM_MARK, is_foreign_image
from ..particles import simulate
from ..particles.ctf import Optics
from ..particles.poses import euler_angles
from ..star_format import star_loop

STACK, STAR, MAP = "particles.mrcs", "truth.star", "map.mrc"
LABEL = f"{PROGRAM_MARK.decode()}: simulated particles"
CHUNK = 1000  # particles in memory at once
COLUMNS = (
    *("rlnImageName", "rlnMicrographName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"),
    *("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnClassNumber"),
)
OPTICS_COLUMNS = (
    *("rlnOpticsGroup", "rlnOpticsGroupName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"),
    *("rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"),
)
PER_MICROGRAPH = 100


@dataclass(frozen=True)
class Simulation:
    """What is simulated: n particles with white noise of this signal-to-noise ratio (variances over all pixels), and
    positions with this standard deviation; all derived from the seed."""

    n: int
    optics: Optics
    snr: float
    shift_sd_px: float
    max_shift_px: float
    defocus_A: Tuple[float, float]
    seed: int


def write_simulation(
    folder: str,
    volumes: Sequence[np.ndarray],
    what: Simulation,
    progress: Optional[Callable[[int, int], None]] = None,
) -> None:
    """Simulate particles and write them to `folder`: `STACK`, `STAR` and, of each volume, `MAP` (`map_2.mrc`, ...).

    Parameters
    ----------
    volumes : (N, N, N) float32 with the pixel size of the optics, N even; each particle shows one of them.

    Raises
    ------
    OutputError : the folder or a file can't be written, or would replace an image of another program.
    """
    prepare_folder(folder)
    for name in (STACK, *(map_name(number) for number in range(1, len(volumes) + 1))):
        path = os.path.join(folder, name)
        if os.path.exists(path) and is_foreign_image(path):
            raise OutputError(
                f"{path}: is an image that FlexAlign has not written, and is kept: choose another folder."
            )
    pixel_A, box = what.optics.pixel_A, volumes[0].shape[0]
    for number, volume in enumerate(volumes, 1):
        write_map(os.path.join(folder, map_name(number)), volume, pixel_A)
    tell = progress or (lambda done, total: None)
    tell(0, what.n)
    rows: List[Tuple[str, ...]] = []
    with atomic_path(os.path.join(folder, STACK)) as temporary:
        with mrcfile.new_mmap(temporary, (what.n, box, box), mrc_mode=2) as stack:
            stack.set_image_stack()
            stack.voxel_size = pixel_A
            for start in range(0, what.n, CHUNK):
                n = min(CHUNK, what.n - start)
                part = simulate.simulate(
                    np.stack(volumes),
                    n,
                    what.optics,
                    what.snr,
                    what.shift_sd_px,
                    int(np.random.SeedSequence([what.seed, start]).generate_state(1)[0]),
                    what.defocus_A,
                    max_shift_px=what.max_shift_px,
                )
                stack.data[start : start + n] = part.images
                rows += _rows(part, start, folder, pixel_A)
                tell(start + n, what.n)
            stack.add_label(LABEL)
            stack.update_header_stats()
    o = what.optics
    optics = ("1", "simulated", f"{o.voltage_kV:g}", f"{o.cs_mm:g}", f"{o.amplitude_contrast:g}", f"{pixel_A:.6f}")
    text = "# version 30001\n\n" + star_loop("optics", OPTICS_COLUMNS, [(*optics, str(box), "2")])
    text += "\n\n# version 30001\n\n" + star_loop("particles", COLUMNS, rows) + "\n"
    with atomic_path(os.path.join(folder, STAR)) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)


def write_map(path: str, volume: np.ndarray, pixel_A: float) -> None:
    """Write a volume as an MRC map. Raises OutputError."""
    with atomic_path(path) as temporary, mrcfile.new(temporary) as file:
        file.set_data(volume.astype(np.float32))
        file.set_volume()
        file.voxel_size = pixel_A
        file.add_label(LABEL)


def map_name(number: int) -> str:
    return MAP if number == 1 else f"{os.path.splitext(MAP)[0]}_{number}.mrc"


def _rows(part: simulate.Simulated, start: int, folder: str, pixel_A: float) -> List[Tuple[str, ...]]:
    angles = np.stack(euler_angles(part.poses), axis=1)
    stack = os.path.join(folder, STACK)
    d = part.defocus
    return [
        (
            f"{start + i + 1:06d}@{stack}",
            f"micrograph_{(start + i) // PER_MICROGRAPH + 1:05d}.mrc",
            "1",
            *(f"{value:.6f}" for value in (d.u_A[i], d.v_A[i], d.angle_deg[i])),
            *(f"{value:.6f}" for value in angles[i]),
            *(f"{-value * pixel_A:.6f}" for value in part.positions[i]),
            str(part.volume[i] + 1),
        )
        for i in range(len(angles))
    ]
