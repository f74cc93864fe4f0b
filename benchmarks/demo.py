"""The whole way through Scipion on made-up movies with a known motion: import, align, compare. Run by `make demo`.

    python benchmarks/demo.py            make the movies once, align them, print what came out
    python benchmarks/demo.py --show     open the demo project in Scipion's window (needs a display)

Everything lies in the folder demo/ of the checkout; delete it to start from nothing.
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


def say(text: str) -> None:
    print(f"[demo] {text}", flush=True)


def make_movies(folder: str) -> Dict[str, Truth]:
    """One movie in each format with its gain reference and true motion; what is there already is used again."""
    os.makedirs(folder, exist_ok=True)
    truths = {}
    for seed, (ending, name) in enumerate(FORMATS.items(), 101):
        movie, truth = (os.path.join(folder, f"demo_{ending}{end}") for end in (f".{ending}", "_truth.json"))
        if not os.path.exists(truth) or not os.path.exists(movie):
            started = time.monotonic()
            n, ny, nx = SHAPE
            say(f"making the {name} movie of {n} frames of {nx} x {ny} pixels ...")
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
            say(f"  {os.path.relpath(movie, ROOT)}: {size_MB:.0f} MB, {seconds:.0f} s")
        else:
            say(f"using {os.path.relpath(movie, ROOT)}")
        truths[ending] = Truth.load(truth)
    return truths


def align(project: Any, folder: str, ending: str) -> Any:
    """Import one format's movie and align it, each as a Scipion protocol."""
    from pyworkflow.protocol import getUpdatedProtocol

    with contextlib.redirect_stdout(io.StringIO()):  # prints empty lines
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
    log = protocol.getStdoutLog()
    shown = 0
    while True:
        time.sleep(0.5)
        now = getUpdatedProtocol(protocol)
        lines = open(log, errors="replace").read().splitlines() if os.path.exists(log) else []
        for line in lines[shown:]:
            at = line.find("Movie ")
            if at >= 0 and " of " in line:
                say(f"  {line[at:]}")
        shown = len(lines)
        if now.isFailed() or now.isAborted():
            raise SystemExit(f"[demo] the alignment failed: {now.getErrorMessage()} See {os.path.abspath(log)}")
        if now.isFinished():
            return now


def report(protocol: Any, truth: Truth) -> bool:
    """Say where the results are and how far the recovered motion is from the truth."""
    (micrograph,) = [m.clone() for m in protocol.outputMicrographs]
    root = os.path.abspath(micrograph.getFileName()).replace("_aligned_mic.mrc", "")
    error = field_rms_error(MotionModel.load(root + "_motion.json"), truth)
    for what, ending in (
        ("micrograph", "_aligned_mic.mrc"),
        ("motion plot", "_plot_global.png"),
        ("local motion", "_plot_local.png"),
        ("PSD", "_plot_psd.png"),
    ):
        if os.path.exists(root + ending):
            say(f"  {what + ':':14}{os.path.relpath(root + ending, ROOT)}")
    say(f"  motion recovered with an RMS error of {error.rms_px:.2f} px; without correction {error.nothing_px:.2f} px")
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
    say("1/3 movies with a known motion (a sample that drifts 9 px and bends by up to 6 px, 1 e/px/frame)")
    movies = os.path.join(FOLDER, "movies")
    truths = make_movies(movies)
    say("2/3 a Scipion project without a window: import movies, then FlexAlign, for each format")
    shutil.rmtree(os.path.join(home, "projects", PROJECT), ignore_errors=True)
    project = scipion_project.new_project(PROJECT)
    results = {}
    for ending, name in FORMATS.items():
        say(f"{name}:")
        results[ending] = align(project, movies, ending)
    say("3/3 results")
    good = True
    for ending, name in FORMATS.items():
        say(f"{name}:")
        good &= report(results[ending], truths[ending])
    command = os.path.relpath(os.path.join(os.path.dirname(sys.executable), "flexalign"), ROOT)
    say(f"the same without Scipion: {command} --help")
    say(f"done in {time.monotonic() - started:.0f} s. To look at the project in Scipion's own window: make show")
    if not good:
        raise SystemExit("[demo] the recovered motion is further from the truth than it should be (0.5 px).")


if __name__ == "__main__":
    main()
