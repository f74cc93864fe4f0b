"""Demo of the complete processing in Scipion with phantom movies: import, align, compare. Run by `make demo`.

    python benchmarks/demo.py            make the movies once, align them, print the results; 3 minutes
    python benchmarks/demo.py --show     open the demo project in Scipion's window (needs a display)

Everything is written to the folder demo/ of the checkout; delete it to start again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import time
from typing import Any, Dict

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from flexalign_plugin.motion import MotionModel  # noqa: E402
from flexalign_plugin.phantoms.files import with_detector, write_phantom  # noqa: E402
from flexalign_plugin.phantoms.phantom import particle_phantom  # noqa: E402
from flexalign_plugin.phantoms.truth import Truth, field_rms_error  # noqa: E402
from flexalign_plugin.result_files import MICROGRAPH, MOTION, PLOT_GLOBAL, PLOT_LOCAL, PLOT_SPECTRA  # noqa: E402
from flexalign_plugin.tests import scipion_project  # noqa: E402

FOLDER = os.path.join(ROOT, "demo")
PROJECT = "FlexAlignDemo"
SHAPE = (20, 2048, 2048)
PIXEL_A = 1.0
DOSE = 1.0  # electrons per pixel and frame
HARDWARE_FRAMES_EACH = 3  # EER
FORMATS = {"mrc": "MRC", "tif": "TIFF (LZW)", "eer": "EER"}
KINDS = {"mrc": ("mrc", "none"), "tif": ("tiff", "lzw"), "eer": ("eer", "none")}
GAINS = {"mrc": ".mrc", "tif": ".tif", "eer": ".gain"}


def log(text: str) -> None:
    print(f"[demo] {text}", flush=True)


def make_movies(folder: str) -> Dict[str, Truth]:
    """Make one movie in each format with its gain reference and true motion, unless it exists."""
    os.makedirs(folder, exist_ok=True)
    truths = {}
    for seed, (ending, name) in enumerate(FORMATS.items(), 101):
        movie, truth = (os.path.join(folder, f"demo_{ending}{end}") for end in (f".{ending}", "_truth.json"))
        if not os.path.exists(truth) or not os.path.exists(movie):
            started = time.monotonic()
            n, ny, nx = SHAPE
            log(f"making the {name} movie of {n} frames of {nx} x {ny} pixels ...")
            phantom = particle_phantom(
                SHAPE,
                pixel_size_A=PIXEL_A,
                dose=DOSE,
                band_limit_A=4.0,
                local_px=3.0,
                control_points=3,  # as smooth as in real movies
                defocus_A=8000.0,
                seed=seed,
            )
            kind, compression = KINDS[ending]
            write_phantom(
                with_detector(phantom, seed), folder, f"demo_{ending}", kind, compression, "auto", HARDWARE_FRAMES_EACH
            )
            size_MB, seconds = os.path.getsize(movie) / 1e6, time.monotonic() - started
            log(f"  {os.path.relpath(movie, ROOT)}: {size_MB:.0f} MB, {seconds:.0f} s")
        else:
            log(f"using {os.path.relpath(movie, ROOT)}")
        truths[ending] = Truth.load(truth)
    return truths


def align(project: Any, folder: str, ending: str) -> Any:
    """Import one format's movie and align it, each as a Scipion protocol."""
    from pyworkflow.protocol import getUpdatedProtocol

    with contextlib.redirect_stdout(io.StringIO()):  # the import prints empty lines
        imported = scipion_project.import_movies(
            project,
            folder,
            f"demo_{ending}.{ending}",
            PIXEL_A,
            gainFile=os.path.join(folder, f"demo_{ending}_gain{GAINS[ending]}"),
            dosePerFrame=DOSE / PIXEL_A**2 / (HARDWARE_FRAMES_EACH if ending == "eer" else 1),
            label=f"import {FORMATS[ending]}",
        )
    if not imported.isFinished():
        raise SystemExit(f"[demo] the import failed: {imported.getErrorMessage()}")
    protocol = scipion_project.new_alignment(
        project, imported, f"FlexAlign {FORMATS[ending]}", nFrames=SHAPE[0], binThreads=os.cpu_count() or 1
    )
    project.launchProtocol(protocol, wait=False)
    log_path = protocol.getStdoutLog()
    shown = 0
    while True:
        time.sleep(0.5)
        now = getUpdatedProtocol(protocol)
        lines = open(log_path, errors="replace").read().splitlines() if os.path.exists(log_path) else []
        for line in lines[shown:]:
            start = line.find("Movie ")
            if start >= 0 and " of " in line:
                log(f"  {line[start:]}")
        shown = len(lines)
        if now.isFailed() or now.isAborted():
            raise SystemExit(f"[demo] the alignment failed: {now.getErrorMessage()} See {os.path.abspath(log_path)}")
        if now.isFinished():
            return now


def report(protocol: Any, truth: Truth) -> bool:
    """Print the paths of the results and the error of the motion; returns whether the error is small enough."""
    (micrograph,) = [m.clone() for m in protocol.outputMicrographs]
    root = os.path.abspath(micrograph.getFileName()).replace(MICROGRAPH, "")
    error = field_rms_error(MotionModel.load(root + MOTION), truth)
    for label, ending in (
        ("micrograph", MICROGRAPH),
        ("motion plot", PLOT_GLOBAL),
        ("local motion", PLOT_LOCAL),
        ("PSD", PLOT_SPECTRA),
    ):
        if os.path.exists(root + ending):
            log(f"  {label + ':':14}{os.path.relpath(root + ending, ROOT)}")
    recovered = f"motion recovered with an RMS error of {error.rms_px:.2f} px"
    log(f"  {recovered}; without correction {error.uncorrected_px:.2f} px")
    return error.rms_px < 0.5


def show() -> None:
    """Open the demo project in Scipion's window."""
    os.environ.pop("MPLBACKEND", None)
    from pyworkflow.gui.project import ProjectWindow
    from pyworkflow.project import Manager

    ProjectWindow(Manager().getProjectPath(PROJECT)).show()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="open the demo project in Scipion's window")
    args = parser.parse_args()
    home = os.path.join(FOLDER, "scipion")
    scipion_project.prepare(home)
    if args.show:
        show()
        return
    started = time.monotonic()
    log("1/3 movies with a known motion (drift of 9 px, local motion of up to 6 px, 1 e/px/frame)")
    movies = os.path.join(FOLDER, "movies")
    truths = make_movies(movies)
    log("2/3 a Scipion project: for each format, import the movie and run FlexAlign")
    shutil.rmtree(os.path.join(home, "projects", PROJECT), ignore_errors=True)
    project = scipion_project.new_project(PROJECT)
    results = {}
    for ending, name in FORMATS.items():
        log(f"{name}:")
        results[ending] = align(project, movies, ending)
    log("3/3 results")
    good = True
    for ending, name in FORMATS.items():
        log(f"{name}:")
        good &= report(results[ending], truths[ending])
    command = os.path.relpath(os.path.join(os.path.dirname(sys.executable), "flexalign"), ROOT)
    log(f"to align movies without Scipion: {command} --help")
    log(f"done in {time.monotonic() - started:.0f} s. To open the project in Scipion's window: make show")
    if not good:
        raise SystemExit("[demo] the error of the motion is larger than 0.5 px.")


if __name__ == "__main__":
    main()
