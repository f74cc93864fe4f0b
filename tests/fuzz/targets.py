"""What is fuzzed: for each kind of file, valid examples and the code that reads it.

A target may raise a `FlexAlignError`, whose text is shown to the user; any other exception is a failure. Texts must be
one line that names the file.
"""

from __future__ import annotations

import bz2
import gzip
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple

import numpy as np

from flexalign_plugin.cli import build_parser
from flexalign_plugin.commands.align import settings_of
from flexalign_plugin.errors import FlexAlignError
from flexalign_plugin.execution.devices import Compute
from flexalign_plugin.execution.job import Job, JobResult
from flexalign_plugin.execution.queue_job import _read_request, answer_path, append_result, read_answer, write_request
from flexalign_plugin.inputs import printable
from flexalign_plugin.movies import load_corrections, open_movie
from flexalign_plugin.movies.defect_lists import EER_DEFECTS_TAG
from flexalign_plugin.output.corrected_star import write_corrected_micrographs
from flexalign_plugin.output.failures import read_failures, write_failures
from flexalign_plugin.output.saved_result import load_saved_result
from flexalign_plugin.output.tracks import frame_positions, read_coordinates
from flexalign_plugin.phantoms.movie_writers import write_eer_movie, write_mrc_movie, write_tiff_movie
from flexalign_plugin.report_pages import write_report
from flexalign_plugin.result_files import CORRECTED_MICROGRAPHS
from flexalign_plugin.runs.mdoc import mdoc_text, prior_doses, read_mdoc
from flexalign_plugin.settings import Settings

from ..output.synthetic import motion_model
from .strategies import damaged_bytes, damaged_json, text_of

NY, NX = 32, 48
MAX_PIXELS = 50_000_000  # of a damaged movie that is read to its end
SETTINGS = Settings(n_frames=2)
DEFECT_WORDS = (
    ("CameraSizeX", "CameraSizeY", str(NX), str(NY), "BadPixels", "BadColumns", "BadRows", "UsableArea", "WasScaled")
    + ("PartialBadColumn", "PartialBadRow", "<defects>", "</defects>", "<row>", "</row>", "<col>", "</col>", "<area>")
    + ("</area>", "<point>", "</point>", "0-31", "1-2", "#")
)
MDOC_WORDS = (
    *("[ZValue = 0]", "[ZValue = 1]", "[T = x]", "TiltAngle = 3", "TiltAngle =", "SubFramePath = X:\\a\\b.tif"),
    *("ExposureDose = 2", "PriorRecordDose = 1", "DateTime = 01-Jan-24  10:00:00", "ImageFile = a.st"),
)
STAR_WORDS = (
    *("data_", "data_particles", "loop_", "_rlnCoordinateX", "_rlnCoordinateY", "_rlnMicrographName", "1", "2.5"),
    *("a_aligned_mic.mrc", "'a_aligned_mic.mrc'", '"a_aligned_mic.mrc"', "#1", ";", "other.mrc"),
)


class Target(NamedTuple):
    """`data` makes the content of a file; `read` is called with the path of a file of this content."""

    data: Any
    read: Callable[[str], None]


def targets(folder: Path) -> Dict[str, Target]:
    """All targets; `folder` is theirs."""
    model = motion_model((NY, NX), n_frames=4, local_px=1.0, drift_px=2.0)
    result = {
        "format": "flexalign-result-1",
        "version": "1.0.0",
        "movie": "a.tif",
        "movie_path": "/data/a.tif",
        "frames": {"in_movie": 4, "first_aligned": 1, "last_aligned": 4},
        "micrograph": {"size_x": NX, "size_y": NY, "pixel_size_A": 1.0},
        "quality": {
            "pairs_rejected": 0.1,
            "patch_centres_px": [[8.0, 8.0]],
            "patch_shifts_px": [[[0.0, 0.0]] * 4],
            "frc": [0.9, 0.1],
            "frc_frequency_per_A": [0.1, 0.5],
            "accumulated_motion_total_A": 3.0,
            "defects": {"gain": 1},
            "psd_profile": {"corrected": [1.0, 2.0], "uncorrected": [1.0, 2.0]},
            "control_points": [3, 5, 6],
        },
        "warnings": ["A warning."],
        "notes": [],
        "timings_s": {"read": {"wall": 1.0, "cpu": 1.0}},
        "settings": Settings().to_dict(),
        "model": model.to_dict(),
    }
    record = asdict(JobResult("a.tif", True, files={"motion": "a_motion.json"}, shifts_px=[[0.0, 1.0]], seconds=2.0))
    return {
        "movie": Target(damaged_bytes(_movies(folder)), _read_movie),
        "gain": Target(damaged_bytes(_gains(folder)), _gain_reader(folder)),
        "defects": Target(text_of(DEFECT_WORDS), _defects_reader(folder)),
        "mdoc": Target(text_of(MDOC_WORDS, ("\n", "\n", "\r\n", " ")), _read_mdoc),
        "coordinates": Target(text_of(STAR_WORDS), lambda path: [*read_coordinates(path, "a")].clear()),
        "result": Target(damaged_json(result), _result_reader(folder, result)),
        "settings": Target(damaged_json(Settings().to_dict()), _read_settings),
        "record": Target(damaged_json({"format": "flexalign-record-1", **record}), _record_reader(folder)),
        "request": Target(damaged_json(_request(folder)), lambda path: [*_read_request(path)].clear()),
        "answer": Target(damaged_bytes([_answer(folder)]), _answer_reader(folder)),
        "failures": Target(text_of(("id\tmovie\treason", "1", "a.mrc", "why"), ("\t", "\n")), _failures_reader(folder)),
        "picture": Target(damaged_bytes([_png(folder)]), _picture_reader(folder, result)),
        "report": Target(damaged_json(_report(folder, result)), _report_reader(folder, result)),
        "list": Target(text_of(("a.mrc", "@list", "--output")), _read_list),
    }


# ------------------------------------------------------------------------------------------------------------ examples
def _bytes(path: Path) -> bytes:
    return path.read_bytes()


def _movies(folder: Path) -> List[bytes]:
    frames = np.random.default_rng(1).poisson(3, (3, NY, NX))
    found = []
    for mode, dtype in ((None, "u1"), (None, "i2"), (None, "f4"), (12, "f2"), (101, "u1"), (6, "u2")):
        for order in "<>":
            write_mrc_movie(str(folder / "a.mrc"), frames.astype(dtype), mode=mode, byte_order=order)  # type: ignore[arg-type]
            found.append(_bytes(folder / "a.mrc"))
    found += [bz2.compress(found[0]), gzip.compress(found[0], mtime=0)]
    for dtype, options in (
        ("u1", {}),
        ("u1", {"compression": "lzw", "rows_per_strip": 8}),
        ("u2", {"compression": "deflate", "predictor": True}),
        ("u2", {"compression": "zstd", "bigtiff": True}),
        ("f4", {"byte_order": ">"}),
        ("u1", {"tile": (16, 16), "compression": "deflate"}),
    ):
        write_tiff_movie(str(folder / "a.tif"), frames.astype(dtype), **options)  # type: ignore[arg-type]
        found.append(_bytes(folder / "a.tif"))
    events = [np.array([[1, 2, 0, 0], [20, 30, 1, 2]])] * 4
    for options in ({}, {"compression": 65000}, {"compression": 65002, "bits": (6, 2, 2)}):  # type: ignore[dict-item]
        write_eer_movie(str(folder / "a.eer"), events, (NY, NX), **options)  # type: ignore[arg-type]
        found.append(_bytes(folder / "a.eer"))
    return found


def _gains(folder: Path) -> List[bytes]:
    import tifffile

    gain = np.random.default_rng(2).normal(1, 0.05, (1, NY, NX)).astype(np.float32)
    write_mrc_movie(str(folder / "g.mrc"), gain)
    write_tiff_movie(str(folder / "g.tif"), gain)
    listed = "<defects><row>3</row><point>1,2</point></defects>"
    tifffile.imwrite(folder / "g.gain", gain[0], extratags=[(EER_DEFECTS_TAG, "s", 0, listed, True)])
    # The beginning of a DigitalMicrograph file: version, length and byte order.
    dm = b"\0\0\0\4" + (200).to_bytes(8, "big") + b"\0\0\0\1" + bytes(range(200))
    return [*(_bytes(folder / name) for name in ("g.mrc", "g.tif", "g.gain", "g.gain", "g.tif")), dm]


def _request(folder: Path) -> Any:
    path = str(folder / "request.json")
    write_request(path, [Job("a.mrc", "out", "a", Settings())], "cpu", Compute())
    return json.loads(Path(path).read_text())


def _answer(folder: Path) -> bytes:
    path = str(folder / "request.json")
    append_result(path, 0, JobResult("a.mrc", True, shifts_px=[[0.0, 1.0]]))
    return _bytes(Path(answer_path(path)))


def _png(folder: Path) -> bytes:
    from flexalign_plugin.output.pictures import write_png

    write_png(str(folder / "p.png"), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    return _bytes(folder / "p.png")


def _report(folder: Path, result: Any) -> Any:
    from flexalign_plugin.report_pages import page

    results = _fresh(folder / "report", {"a_motion.json": json.dumps(result)})
    write_report(str(results))
    text = (results / "report.html").read_text()
    (line,) = [line for line in text.split("\n") if line.startswith(page._DATA_START)]
    return json.loads(line[len(page._DATA_START) : -len(page._DATA_END)])


# ------------------------------------------------------------------------------------------------------------- readers
def _fresh(folder: Path, files: Dict[str, str]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def _read_movie(path: str) -> None:
    with open_movie(path, SETTINGS) as movie:
        if np.prod(movie.shape, dtype=float) <= MAX_PIXELS:
            for i in range(movie.n_frames):
                movie.frame(i)
        else:  # only what is truncated or compressed can claim to be so large
            movie.frame(movie.n_frames - 1)


def _gain_reader(folder: Path) -> Callable[[str], None]:
    write_mrc_movie(str(folder / "movie.mrc"), np.ones((2, NY, NX), np.uint8))

    def read(path: str) -> None:
        with open_movie(str(folder / "movie.mrc"), SETTINGS) as movie:
            load_corrections(movie, Settings(gain=path))

    return read


def _defects_reader(folder: Path) -> Callable[[str], None]:
    _gain_reader(folder)

    def read(path: str) -> None:
        with open_movie(str(folder / "movie.mrc"), SETTINGS) as movie:
            load_corrections(movie, Settings(defect_file=path))

    return read


def _read_mdoc(path: str) -> None:
    mdoc = read_mdoc(path)
    prior_doses(mdoc.tilts)
    mdoc_text(mdoc, mdoc.tilts, "stack.mrc", 1.0, (NX, NY))


def _result_reader(folder: Path, good: Any) -> Callable[[str], None]:
    """The others of a folder are always reported and listed."""

    def read(path: str) -> None:
        results = _fresh(folder / "results", {"good_motion.json": json.dumps(good), "good_aligned_mic.mrc": ""})
        shutil.copy(path, results / "bad_motion.json")
        (results / "bad_aligned_mic.mrc").write_text("")
        run = write_report(str(results))
        assert "good" in {row["root"] for row in run.rows}
        assert len(run.rows) == 2 or any("bad_motion.json" in sentence for sentence in run.unreadable)
        problems = write_corrected_micrographs(str(results))
        star = (results / CORRECTED_MICROGRAPHS).read_text()
        assert "good_aligned_mic.mrc" in star and (
            "bad_aligned_mic.mrc" in star or any("bad_motion.json" in problem for problem in problems)
        )
        motion = load_saved_result(path)
        frame_positions(motion.model, motion.settings, [0.0], [0.0])

    return read


def _read_settings(path: str) -> None:
    settings_of(build_parser().parse_args(["align", "m.mrc", "--output", "o", "--settings", path]))


def _record_reader(folder: Path) -> Callable[[str], None]:
    from flexalign_plugin.protocols.records import load_record, sort_out

    def read(path: str) -> None:
        done = _fresh(folder / "done", {})
        shutil.copy(path, done / "movie_000001.json")
        load_record(path)
        sort_out(str(done), str(folder))

    return read


def _answer_reader(folder: Path) -> Callable[[str], None]:
    def read(path: str) -> None:
        shutil.copy(path, answer_path(str(folder / "other.json")))
        read_answer(str(folder / "other.json"))

    return read


def _failures_reader(folder: Path) -> Callable[[str], None]:
    def read(path: str) -> None:
        failures = read_failures(path)
        again = str(folder / "again.tsv")
        write_failures(again, failures)
        assert [line[1] for line in read_failures(again)] == [printable(line[1]) for line in failures]

    return read


def _picture_reader(folder: Path, good: Any) -> Callable[[str], None]:
    def read(path: str) -> None:
        results = _fresh(folder / "pictures", {"a_motion.json": json.dumps(good)})
        shutil.copy(path, results / "a_thumbnail.png")
        assert len(write_report(str(results)).rows) == 1

    return read


def _report_reader(folder: Path, good: Any) -> Callable[[str], None]:
    def read(path: str) -> None:
        results = folder / "report"
        content = Path(path).read_bytes().replace(b"\n", b" ")
        (results / "report.html").write_bytes(
            b'\n<script type="application/json" id="data">' + content + b"</script>\n"
        )
        assert [row["root"] for row in write_report(str(results)).rows] == ["a"]

    return read


def _read_list(path: str) -> None:
    try:
        build_parser().parse_args(["align", f"@{path}", "--output", "o"])
    except SystemExit as end:
        if end.code != 2:
            raise AssertionError(f"exit status {end.code}") from end


def check(target: Target, path: str, data: bytes) -> None:
    """Let the target read a file of this content; anything but success and a clear error is raised."""
    with open(path, "wb") as file:
        file.write(data)
    try:
        target.read(path)
    except FlexAlignError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 2000 and text.strip(), repr(text)
    finally:
        os.remove(path)
