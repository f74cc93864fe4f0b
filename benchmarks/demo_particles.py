"""Demo of the alignment of particles: images of a real map with known orientations are made, aligned and compared with
the truth. Run by `make demo-particles`.

    python benchmarks/demo_particles.py                  1,000 particles, about 2 minutes
    python benchmarks/demo_particles.py --particles 5000 --snr 0.03

The map is EMD-11007, from the source package of ccpem-utils on the Python package index (BSD licence), which is
downloaded once. Without a network a phantom is used. Everything is written to the folder demo/particles of the
checkout.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from typing import Dict, List

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads are the alignment's own; before NumPy is loaded

import numpy as np  # noqa: E402

from flexalign_plugin.particles import poses, results  # noqa: E402
from flexalign_plugin.particles.ctf import Optics  # noqa: E402
from flexalign_plugin.particles.io_star import read_star  # noqa: E402
from flexalign_plugin.particles.settings import ParticleSettings  # noqa: E402
from flexalign_plugin.particles.simulate import chains  # noqa: E402
from flexalign_plugin.particles.volumes import Volume, diameter_A, fitted, read_volume  # noqa: E402
from flexalign_plugin.runs.particle_console import ParticleConsole  # noqa: E402
from flexalign_plugin.runs.particle_pictures import write_pictures  # noqa: E402
from flexalign_plugin.runs.particle_simulation import MAP, STAR, Simulation, write_simulation  # noqa: E402
from flexalign_plugin.runs.particles import align_star  # noqa: E402

FOLDER = os.path.join(ROOT, "demo", "particles")
PACKAGE, MEMBER = "ccpem-utils==0.0.1.dev35", "ccpem_utils_tests/test_data/emd_11007.map"
BOX, PIXEL_A, RESOLUTION_A = 80, 3.2, 10.0
SHIFT_A, MOST_SHIFT_A = 6.0, 16.0
GOOD_DEG = 13.4  # larger errors are wrong orientations, not inaccurate ones


def log(text: str) -> None:
    print(f"[demo] {text}", flush=True)


def real_map() -> Volume:
    """EMD-11007, downloaded once; a phantom if it can't be had."""
    path = os.path.join(FOLDER, "emd_11007.map")
    if not os.path.exists(path):
        log(f"downloading EMD-11007 (in {PACKAGE}, 56 MB) from the Python package index ...")
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            done = subprocess.run([*command, PACKAGE, "--dest", folder], capture_output=True, text=True)
            archives = os.listdir(folder)
            if done.returncode or not archives:
                reason = (done.stderr.strip().split("\n") or [""])[-1]
                log(f"the map can't be had ({reason}): a phantom like a protein is used instead.")
                return Volume("phantom", chains(BOX, PIXEL_A, 120.0, 3000, seed=1), PIXEL_A)
            with tarfile.open(os.path.join(folder, archives[0])) as archive:
                member = next(entry for entry in archive.getmembers() if entry.name.endswith(MEMBER))
                source = archive.extractfile(member)
                assert source is not None
                with open(path + ".part", "wb") as file:
                    file.write(source.read())
        os.replace(path + ".part", path)
    return read_volume(path)


def main(argv: List[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--snr", type=float, default=0.1, help="variance of the signal over that of the noise")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    os.makedirs(FOLDER, exist_ok=True)
    volume = real_map()
    values, _ = fitted(volume, BOX, PIXEL_A)
    log(f"{os.path.basename(volume.name)}: a particle of {diameter_A(volume):.0f} A")
    name = f"{args.particles}_{args.snr:g}_{args.seed}"
    images, output = os.path.join(FOLDER, f"images_{name}"), os.path.join(FOLDER, f"aligned_{name}")
    star = os.path.join(images, STAR)
    if not os.path.exists(star):
        log(
            f"making {args.particles} images of {BOX} x {BOX} pixels of {PIXEL_A} A, signal-to-noise ratio {args.snr:g}"
        )
        optics = Optics(PIXEL_A, 300.0, 2.7, 0.1)
        what = Simulation(
            args.particles,
            optics,
            args.snr,
            SHIFT_A / PIXEL_A,
            MOST_SHIFT_A / PIXEL_A,
            (8000.0, 25000.0),
            args.seed,
        )
        write_simulation(images, [values], what)
    log(f"aligning them at {RESOLUTION_A:g} A ...")
    console = ParticleConsole()
    settings = ParticleSettings(max_resolution=RESOLUTION_A, max_shift=MOST_SHIFT_A)
    started, cpu = time.monotonic(), time.process_time()
    map_path = os.path.join(images, MAP)
    _, result = align_star(star, [read_volume(map_path)], settings, output, console.progress, console.say)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    pictures = write_pictures(output, result, settings.symmetry)
    console.end(result, 1, output)
    for line in report(star, result.found):
        log(line)
    log(f"time: {seconds:.0f} s, {1e3 * cpu / args.particles:.1f} core-ms a particle with the gallery and the compiler")
    for picture in pictures:
        log(os.path.relpath(picture, os.getcwd()))
    return 0


def report(star: str, found: np.ndarray) -> List[str]:
    """Lines about the errors of what was found against the truth in a STAR file."""
    truth, _ = read_star(star)
    assert truth.known.angles is not None and truth.known.shifts_A is not None
    errors = poses.distances(results.matrices_of(found), poses.matrices(*truth.known.angles.T))
    off_px = np.linalg.norm(results.shifts_A_of(found) - truth.known.shifts_A, axis=1) / PIXEL_A
    good = errors < GOOD_DEG
    rms: Dict[str, float] = {
        "orientation": float(np.sqrt((errors[good] ** 2).mean() / (found["angle_sd"][good] ** 2).mean())),
        "shift": float(np.sqrt((off_px[good] ** 2).mean() / (found["shift_sd"][good] ** 2).mean())),
    }
    return [
        f"error of the orientation: mean {errors.mean():.2f} degrees, median {np.median(errors):.2f}; "
        f"{100 * good.mean():.1f} % below {GOOD_DEG:g} degrees",
        f"error of the shift: mean {off_px.mean():.2f} px",
        f"true over predicted error: {rms['orientation']:.2f} (orientation), {rms['shift']:.2f} (shift)",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
