"""Aligns the movies of a tilt series, each with its own dose, and writes the micrographs as stacks.

Tilts that fail are listed and left out. Stacks, angles and `.mdoc` contain the other tilts in the same order.
"""

from __future__ import annotations

import dataclasses
import os
import re
from contextlib import closing
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple, TypeVar, Union, cast

import numpy as np

from .. import __version__
from ..errors import MovieError, SettingsError
from ..execution.devices import Compute
from ..execution.job import Job, JobResult, failure
from ..files import OutputFiles, prepare_folder
from ..movies import open_movie
from ..output.failures import write_failures
from ..output.mrc import write_mrc
from ..result_files import (
    FAILED_MOVIES,
    STACK,
    STACK_ANGLES,
    STACK_EVEN,
    STACK_ODD,
    STACK_RAW_ANGLES,
    STACK_WEIGHTED,
    unique_root,
)
from ..settings import Settings
from .console import Report
from .failure_list import FailureList
from .mdoc import Mdoc, Tilt, join_mdocs, mdoc_text, prior_doses, read_mdoc
from .names import Names, check_inputs, correction_files
from .results import results_of
from .shared_movie import frames_of_tilts, read_saved_list
from .tilt_doses import dose_settings, span_settings

# {key of a micrograph in `JobResult.files`: ending of the stack's name}
STACKS = {
    "micrograph": STACK,
    "micrograph_dw": STACK_WEIGHTED,
    "micrograph_even": STACK_EVEN,
    "micrograph_odd": STACK_ODD,
}
ORDERS = ("tilt", "mdoc")
Aligned = List[Tuple[Tilt, JobResult]]
AnyTilt = TypeVar("AnyTilt")


def align_tilt_series(
    mdoc_paths: Sequence[str],
    movies: str,
    output_dir: str,
    settings: Settings,
    report: Report,
    compute: Compute,
    order: str = "tilt",
    name: str = "",
) -> Tuple[Dict[str, str], List[JobResult]]:
    """Align every tilt's movie and write the stacks.

    Parameters
    ----------
    mdoc_paths : one for the series, or one for each movie.
    movies : folder of the movies that are named in the `.mdoc`.
    settings : for all tilts. The dose per frame is taken from the `.mdoc` unless it is given here; the dose before each
        tilt is added to the pre-exposure.
    compute : devices that align the tilts.
    order : of the stacks: "tilt" by angle, "mdoc" as in the file.
    name : of the series; empty: that of the `.mdoc`, or what the names of several have in common.

    Returns
    -------
    (files, failed) : {kind of file: path} of stacks, angles and `.mdoc`, empty if no tilt succeeded; and the results of
        the tilts that failed.

    Raises
    ------
    MovieError : the `.mdoc` can't be read, or does not describe a tilt series.
    OutputError : a result can't be written.
    SettingsError : a device can't be used, or a result would replace an input or another tilt series.
    """
    compute.check()
    mdoc = join_mdocs([read_mdoc(path) for path in mdoc_paths])
    series = name or _series_name(mdoc_paths)
    failures_path = os.path.join(output_dir, f"{series}_{FAILED_MOVIES}")
    names = _names(mdoc, movies, output_dir, series)
    inputs = [os.path.join(movies, tilt.movie) for tilt in mdoc.tilts]
    check_inputs(output_dir, names, [*mdoc_paths, *inputs, *correction_files(settings)], _series_names(series))
    prepare_folder(output_dir)
    if os.path.exists(failures_path):
        os.remove(failures_path)  # of an earlier run
    report.start(len(mdoc.tilts))
    entries = list(_jobs(mdoc, movies, output_dir, names, settings))
    results: Aligned = []
    failures = FailureList(failures_path, report.log)
    sections = [tilt.z for tilt, entry in zip(mdoc.tilts, entries) if isinstance(entry, Job)]
    for tilt, entry in zip(mdoc.tilts, entries):
        if isinstance(entry, JobResult):
            failures.add(tilt.z, entry)
    try:
        jobs = [job for job in entries if isinstance(job, Job)]
        with closing(results_of(jobs, report, compute, lambda i, result: failures.add(sections[i], result))) as aligned:
            level = min(range(len(mdoc.tilts)), key=lambda i: abs(mdoc.tilts[i].angle))
            for i, (tilt, entry) in enumerate(zip(mdoc.tilts, entries)):
                result = next(aligned) if isinstance(entry, Job) else entry
                # In a tilted specimen many electrons are lost, so the dose is judged at the smallest angle.
                report.result(result if i == level else dataclasses.replace(result, input_doubts=[]))
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


def _series_names(series: str) -> List[str]:
    """Names of all files of a series."""
    stacks = [series + ending for ending in STACKS.values()]
    angles = [series + STACK_RAW_ANGLES, series + STACK_ANGLES]
    return [*stacks, *(f"{stack}.mdoc" for stack in stacks), *angles, f"{series}_{FAILED_MOVIES}"]


def _names(mdoc: Mdoc, movies: str, output_dir: str, series: str) -> List[str]:
    """Root of the files of each tilt; SettingsError if the folder has a series of this name of other movies."""
    in_folder, roots = Names(output_dir), []
    alone: Set[str] = set()
    exists = any(os.path.exists(os.path.join(output_dir, name)) for name in _series_names(series)[: len(STACKS)])
    for number, tilt in enumerate(mdoc.tilts, 1):
        start, ending = os.path.splitext(tilt.movie or f"{series}_{tilt.z}")
        name = start + (f"_{tilt.z:03d}" if tilt.span else "") + ending
        root = in_folder.root(os.path.join(movies, tilt.movie), number, name)
        usual = unique_root(name, alone, number)
        alone.add(usual)
        if exists and root != usual:
            raise SettingsError(
                f"{os.path.join(output_dir, series)}: is a tilt series of other movies and would be replaced: choose "
                "another output folder."
            )
        roots.append(root)
    return roots


def _jobs(
    mdoc: Mdoc, movies: str, output_dir: str, roots: Sequence[str], settings: Settings
) -> Iterator[Union[Job, JobResult]]:
    """A Job for each tilt, or a failed JobResult if its movie can't be opened."""
    dose_is_given = settings.dose_is_known
    spans = _Spans(mdoc.tilts, movies)
    for root, tilt, prior in zip(roots, mdoc.tilts, prior_doses(mdoc.tilts)):
        path = os.path.join(movies, tilt.movie)
        job = Job(path, output_dir, root, settings, keep_others=True)
        try:
            if tilt.problem:
                raise MovieError(tilt.problem)
            if not tilt.movie:
                raise MovieError(
                    f"Tilt {tilt.angle:g}: section {tilt.z} of the .mdoc has no SubFramePath with the name of a movie."
                )
            with open_movie(path, settings) as movie:
                n_frames, group = movie.n_frames, movie.hardware_frames_per_frame
            changed: Dict[str, Any] = {}
            if tilt.span is not None:
                changed.update(spans.settings(tilt, path, n_frames, group, settings))
            elif not dose_is_given:
                changed.update(dose_settings(tilt, n_frames, group))
            if prior is not None:
                changed["pre_exposure"] = settings.pre_exposure + prior
            yield dataclasses.replace(job, settings=dataclasses.replace(settings, **changed))
        except (MovieError, SettingsError) as error:
            yield failure(job, error)


class _Spans:
    """The frames of tilts that share a movie."""

    def __init__(self, tilts: Sequence[Tilt], movies: str) -> None:
        self._tilts, self._movies = tilts, movies
        self._frames: Dict[str, List[range]] = {}

    def settings(
        self, tilt: Tilt, path: str, n_frames: int, group: Optional[int], settings: Settings
    ) -> Dict[str, Any]:
        """Range of frames and doses of a tilt; a range in `settings` is one of the tilt's own frames.

        Raises
        ------
        MovieError : its frames are not known.
        """
        if group is not None:
            raise MovieError(f"{path}: EER movies of several tilts are not supported: save them as TIFF or MRC.")
        if not settings.use_align_to_sum:
            raise SettingsError("A range of frames to sum is not possible for a movie of several tilts.")
        if settings.frame_doses is not None:
            raise SettingsError("The doses of the frames are those of the .mdoc for a movie of several tilts.")
        sharing = [one for one in self._tilts if one.span and one.movie == tilt.movie]
        sharing.sort(key=lambda one: one.span or (0, 0))
        if tilt.movie not in self._frames:
            try:
                found = frames_of_tilts([one.span for one in sharing if one.span], n_frames, read_saved_list(path))
            except ValueError as error:
                raise MovieError(f"{path}: {error}.") from error
            self._frames[tilt.movie] = found
        frames = self._frames[tilt.movie][sharing.index(tilt)]
        wanted = frames[settings.align_frame0 - 1 : settings.align_frame_n or None]
        if len(wanted) < 2:
            raise MovieError(
                f"{path}: {len(wanted)} of its frames show the tilt at {tilt.angle:g} degrees, but at least 2 are "
                "needed."
            )
        total = settings.total_dose
        given = settings.dose_per_frame if total is None else total / n_frames
        doses = span_settings(tilt, frames, n_frames, given)
        return {"align_frame0": wanted.start + 1, "align_frame_n": wanted.stop, **doses}


def _series_name(mdoc_paths: Sequence[str]) -> str:
    """Name of the `.mdoc` without endings; of several, the start that they have in common."""
    names = [re.sub(r"(\.(mrcs?|st|tiff?|eer))?\.mdoc$", "", os.path.basename(p), flags=re.I) for p in mdoc_paths]
    if len(names) == 1:
        return names[0]
    common = os.path.commonprefix(names)
    return re.sub(r"[-_. ]+[-0-9.]*$", "", common) or common or "tilt_series"


def of_one_size(results: List[Tuple[AnyTilt, JobResult]]) -> List[Tuple[AnyTilt, JobResult]]:
    """The results, in which tilts whose micrographs differ in size from most others are failures: a stack has one
    size."""
    sizes = {i: _size(result) for i, (_, result) in enumerate(results) if result.ok and _stack_keys(result)}
    if len(set(sizes.values())) < 2:
        return results
    usual = max(set(sizes.values()), key=list(sizes.values()).count)
    checked = list(results)
    for i, size in sizes.items():
        tilt, result = results[i]
        if size != usual:
            text = (
                f"its micrograph of {size[0]} x {size[1]} pixels was left out of the stack, because those of the other "
                f"tilts have {usual[0]} x {usual[1]} pixels: check that its movie belongs to this series."
            )
            checked[i] = (tilt, dataclasses.replace(result, ok=False, error=text))
    return checked


def _stack_keys(result: JobResult) -> List[str]:
    return [key for key in STACKS if key in result.files]


def _size(result: JobResult) -> Tuple[int, int]:
    with open_movie(result.files[_stack_keys(result)[0]], Settings()) as image:
        return image.shape[2], image.shape[1]


class _Images:
    """Micrograph files as a stack (n, ny, nx), of which one image at a time is in memory."""

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


def settings_of_images(settings: Settings, results: Sequence[JobResult]) -> Settings:
    """The settings with the pixel size of the tilts' frames, which is finer than given for EER at 8K or 16K."""
    pixel_size = results[0].pixel_size_A  # 0 in records of earlier versions
    return dataclasses.replace(settings, pixel_size=pixel_size) if pixel_size else settings


def stacks_of(results: Sequence[JobResult]) -> List[str]:
    """Keys of the stacks to write: of the kinds of micrographs that every tilt has."""
    return [key for key in STACKS if all(key in result.files for result in results)]


def write_stack(path: str, images: Sequence[str], settings: Settings, label: str) -> Tuple[int, int]:
    """Write the micrograph files `images`, all of the same size, as a stack; returns (nx, ny) of an image in pixels."""
    data = _Images(images)
    dtype = np.float16 if settings.save_float16 else np.float32
    pixel_size = settings.micrograph_pixel_size
    # The writer iterates over the images, so `_Images` can stand in for an array.
    write_mrc(path, cast(np.ndarray, data), pixel_size, [f"{label}, FlexAlign {__version__}"], dtype)
    return data.shape[2], data.shape[1]


def _write_stacks(mdoc: Mdoc, good: Aligned, output_dir: str, series: str, settings: Settings) -> Dict[str, str]:
    """Write stacks, angles and `.mdoc`, either all or none; returns {kind of file: path}."""
    settings = settings_of_images(settings, [result for _, result in good])
    pixel_size = settings.micrograph_pixel_size
    angles = "".join(f"{tilt.angle:.2f}\n" for tilt, _ in good)
    files: Dict[str, str] = {}
    with OutputFiles(output_dir) as out:

        def write_text(kind: str, name: str, content: str) -> None:
            files[kind] = os.path.join(output_dir, name)
            with out.file(name) as path, open(path, "w", encoding="utf-8", newline="\n") as file:
                file.write(content)

        for key in stacks_of([result for _, result in good]):
            name = series + STACKS[key]
            files[key] = os.path.join(output_dir, name)
            label = f"{len(good)} of {len(mdoc.tilts)} tilts of {series}"
            with out.file(name) as path:
                size = write_stack(path, [result.files[key] for _, result in good], settings, label)
            tilts = [tilt for tilt, _ in good]
            write_text(f"{key}_mdoc", f"{name}.mdoc", mdoc_text(mdoc, tilts, name, pixel_size, size))
        write_text("raw_angles", series + STACK_RAW_ANGLES, angles)
        write_text("angles", series + STACK_ANGLES, angles)
    return files
