"""`flexalign align`: the options, which are the fields of `Settings`, and what they become."""

from __future__ import annotations

import argparse
import json
import os
import signal
from typing import TYPE_CHECKING, Any, Callable, Dict

from ..errors import SettingsError
from ..settings import Settings
from .values import SOME_FAILED, SUCCESS, count, folder, positive, shorten_help

if TYPE_CHECKING:
    from ..execution.devices import Compute

# Headings in `flexalign align --help`: each stands before the setting named and those that follow it.
HEADINGS = {
    "pixel_size": "microscope",
    "gain": "gain, dark and defects",
    "n_frames": "EER movies",
    "flip_tiff": "frames and micrograph",
    "max_res_for_correlation": "alignment",
    "do_mag_cor": "magnification distortion",
    "do_local_alignment": "local alignment",
    "do_apply_dose_filter": "what is written",
    "low_memory": "how it is computed",
}
# Settings in the short help: what most people need. All others are in `--help-all`.
COMMON_SETTINGS = (
    ("help", "pixel_size", "voltage", "dose_per_frame")
    + ("gain", "dark", "gain_rot", "gain_flip", "defect_file", "n_frames", "eer_sampling")
    + ("align_frame0", "align_frame_n", "bin_factor", "do_local_alignment")
    + ("do_apply_dose_filter", "split_even_odd", "do_save_movie", "low_memory")
)
COMMON_OPTIONS = ("output", "settings", "device", "threads", "only_process", "json", "quiet")
DEVICE_HELP = (
    "auto, cpu, cuda (the first GPU), cuda:1, several as cuda:0,cuda:1, or all (GPUs); auto is the cpu until the GPU "
    "part has been tried on hardware (default: auto)"
)
FAILURE_HELP = "what a movie does that no GPU can align: fail (error) or go to the cpu (default: error)"
KINDS: Dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
METAVARS = {"bool": "yes|no", "int": "N", "float": "X", "str": "TEXT"}
DENOISER_PAIRS = 200
YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "align",
        help="align movies and write motion-corrected micrographs",
        description="Align movies (MRC, MRC.BZ2, MRC.GZ, TIFF, EER) and write the results directly into one folder.",
        usage="%(prog)s MOVIE [MOVIE ...] --output DIR --pixel-size A [OPTION ...]",
        epilog="Exit status: 0 every movie succeeded, 1 some failed (see failed.tsv in the output folder), "
        "2 wrong options, or gain, dark or defects can't be read; 130 interrupted.",
        fromfile_prefix_chars="@",
        allow_abbrev=False,  # a script must not change its meaning when an option is added
    )
    option = parser.add_argument
    option("movies", nargs="+", metavar="MOVIE", help="movie file; @FILE reads names from a file, one a line")
    option("--output", required=True, type=folder, metavar="DIR", help="folder of the results, made if it is missing")
    option("--settings", metavar="FILE", help="settings of an earlier result (_motion.json); options given here win")
    add_computing(parser)
    option("--spherical-aberration", type=float, default=2.7, metavar="MM", help="for RELION's list (default: 2.7)")
    option("--amplitude-contrast", type=float, default=0.1, metavar="W", help="for RELION's list (default: 0.1)")
    option(
        "--no-corrected-star",
        action="store_true",
        help="don't write RELION's list corrected_micrographs.star at the end, which holds all results in the folder",
    )
    option("--only-process", type=count, metavar="N", help="align only the first N movies")
    option(
        "--denoiser-pairs",
        type=count,
        nargs="?",
        const=DENOISER_PAIRS,
        default=0,
        metavar="N",
        help=f"split even and odd frames of the first N movies only, to train a denoiser (N: {DENOISER_PAIRS})",
    )
    option("--json", action="store_true", help="one JSON line a movie on standard output, nothing else there")
    option("--no-report", action="store_true", help="write no report.html (written after more than one movie)")
    option("--quiet", action="store_true", help="say only what failed")
    add_settings(parser)
    shorten_help(parser, COMMON_OPTIONS + COMMON_SETTINGS)
    parser.set_defaults(run=_align)


def add_computing(parser: Any) -> None:
    """Options that say what computes; `compute_of` reads them."""
    option = parser.add_argument
    option("--device", default="auto", metavar="NAME", help=DEVICE_HELP)
    option("--on-device-failure", choices=("error", "cpu"), default="error", help=FAILURE_HELP)
    option("--gpu-memory", type=positive, metavar="GB", help="most memory of each GPU that may be used (default: all)")
    option("--no-fft-tuning", action="store_true", help="do not search for the fastest FFT sizes of a GPU")
    option("--threads", type=count, metavar="N", help="CPU threads (default: all that may be used)")
    option("--timeout", type=positive, metavar="S", help="give a movie up after so many seconds (default: never)")


def compute_of(args: argparse.Namespace) -> Compute:
    """What computes; SettingsError where a name is no device's."""
    from ..execution.devices import Compute, device_names

    return Compute(
        device_names(args.device),
        args.threads,
        args.gpu_memory,
        tune_fft=not args.no_fft_tuning,
        cpu_instead=args.on_device_failure == "cpu",
    )


def add_settings(parser: Any) -> None:
    """An option for each field of `Settings`; `settings_of` reads them."""
    group: Any = parser
    for name, setting in Settings.__dataclass_fields__.items():
        if name in HEADINGS:
            group = parser.add_argument_group(HEADINGS[name])
        _add_setting(group, name, setting)


def _add_setting(group: Any, name: str, setting: Any) -> None:
    """Option of one field of `Settings`. Not given, it leaves no trace: a settings file may have the value."""
    flag = "--" + name.replace("_", "-")
    kind = str(setting.type).replace("Optional[", "").rstrip("]")
    what, choices = setting.metadata["help"].rstrip("."), setting.metadata["choices"]
    metavar = None if choices else setting.metadata["metavar"] or METAVARS[kind]
    common = {"dest": name, "default": argparse.SUPPRESS}
    if kind == "bool":
        default = f"yes; {flag.replace('--', '--no-', 1)} for no" if setting.default else "no"
        what = f"{what} (default: {default})".replace("%", "%%")
        group.add_argument(flag, nargs="?", const=True, type=_yes_or_no, metavar=metavar, help=what, **common)
        negation = flag.replace("--", "--no-", 1)
        group.add_argument(negation, action="store_const", const=False, help=argparse.SUPPRESS, **common)
        return
    if name == "pixel_size":
        what += " (required)"
    elif setting.default is not None:
        what += f" (default: {setting.default:g})" if kind == "float" else f" (default: {setting.default})"
    group.add_argument(flag, type=KINDS[kind], choices=choices, metavar=metavar, help=what.replace("%", "%%"), **common)


def _yes_or_no(text: str) -> bool:
    if text.lower() not in YES:
        raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no; names of movies go before such options")
    return YES[text.lower()]


def settings_of(args: argparse.Namespace) -> Settings:
    """Defaults, overruled by the settings file, overruled by the options that were given."""
    values = _settings_file(args.settings) if args.settings else {}
    given = {name: value for name, value in vars(args).items() if name in Settings.__dataclass_fields__}
    for name in ("gain", "dark", "defect_file", "defect_map"):
        if given.get(name):  # so that the result's settings serve from any folder
            given[name] = os.path.abspath(given[name])
    values.update(given)
    if "pixel_size" not in values:
        raise SettingsError("The pixel size is not known: give it with --pixel-size, in Angstrom.")
    settings = Settings.from_dict(values)
    if given.get("do_apply_dose_filter") and not settings.is_dose_weighted:
        raise SettingsError("Dose weighting needs the dose of a frame: give it with --dose-per-frame, in e/A^2.")
    return settings


def _settings_file(path: str) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror}): check the name given to --settings.") from error
    except ValueError as error:
        raise SettingsError(f"{path}: is no JSON file ({error}): give the _motion.json of a result.") from error
    values = values.get("settings", values) if isinstance(values, dict) else None
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: holds no settings: give the _motion.json of a result.")
    try:
        return Settings.from_dict(values).to_dict()
    except SettingsError as error:
        raise SettingsError(f"{path}: {error} Give the _motion.json of a result.") from error


def _align(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    # The aligner has threads of its own; must be set before NumPy is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from ..movies.corrections import check_files
    from ..runs.console import Report
    from ..runs.movies import align_movies

    check_files(settings)

    # A queue ends jobs with this signal: clean up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = Report(json_lines=args.json, quiet=args.quiet)
    movies = args.movies[: args.only_process]
    optics = None if args.no_corrected_star else (args.spherical_aberration, args.amplitude_contrast)
    failed = align_movies(
        movies, args.output, settings, report, compute_of(args), args.timeout, args.denoiser_pairs, optics
    )
    if not args.no_report and len(failed) < len(movies) > 1:
        from ..report_pages import LiveReport

        LiveReport(args.output, report.log).finish()
    return SOME_FAILED if failed else SUCCESS
