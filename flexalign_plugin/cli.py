"""The command `flexalign`: align movies, make phantom movies, say what this machine offers. No Scipion in it.

Here are the options and what they become; `align_movies` does the work of `flexalign align`. Nothing heavy is imported
before it is known what to do, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import Any, Callable, Dict, Optional, Sequence

from . import __version__
from .errors import FlexAlignError, SettingsError
from .settings import Settings

SUCCESS, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# Headings in `flexalign align --help`: each stands before the setting named and those that follow it.
HEADINGS = {
    "pixel_size": "microscope",
    "gain": "gain, dark and defects",
    "n_frames": "EER movies",
    "align_frame0": "frames and micrograph",
    "max_res_for_correlation": "alignment",
    "do_local_alignment": "local alignment",
    "do_save_ave_mic": "what is written",
}
KINDS: Dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
METAVARS = {"bool": "yes|no", "int": "N", "float": "X", "str": "TEXT"}
YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line; returns the exit status."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except SettingsError as error:
        print(f"flexalign: {error}", file=sys.stderr)
        return USAGE
    except FlexAlignError as error:
        print(f"flexalign: {error}", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print("flexalign: interrupted; what was finished before is complete.", file=sys.stderr)
        return INTERRUPTED


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flexalign", description="Motion correction of cryo-EM movies.")
    parser.add_argument("--version", action="version", version=f"flexalign {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_align(commands)
    _add_phantom(commands)
    info = commands.add_parser("info", help="versions, processor and devices, and what will be used")
    info.set_defaults(run=_info)
    return parser


# --------------------------------------------------------------------------------------------------- flexalign align


def _add_align(commands: Any) -> None:
    parser = commands.add_parser(
        "align",
        help="align movies and write motion-corrected micrographs",
        description="Align movies (MRC, MRC.BZ2, MRC.GZ, TIFF, EER) and write the results directly into one folder.",
        epilog="Exit status: 0 every movie succeeded, 1 some failed (see failed.tsv in the output folder), "
        "2 wrong options, 130 interrupted.",
        fromfile_prefix_chars="@",
        allow_abbrev=False,  # a script must not change its meaning when an option is added
    )
    add = parser.add_argument
    add("movies", nargs="+", metavar="MOVIE", help="movie file; @FILE reads names from a file, one a line")
    add("--output", required=True, metavar="DIR", help="folder of the results, made if it is missing")
    add("--settings", metavar="FILE", help="settings of an earlier result (_motion.json); options given here win")
    add("--device", default="auto", help="auto or cpu (default: auto)")
    add("--threads", type=_count, metavar="N", help="CPU threads (default: all that may be used)")
    add("--timeout", type=_positive, metavar="S", help="give a movie up after so many seconds (default: never)")
    add("--json", action="store_true", help="one JSON line a movie on standard output, nothing else there")
    add("--quiet", action="store_true", help="say only what failed")
    group: Any = parser
    for name, setting in Settings.__dataclass_fields__.items():
        if name in HEADINGS:
            group = parser.add_argument_group(HEADINGS[name])
        _add_setting(group, name, setting)
    parser.set_defaults(run=_align)


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
        raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")
    return YES[text.lower()]


def _whole(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _count(text: str) -> int:
    if _whole(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


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
    return Settings.from_dict(values)


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
    except (SettingsError, TypeError) as error:  # a text where a number belongs can't even be compared
        raise SettingsError(f"{path}: {error} Give the _motion.json of a result.") from error


def _align(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    # The aligner has threads of its own; must be set before NumPy is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from .align_movies import align_movies
    from .report import Report

    # A queue ends jobs with this signal: clean up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = Report(json_lines=args.json, quiet=args.quiet)
    failed = align_movies(args.movies, args.output, settings, report, args.device, args.threads, args.timeout)
    return SOME_FAILED if failed else SUCCESS


# ------------------------------------------------------------------------------------------------- flexalign phantom


def _add_phantom(commands: Any) -> None:
    parser = commands.add_parser(
        "phantom",
        help="make movies with a known motion",
        description="Make movies with a known motion; the truth is written beside each, as <name>_truth.json.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="folder for the movies, made if it is missing")
    add("--kind", choices=("particles", "grid"), default="particles", help="random structure or the paper's grid")
    add("--size", nargs=2, type=_count, metavar=("NX", "NY"), default=(4096, 4096), help="size of the frames in pixels")
    add("--frames", type=_count, metavar="N", default=30, help="frames in a movie")
    add("--format", choices=("mrc", "tiff", "eer"), default="mrc", help="format of the movie")
    add("--compression", choices=("none", "lzw", "deflate", "zstd"), default="none", help="of TIFF movies")
    add("--hardware-frames", type=_count, metavar="N", default=8, help="EER: hardware frames in each frame")
    gains = ("none", "auto", "mrc", "tiff", "gain")
    add("--gain", choices=gains, default="none", help="uneven detector, faulty pixels; format of the gain file")
    add("--movies", type=_count, metavar="N", default=1, help="number of movies, with consecutive seeds")
    add("--name", default="phantom", help="start of the file names")
    add("--seed", type=_whole, metavar="N", default=1, help="of structure, motion and noise")
    add("--pixel-size", type=_positive, metavar="A", default=1.0, help="pixel size in Angstrom")
    add = parser.add_argument_group("particles only").add_argument
    add("--dose", type=_positive, metavar="D", default=1.0, help="electrons per pixel and frame")
    add("--contrast", type=_positive, metavar="C", default=0.15, help="rms of the structure relative to its mean")
    add("--band-limit", type=_positive, metavar="A", default=10.0, help="finest structure in Angstrom")
    add("--drift", type=float, metavar="PX", default=9.0, help="length of the common drift")
    add("--local", type=float, metavar="PX", default=6.0, help="largest local motion on each axis")
    add("--defocus", type=float, metavar="A", default=0.0, help="underfocus, for Thon rings; 0: no microscope")
    add = parser.add_argument_group("grid only").add_argument
    add("--doming", type=float, metavar="D", default=1.0, help="multiple of the paper's doming; 0: drift only")
    parser.set_defaults(run=_phantom)


def _phantom(args: argparse.Namespace) -> int:
    if args.compression != "none" and args.format != "tiff":
        raise SettingsError(f"--compression {args.compression} is for TIFF only: add --format tiff or leave it out.")
    from .micrographs.files import output_error, prepare_folder
    from .phantom_files import with_detector, write_phantom

    prepare_folder(args.output)
    for i in range(args.movies):
        name = args.name if args.movies == 1 else f"{args.name}_{i + 1:04d}"
        try:
            phantom = _made(args, args.seed + i)
            if args.gain != "none":
                phantom = with_detector(phantom, args.seed)  # one detector for all movies of a call
            files = write_phantom(
                phantom, args.output, name, args.format, args.compression, args.gain, args.hardware_frames
            )
        except ValueError as error:
            raise SettingsError(f"No such phantom: {error}.") from error
        except OSError as error:
            raise output_error(os.path.join(args.output, name), error) from error
        for what, path in files.items():
            print(f"{what}: {path}")
    if args.format == "eer":
        print(f"align with: --n-frames {args.frames}")
    return SUCCESS


def _made(args: argparse.Namespace, seed: int) -> Any:
    from .phantom import grid_phantom, particle_phantom

    shape = (args.frames, args.size[1], args.size[0])
    if args.kind == "grid":
        return grid_phantom(shape, args.doming, args.pixel_size, seed)
    return particle_phantom(
        shape,
        pixel_size_A=args.pixel_size,
        dose=args.dose,
        contrast=args.contrast,
        band_limit_A=args.band_limit,
        drift_px=args.drift,
        local_px=args.local,
        seed=seed,
        defocus_A=args.defocus,
    )


# ---------------------------------------------------------------------------------------------------- flexalign info


def _info(args: argparse.Namespace) -> int:
    import importlib
    import platform

    from .kernels import select_backend, usable_cores

    print(f"flexalign     {__version__} ({os.path.dirname(os.path.abspath(__file__))})")
    print(f"python        {platform.python_version()} ({sys.executable})")
    for name in ("numpy", "scipy", "numba", "imagecodecs", "tifffile", "mrcfile", "matplotlib"):
        try:
            print(f"{name:13} {importlib.import_module(name).__version__}")
        except ImportError as error:
            print(f"{name:13} missing ({error}): install it, e.g. with pip install {name}")
    memory_GB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    print(f"processor     {usable_cores()} of {os.cpu_count()} cores may be used, {memory_GB:.0f} GB of memory")
    print("devices       cpu (this version does not use GPUs)")
    backend: Any = select_backend("auto")
    print(f"will be used  {backend.name}, {backend.threads} threads")
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
