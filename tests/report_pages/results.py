"""Makes a folder of results without aligning: one complete movie, and copies with other names and motion."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

from flexalign_plugin.output import write_result
from flexalign_plugin.output.failures import write_failures
from flexalign_plugin.sanity import InputFacts

from ..output.synthetic import motion_model, movie_result

HOSTILE = "<img src=x onerror=alert(1)>&\"'</script>"
FULL = "full_0000"


def make_results(folder, n_copies=0):
    """Write `full_0000`, `copy_0001` ... (the last with much motion), and a failure whose name is markup."""
    result = movie_result(motion_model((256, 256), n_frames=8))
    figures = dataclasses.replace(
        result.figures,
        patch_centres_px=[[64.0, 64.0], [192.0, 192.0]],
        patch_shifts_px=[[[0.0, 0.0]] * 8] * 2,
        patches_rejected=[0.1, 0.83],
        frame_pairs_rejected=[0.0, 0.0, 0.75, 0.0, 0.0, 0.0, 0.0, 0.25],
        frc=[0.9, 0.4, 0.1],
        frc_frequency_per_A=[0.1, 0.3, 0.5],
    )
    warnings = ["A warning about <b>this</b> movie."]
    facts = InputFacts(0.83, (4092, 5760), 40, dose_A2=48.0, counted=0.8)
    figures = dataclasses.replace(figures, counted_dose_A2=facts.counted_A2, mean_intensity=0.8)
    result = dataclasses.replace(result, movie="full_0000.tif", figures=figures, warnings=warnings, facts=facts)
    path = write_result(result, str(folder), FULL)["motion"]
    with open(path) as f:
        content = json.load(f)
    content["quality"].update(unheard_of_figure=12.5, curve=[1, 2, 3])  # as of another version
    with open(path, "w") as f:
        json.dump(content, f)
    for i in range(1, n_copies + 1):
        copy_result(folder, f"copy_{i:04d}", 300.0 if i == n_copies else 9.0 + 0.1 * (i % 5))
    write_failures(str(folder / "failed.tsv"), [(1, f"/data/{HOSTILE}.tif", f"/data/{HOSTILE}.tif: is empty.")])
    return folder


def copy_result(folder, root, motion_A=9.0, when=None):
    with open(folder / f"{FULL}_motion.json") as f:
        content = json.load(f)
    content.update(movie=f"{root}.tif", warnings=[])
    content["quality"]["accumulated_motion_total_A"] = motion_A
    if root.endswith("3"):
        content["quality"]["counted_dose_A2"] = 12.0
        content["input"]["doubts"] = ["The movie holds 12 e/A^2, but 48 were given."]
    path = folder / f"{root}_motion.json"
    path.write_text(json.dumps(content))
    if when is not None:
        os.utime(path, (when, when))


def rename_to_hostile(folder, name):
    """Copy the files of a result to a name that is markup."""
    for path in list(folder.glob(f"{FULL}_*")):
        shutil.copy(path, folder / path.name.replace(FULL, name))
