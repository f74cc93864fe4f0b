"""`flexalign align`: its options, one for each field of `Settings`, and running the alignment."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, Collection, Dict

from ..errors import SettingsError
from ..execution import time_limit
from ..inputs import read_json
from ..result_files import MOTION
from ..settings import DENOISER_PAIRS, Settings
from .values import SOME_FAILED, SUCCESS, count, folder, positive, shorten_help, stop_by_signals, within

if TYPE_CHECKING:
    from ..execution.devices import Compute
    from ..runs.movies import Run

# Headings in `flexalign align --help`: {first setting below the heading: heading}.
HEADINGS = {
    "pixel_size": "microscope",
    "gain": "gain, dark and defects",
    "n_frames": "EER movies",
    "flip_tiff": "frames and micrograph",
    "max_res_for_correlation": "alignment",
    "do_mag_cor": "magnification distortion",
    "do_local_alignment": "local alignment",
    "do_apply_dose_filter": "output",
    "low_memory": "computation",
}
# Settings in the short help: those that most users need. `--help-all` lists all.
COMMON_SETTINGS = (
    ("help", "pixel_size", "voltage", "dose_per_frame", "total_dose")
    + ("gain", "dark", "gain_rot", "gain_flip", "defect_file", "n_frames", "eer_dose", "eer_sampling")
    + ("align_frame0", "align_frame_n", "bin_factor", "do_local_alignment")
    + ("do_apply_dose_filter", "split_even_odd", "do_save_movie")
)
COMMON_OPTIONS = ("output", "settings", "skip_done", "device", "threads", "quiet")
DEVICE_HELP = (
    "auto, cpu, cuda (the first GPU), cuda:1, several as cuda:0,cuda:1, or all (GPUs); auto is the CPU until the GPU "
    "code has been run on hardware (default: auto)"
)
FAILURE_HELP = "movies that no GPU can align fail (error) or are aligned on the CPU (cpu) (default: error)"
WORKERS_HELP = (
    "movies that the CPU aligns at once; they share the threads (default: as many as there are threads, fewer if there "
    "is too little memory)"
)
TIMEOUT_HELP = f"time limit per movie in seconds (default: {time_limit.DEFAULT})"
SETTINGS_HELP = "take the settings of an earlier result (_motion.json); options on the command line have precedence"
QUIET_HELP = "print only failures"
KINDS: Dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
METAVARS = {"bool": "yes|no", "int": "N", "float": "X", "str": "TEXT"}
YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "align",
        help="align movies and write motion-corrected micrographs",
        description="Align movies (MRC, MRC.BZ2, MRC.GZ, TIFF, EER) and write the results into one folder.",
        usage="%(prog)s MOVIE [MOVIE ...] --output DIR --pixel-size A [OPTION ...]",
        epilog="Exit status: 0 every movie succeeded, 1 some failed (see failed.tsv in the output folder), "
        "2 invalid options, or gain, dark or defects can't be read; 130 interrupted.",
        fromfile_prefix_chars="@",
        allow_abbrev=False,  # an abbreviation in a script could become ambiguous when an option is added
    )
    option = parser.add_argument
    option("movies", nargs="+", metavar="MOVIE", help="movie file; @FILE reads names from a file, one per line")
    option("--settings", metavar="FILE", help=SETTINGS_HELP)
    add_run(parser)
    add_computing(parser)
    option("--only-process", type=count, metavar="N", help="align only the first N movies")
    option(
        "--denoiser-pairs",
        type=count,
        nargs="?",
        const=DENOISER_PAIRS,
        default=0,
        metavar="N",
        help="also write micrographs of the even and of the odd frames for the first N movies, to train a denoiser "
        f"(default of N: {DENOISER_PAIRS})",
    )
    option(
        "--no-mdoc",
        action="store_true",
        help="don't read the dose from a movie's own .mdoc, which is used if no dose is given",
    )
    option(
        "--skip-done",
        action="store_true",
        help="leave movies alone that are done with the same settings, to go on with a run",
    )
    add_settings(parser)
    shorten_help(parser, COMMON_OPTIONS + COMMON_SETTINGS)
    parser.set_defaults(run=_align)


def add_run(parser: Any) -> None:
    """Add the options for output folder, overwriting, lists, report and messages; `run_of` reads them."""
    option = parser.add_argument
    option("--output", required=True, type=folder, metavar="DIR", help="folder for the results, created if missing")
    option(
        "--overwrite",
        action="store_true",
        help="replace results of these movies with other settings in the output folder",
    )
    option(
        "--spherical-aberration",
        type=within(0, 100),
        default=2.7,
        metavar="MM",
        help="spherical aberration in mm, written to corrected_micrographs.star (default: 2.7)",
    )
    option(
        "--amplitude-contrast",
        type=within(0, 1),
        default=0.1,
        metavar="W",
        help="amplitude contrast, written to corrected_micrographs.star (default: 0.1)",
    )
    option(
        "--no-corrected-star",
        action="store_true",
        help="don't write corrected_micrographs.star, RELION's list of all micrographs in the folder, at the end",
    )
    option("--json", action="store_true", help="print only one line of JSON per movie to standard output")
    option("--no-report", action="store_true", help="don't write report.html (written after more than one movie)")
    option("--quiet", action="store_true", help=QUIET_HELP)


def run_of(args: argparse.Namespace) -> Run:
    """How the movies are processed, from the options of `add_run` and `add_computing`."""
    from ..runs.console import Report
    from ..runs.movies import Run

    optics = None if args.no_corrected_star else (args.spherical_aberration, args.amplitude_contrast)
    report = Report(json_lines=args.json, quiet=args.quiet)
    return Run(report, compute_of(args), optics, overwrite=args.overwrite)


def use_one_blas_thread() -> None:
    """The aligner uses its own threads, so BLAS must use one only. Must be called before NumPy is loaded."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def finish(args: argparse.Namespace, run: Run, n_movies: int, n_failed: int) -> int:
    """Write the report; returns the exit status."""
    if not args.no_report and n_failed < n_movies > 1:
        from ..report_pages import LiveReport

        LiveReport(args.output, run.report.log).finish()
    return SOME_FAILED if n_failed else SUCCESS


def add_computing(parser: Any) -> None:
    """Add the options for devices, threads and time limit; `compute_of` reads them."""
    option = parser.add_argument
    option("--device", default="auto", metavar="NAME", help=DEVICE_HELP)
    option("--on-device-failure", choices=("error", "cpu"), default="error", help=FAILURE_HELP)
    option("--gpu-memory", type=positive, metavar="GB", help="maximum memory to use on each GPU (default: all)")
    option("--no-fft-tuning", action="store_true", help="don't search for the fastest FFT sizes of a GPU")
    option("--threads", type=count, metavar="N", help="CPU threads (default: all available)")
    option("--workers", type=count, metavar="N", help=WORKERS_HELP)
    option("--timeout", type=positive, metavar="S", help=TIMEOUT_HELP)


def compute_of(args: argparse.Namespace) -> Compute:
    """Devices, threads, memory and time limit from the options; SettingsError if a name is not that of a device."""
    from ..execution.devices import Compute, device_names

    return Compute(
        device_names(args.device),
        args.threads,
        args.gpu_memory,
        tune_fft=not args.no_fft_tuning,
        cpu_instead=args.on_device_failure == "cpu",
        timeout_s=args.timeout,
        workers=args.workers,
    )


def add_settings(parser: Any, without: Collection[str] = (), defaults: bool = True) -> None:
    """Add an option for each field of `Settings` but those in `without`; `settings_of` reads them.

    defaults : whether the help states them; without, an option that is not given leaves an earlier value as it was.
    """
    groups: Dict[str, Any] = {}
    heading = ""
    for name, setting in Settings.__dataclass_fields__.items():
        heading = HEADINGS.get(name, heading)
        if name not in without:
            if heading not in groups:
                groups[heading] = parser.add_argument_group(heading)
            add_setting(groups[heading], name, setting, defaults)


def add_setting(group: Any, name: str, setting: Any, defaults: bool = True) -> None:
    """Add the option of one field of settings; if it is not given, the value may come from the settings file."""
    flag = "--" + name.replace("_", "-")
    kind = str(setting.type).replace("Optional[", "").rstrip("]")
    help_text, choices = setting.metadata["help"].rstrip("."), setting.metadata["choices"]
    metavar = None if choices else setting.metadata["metavar"] or METAVARS[kind]
    common = {"dest": name, "default": argparse.SUPPRESS}
    if kind == "bool":
        default = f"yes; off with {flag.replace('--', '--no-', 1)}" if setting.default else "no"
        help_text = (f"{help_text} (default: {default})" if defaults else help_text).replace("%", "%%")
        group.add_argument(flag, nargs="?", const=True, type=_yes_or_no, metavar=metavar, help=help_text, **common)
        negation = flag.replace("--", "--no-", 1)
        group.add_argument(negation, action="store_const", const=False, help=argparse.SUPPRESS, **common)
        return
    if name == "pixel_size":
        help_text += " (required, unless --settings contains it)"
    elif setting.default is not None and defaults:
        help_text += f" (default: {setting.default:g})" if kind == "float" else f" (default: {setting.default})"
    help_text = help_text.replace("%", "%%")
    group.add_argument(flag, type=KINDS[kind], choices=choices, metavar=metavar, help=help_text, **common)


def _yes_or_no(text: str) -> bool:
    if text.lower() not in YES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither yes nor no: give yes or no, and write the names of the movies before this option"
        )
    return YES[text.lower()]


DOSES = ("dose_per_frame", "frame_doses", "total_dose", "dose_per_hardware_frame")  # only one may be given


def settings_of(args: argparse.Namespace) -> Settings:
    """Settings from the options; those not given are taken from the settings file, else they have their defaults."""
    return changed(_settings_file(args.settings) if args.settings else {}, args)


def changed(values: Dict[str, Any], args: argparse.Namespace) -> Settings:
    """The settings with these values, but for those that are given as options."""
    given = {name: value for name, value in vars(args).items() if name in Settings.__dataclass_fields__}
    for name in ("gain", "dark", "defect_file", "defect_map"):
        if given.get(name):  # so that the saved settings can be used from any folder
            given[name] = os.path.abspath(given[name])
    if {"sum_frame0", "sum_frame_n"} & set(given):  # a range to sum is meant to be used
        given.setdefault("use_align_to_sum", False)
    if any(name in given for name in DOSES):  # one replaces another
        values = {name: value for name, value in values.items() if name not in DOSES}
    values.update(given)
    if "pixel_size" not in values:
        raise SettingsError("The pixel size is missing: give it with --pixel-size, in Angstrom.")
    settings = Settings.from_dict(values)
    if given.get("do_apply_dose_filter") and not settings.is_dose_weighted:
        raise SettingsError("Dose weighting needs the dose: give it with --dose-per-frame or --total-dose, in e/A^2.")
    return settings


def check_corrections(settings: Settings) -> None:
    """Raise CorrectionError if gain, dark or defects can't be read. Readers are loaded only if there are such files."""
    if settings.gain or settings.dark or settings.defect_map or settings.defect_file:
        from ..movies.corrections import check_files

        check_files(settings)


def _settings_file(path: str) -> Dict[str, Any]:
    try:
        values = read_json(path)
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror}): check the name given to --settings.") from error
    except ValueError as error:
        raise SettingsError(f"{path}: is not a JSON file ({error}): give the {MOTION} of a result.") from error
    if not isinstance(values, dict) or not isinstance(values.get("settings", values), dict):
        raise SettingsError(f"{path}: contains no settings: give the {MOTION} of a result.")
    from ..output.motion_json import settings_of_result

    try:
        return (settings_of_result(values) if "settings" in values else Settings.from_dict(values)).to_dict()
    except SettingsError as error:
        raise SettingsError(f"{path}: {error} Give the {MOTION} of a result.") from error


def _align(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    use_one_blas_thread()
    from ..runs.movies import align_movies

    check_corrections(settings)
    stop_by_signals()
    run = replace(run_of(args), use_mdoc=not args.no_mdoc, skip_done=args.skip_done)
    movies = args.movies[: args.only_process]
    failed = align_movies(movies, args.output, settings, run, args.denoiser_pairs)
    return finish(args, run, len(movies), len(failed))
