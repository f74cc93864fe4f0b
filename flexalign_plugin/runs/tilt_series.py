"""The movies of a tilt series: each tilt aligned with its own dose, the micrographs put into stacks.

A tilt that fails is listed and left out; stacks, angles and `.mdoc` hold the others, all in one order.
"""

from __future__ import annotations

import dataclasses
import os
import re
from contextlib import closing
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple, TypeVar, Union, cast

import numpy as np

from .. import __version__
from ..errors import MovieError
from ..execution.devices import Compute
from ..execution.job import Job, JobResult, failure
from ..files import OutputFiles, prepare_folder
from ..movies import open_movie
from ..output.failures import write_failures
from ..output.mrc import write_mrc
from ..result_files import FAILED_MOVIES, unique_root
from ..settings import Settings
from .console import Report
from .mdoc import Mdoc, Tilt, mdoc_text, prior_doses, read_mdoc
from .results import results_of

# Key of a micrograph in a result's files: ending of the stack.
STACKS = {
    "micrograph": "_stack.mrc",
    "micrograph_dw": "_stack_DW.mrc",
    "micrograph_even": "_stack_EVN.mrc",
    "micrograph_odd": "_stack_ODD.mrc",
}
ORDERS = ("tilt", "mdoc")
Aligned = List[Tuple[Tilt, JobResult]]
AnyTilt = TypeVar("AnyTilt")


def align_tilt_series(
    mdoc_path: str,
    movies: str,
    output_dir: str,
    settings: Settings,
    report: Report,
    compute: Compute,
    order: str = "tilt",
    timeout_s: Optional[float] = None,
) -> Tuple[Dict[str, str], List[JobResult]]:
    """Align every tilt's movie and write the stacks.

    Parameters
    ----------
    movies : folder of the movies that the `.mdoc` names.
    compute : devices, which share the tilts, and what happens when one fails.
    settings : for all tilts. Dose per frame and pre-exposure come from the `.mdoc`, unless a dose per frame is given.
    order : of the stacks: "tilt" by angle, "mdoc" as in the file.

    Returns
    -------
    (files, failed) : {what: path} of stacks, angles and `.mdoc`, empty if no tilt succeeded; the tilts that failed.

    Raises
    ------
    MovieError : the `.mdoc` can't be used. OutputError : something can't be written. SettingsError : no such device.
    """
    compute.check()
    mdoc = read_mdoc(mdoc_path)
    prepare_folder(output_dir)
    series = re.sub(r"(\.(mrcs?|st|tiff?|eer))?\.mdoc$", "", os.path.basename(mdoc_path), flags=re.IGNORECASE)
    failures_path = os.path.join(output_dir, f"{series}_{FAILED_MOVIES}")
    if os.path.exists(failures_path):
        os.remove(failures_path)  # an earlier run's
    report.start(len(mdoc.tilts))
    entries = list(_jobs(mdoc, movies, output_dir, series, settings))
    results: Aligned = []
    try:
        with closing(
            results_of([job for job in entries if isinstance(job, Job)], report, compute, timeout_s)
        ) as aligned:
            for tilt, entry in zip(mdoc.tilts, entries):
                result = next(aligned) if isinstance(entry, Job) else entry
                report.result(result)
                results.append((tilt, result))
    finally:
        report.close()
    results = of_one_size(results)
    failed = [(tilt, result) for tilt, result in results if not result.ok]
    if failed:
        write_failures(failures_path, [(tilt.z, result.movie, result.message) for tilt, result in failed])
    good = [(tilt, result) for tilt, result in results if result.ok]
    if order == "tilt":
        good.sort(key=lambda pair: pair[0].angle)
    files = _write_stacks(mdoc, good, output_dir, series, settings) if good else {}
    report.end([result for _, result in failed], failures_path)
    return files, [result for _, result in failed]


def _jobs(mdoc: Mdoc, movies: str, output_dir: str, series: str, settings: Settings) -> Iterator[Union[Job, JobResult]]:
    """A Job for each tilt, or the JobResult of one that can't even begin."""
    taken: Set[str] = set()
    given = settings.dose_per_frame is not None
    for number, (tilt, prior) in enumerate(zip(mdoc.tilts, prior_doses(mdoc.tilts)), 1):
        path = os.path.join(movies, tilt.movie)
        root = unique_root(tilt.movie or f"{series}_{tilt.z}", taken, number)
        taken.add(root)
        job = Job(path, output_dir, root, settings)
        try:
            if not tilt.movie:
                raise MovieError(f"Tilt {tilt.angle:g}: section {tilt.z} of the .mdoc names no movie (SubFramePath).")
            with open_movie(path, settings) as movie:
                n_frames = movie.n_frames
        except MovieError as error:
            yield failure(job, error)
            continue
        changed: Dict[str, Any] = {}
        if not given and tilt.dose is not None:
            changed["dose_per_frame"] = tilt.dose / n_frames
        if prior is not None:
            changed["pre_exposure"] = settings.pre_exposure + prior
        yield dataclasses.replace(job, settings=dataclasses.replace(settings, **changed))


def of_one_size(results: List[Tuple[AnyTilt, JobResult]]) -> List[Tuple[AnyTilt, JobResult]]:
    """Tilts of another size than most can't be in the same stack: they fail."""
    sizes = {i: _size(result) for i, (_, result) in enumerate(results) if result.ok and _stacked(result)}
    if len(set(sizes.values())) < 2:
        return results
    usual = max(set(sizes.values()), key=list(sizes.values()).count)
    checked = list(results)  # the tilt's own files stay
    for i, size in sizes.items():
        tilt, result = results[i]
        if size != usual:
            text = (
                f"its micrograph is {size[0]} x {size[1]} pixels, those of the other tilts are "
                f"{usual[0]} x {usual[1]}: it can't be in their stack."
            )
            checked[i] = (tilt, dataclasses.replace(result, ok=False, error=text))
    return checked


def _stacked(result: JobResult) -> List[str]:
    return [key for key in STACKS if key in result.files]


def _size(result: JobResult) -> Tuple[int, int]:
    with open_movie(result.files[_stacked(result)[0]], Settings()) as image:
        return image.shape[2], image.shape[1]


class _Images:
    """Micrographs in files as a stack (n, ny, nx) of which one image at a time is in memory."""

    ndim = 3

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        with open_movie(paths[0], Settings()) as image:
            self.shape = (len(paths), *image.shape[1:])

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        for path in self._paths:
            with open_movie(path, Settings()) as image:
                yield np.array(image.frame(0))


def stacks_of(results: Sequence[JobResult]) -> List[str]:
    """Keys of the stacks that these tilts can make: of the micrographs that every tilt has."""
    return [key for key in STACKS if all(key in result.files for result in results)]


def write_stack(path: str, images: Sequence[str], settings: Settings, label: str) -> Tuple[int, int]:
    """Write the micrographs in the files `images`, all of one size, as a stack; returns (nx, ny) of an image."""
    data = _Images(images)
    dtype = np.float16 if settings.save_float16 else np.float32
    pixel_size = settings.pixel_size * settings.output_binning
    # One image at a time is what the writer takes of an array.
    write_mrc(path, cast(np.ndarray, data), pixel_size, [f"{label}, FlexAlign {__version__}"], dtype)
    return data.shape[2], data.shape[1]


def _write_stacks(mdoc: Mdoc, good: Aligned, output_dir: str, series: str, settings: Settings) -> Dict[str, str]:
    """Stacks, angles and `.mdoc`, all or none of them; {what: path}."""
    pixel_size = settings.pixel_size * settings.output_binning
    angles = "".join(f"{tilt.angle:.2f}\n" for tilt, _ in good)
    files: Dict[str, str] = {}
    with OutputFiles(output_dir) as out:

        def text(what: str, name: str, content: str) -> None:
            files[what] = os.path.join(output_dir, name)
            with out.file(name) as path, open(path, "w", encoding="utf-8", newline="\n") as file:
                file.write(content)

        for key in stacks_of([result for _, result in good]):
            name = series + STACKS[key]
            files[key] = os.path.join(output_dir, name)
            label = f"{len(good)} of {len(mdoc.tilts)} tilts of {series}"
            with out.file(name) as path:
                size = write_stack(path, [result.files[key] for _, result in good], settings, label)
            tilts = [tilt for tilt, _ in good]
            text(f"{key}_mdoc", f"{name}.mdoc", mdoc_text(mdoc, tilts, name, pixel_size, size))
        text("raw_angles", f"{series}_stack.rawtlt", angles)
        text("angles", f"{series}_stack.tlt", angles)
    return files
