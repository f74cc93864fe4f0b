"""Checks whether two versions of the code give the same results, byte for byte. For changes that only restructure.

    python benchmarks/same_results.py OTHER           compare with the checkout in the folder OTHER
    python benchmarks/same_results.py OTHER --quick   small movies only

Both versions align the same movies with the same commands: the three movies of the demo (MRC, LZW TIFF and EER, each
with a gain reference) and one of 4096 x 4096 x 30 with dose weighting, even and odd frames and spectra for CTF
programs. Every file that they write is compared, except for the times in `_motion.json` and the version of the program.
Notes and warnings are compared separately, because they may be reworded.

Exit status: 0 the results are the same, 1 they differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any, Dict, List, Tuple

from benchmark_movies import ROOT, add_workdir_option, phantom_file
from demo import DOSE, HARDWARE_FRAMES_EACH, PIXEL_A, SHAPE, make_movies
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.result_files import MOTION

SEED = 2026
SENTENCES = ("notes", "warnings")
VERSION = re.compile(rb"FlexAlign \d+\.\d+\.\d+")


def cases(workdir: str, quick: bool) -> Dict[str, List[str]]:
    """{name: arguments of `flexalign align`}; movies that are missing are made."""
    folder = os.path.join(workdir, "demo")
    make_movies(folder)
    dose = ["--pixel-size", str(PIXEL_A), "--dose-per-frame", str(DOSE)]
    commands = {
        kind: [os.path.join(folder, f"demo_{kind}.{kind}"), "--gain", os.path.join(folder, f"demo_{kind}_gain{gain}")]
        + dose
        for kind, gain in (("mrc", ".mrc"), ("tif", ".tif"), ("eer", ".gain"))
    }
    commands["eer"] += ["--n-frames", str(SHAPE[0])]
    commands["eer, 8K, cropped"] = [
        *commands["eer"],
        "--eer-sampling",
        "2",
        "--bin-factor",
        "2",
        "--crop-offset-x",
        "64",
    ]
    commands["tif, low memory, aligned movie"] = [*commands["tif"], "--low-memory", "--do-save-movie", "--save-float16"]
    commands["mrc, as published"] = [*commands["mrc"], "--no-do-refinement", "--split-even-odd"]
    commands["mrc, magnification"] = [*commands["mrc"], "--do-mag-cor", "--scale-maj", "1.01", "--ang-dist", "30"]
    if not quick:
        movie = phantom_file(workdir, f"particles_seed{SEED}_4096x4096x30", particle_phantom(seed=SEED))
        every = ["--dose-per-frame", "1", "--split-even-odd", "--do-save-ps"]
        commands["4096 x 4096 x 30, all images"] = [movie.path, "--pixel-size", "1", *every]
    assert HARDWARE_FRAMES_EACH > 1
    return commands


def align(checkout: str, arguments: List[str], output: str) -> None:
    """Run the code of a checkout, with a working folder outside of it."""
    shutil.rmtree(output, ignore_errors=True)
    os.makedirs(output)
    command = [sys.executable, "-m", "flexalign_plugin", "align", *arguments, "--output", "results", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": checkout, "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(command, cwd=output, env=environment, check=True)


def contents(folder: str) -> Tuple[Dict[str, str], List[str]]:
    """{file: digest of the content that must be the same}, and the notes and warnings."""
    digests, sentences = {}, []
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            content = VERSION.sub(b"FlexAlign", file.read())
        if name.endswith(MOTION):
            result: Dict[str, Any] = json.loads(content)
            sentences += [sentence for key in SENTENCES for sentence in result[key]]
            content = json.dumps(
                {k: v for k, v in result.items() if k not in (*SENTENCES, "timings_s", "version")}
            ).encode()
        digests[name] = hashlib.sha256(content).hexdigest()[:16]
    return digests, sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", metavar="OTHER", help="folder of the other checkout")
    parser.add_argument("--quick", action="store_true", help="small movies only")
    parser.add_argument("--keep", action="store_true", help="reuse the results of OTHER from an earlier call")
    add_workdir_option(parser)
    arguments = parser.parse_args()
    different = 0
    print("| movie | file | this | other |\n|---|---|---|---|")
    for name, command in cases(arguments.workdir, arguments.quick).items():
        results = []
        for which, checkout in (("this", ROOT), ("other", os.path.abspath(arguments.other))):
            output = os.path.join(arguments.workdir, "same", re.sub(r"\W+", "_", name), which)
            if not (arguments.keep and which == "other" and os.path.exists(output)):
                align(checkout, command, output)
            results.append(contents(os.path.join(output, "results")))
        (ours, our_sentences), (theirs, their_sentences) = results
        for file in sorted({*ours, *theirs}):
            digests = ours.get(file, "missing"), theirs.get(file, "missing")
            different += digests[0] != digests[1]
            mark = "" if digests[0] == digests[1] else " DIFFERENT"
            print(f"| {name} | {file} | {digests[0]} | {digests[1]}{mark} |", flush=True)
        for sentence in sorted({*our_sentences} ^ {*their_sentences}):
            print(f"| {name} | sentence of {'this' if sentence in our_sentences else 'other'} only | {sentence} | |")
    print(f"\n{different} files differ." if different else "\nAll files are the same.")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
