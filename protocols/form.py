"""The form of ProtFlexAlign; `tilt_form` takes its parts from here.

Defaults and help texts come from `Settings`, which also checks the values; here are labels, order and longer help.
Parameter names are those of XmippProtFlexAlign, so that its workflows carry over.
"""

from __future__ import annotations

from typing import Any

import pyworkflow.protocol.params as params
from pyworkflow.protocol.constants import LEVEL_ADVANCED

from flexalign_plugin.settings import FIELDS_OF_FORM, Settings

from . import devices

DEFAULT_THREADS = 4
DENOISER_PAIRS = 200


def add(where: Any, name: str, label: str, more: str = "", **kwargs: Any) -> None:
    """Add the parameter of one Settings field; its type, first line of help and, unless given, default are the
    field's."""
    field = Settings.__dataclass_fields__[FIELDS_OF_FORM[name]]
    default, choices = kwargs.pop("default", field.default), field.metadata["choices"]
    help_text = field.metadata["help"] + ("\n" + more if more else "")
    kwargs.update(label=label, help=help_text)
    if choices is not None:
        texts = kwargs.pop("choices", [str(c) for c in choices])
        where.addParam(name, params.EnumParam, choices=texts, default=choices.index(default), **kwargs)
    elif default is None:
        where.addParam(name, params.FileParam, default="", allowsNull=True, **kwargs)
    else:
        kinds = {bool: params.BooleanParam, int: params.IntParam, float: params.FloatParam}
        where.addParam(name, kinds[type(default)], default=default, **kwargs)


def define_form(form: Any) -> None:
    """All parameters but the input movies, which the base class has put into the section that is open."""
    devices.define_choice(form)
    define_frames(form)
    define_correction(form)
    define_alignment(form)
    _define_output(form)
    define_computing(form, can_stop_early=True)


def define_computing(form: Any, can_stop_early: bool = False) -> None:
    form.addSection(label="Computing")
    group = form.addGroup("The run")
    if can_stop_early:
        group.addParam(
            "onlyProcess",
            params.IntParam,
            default=0,
            label="Only process N movies",
            help="Stop after the first so many movies, to try settings out. 0: all.",
        )
    add(group, "lowMemory", "Low-memory mode?", "For movies that do not fit otherwise. The results are the same.")
    devices.define_details(form)
    form.addParallelSection(
        threads=1,
        mpi=0,
        binThreads=DEFAULT_THREADS,
        binThreadsHelp="CPU cores that compute one movie (never more are used than the machine has). Movies are "
        "computed one after the other, the next one is read meanwhile: leave *Scipion threads* at 1 and put all cores "
        "here. With GPUs: cores that read and decode the movies of each GPU. If steps are jobs of a cluster's queue: "
        "cores of each job, and *Scipion threads* less one is the number of jobs at once.",
    )


def define_frames(form: Any, movies: str = "inputMovies", eer_frames: int = Settings.n_frames) -> None:
    """movies : name of the parameter that is the input; conditions are looked at again when it changes."""
    only_eer, only_tiff = f"{movies} is not None and inputIsEer", f"{movies} is not None and inputIsTiff"
    group = form.addGroup("Frames")
    line = group.addLine(
        "Frames to ALIGN",
        help="First and last frame to align, counted from 1 in the movie's file. 0 as the last means: to the end. For "
        "EER movies these are the frames after grouping.",
    )
    add(line, "alignFrame0", "from")
    add(line, "alignFrameN", "to")
    add(
        group,
        "useAlignToSum",
        "Use ALIGN frames range to SUM?",
        "With *No* you choose the frames that make up the micrograph, a part of those aligned: for instance without "
        "the first frames, which move most.",
    )
    line = group.addLine(
        "Frames to SUM",
        condition="not useAlignToSum",
        help="First and last frame in the micrograph, counted from 1; they must lie inside the range to align. 0 as "
        "the last means: up to the last one aligned.",
    )
    add(line, "sumFrame0", "from")
    add(line, "sumFrameN", "to")

    group = form.addGroup("TIFF movies", condition=only_tiff, expertLevel=LEVEL_ADVANCED)
    add(
        group,
        "flipTiff",
        "Turn TIFF movies upside down?",
        "Micrographs and shifts are then those of the turned frames: say Yes for Bayesian polishing in RELION, No if "
        "other programs of Scipion are to read the same movies.",
        condition=only_tiff,
        expertLevel=LEVEL_ADVANCED,
    )
    group = form.addGroup("EER movies", condition=only_eer)
    add(
        group,
        "nFrames",
        "Number of EER frames",
        "The camera stores hundreds of thin hardware frames; they are added up in equal groups. About 1 e/A^2 in each "
        "group is a good choice. The dose per frame of imported movies is taken as that of a hardware frame; of a "
        "tilt, the dose of the whole tilt is known.",
        condition=only_eer,
        default=eer_frames,
    )
    add(
        group,
        "eerSampling",
        "EER rendering",
        "Electrons are located finer than a pixel. With 8K or 16K, the pixel size of the imported movies must be that "
        "of the finer grid.",
        choices=["4K (physical pixels)", "8K", "16K"],
        display=params.EnumParam.DISPLAY_COMBO,
        condition=only_eer,
    )


def define_correction(form: Any) -> None:
    form.addSection(label="Gain and defects")
    group = form.addGroup("Gain reference (the one given when the movies were imported)")
    add(
        group,
        "gainRot",
        "Rotate the gain",
        "The rotation comes first, then the flip.",
        choices=["no rotation", "90 degrees", "180 degrees", "270 degrees"],
        display=params.EnumParam.DISPLAY_COMBO,
    )
    add(
        group,
        "gainFlip",
        "Flip the gain",
        choices=["no flip", "upside down", "left right"],
        display=params.EnumParam.DISPLAY_COMBO,
    )
    add(
        group,
        "gainConvention",
        "Gain multiplies or divides",
        "A wrong choice shows as the detector's pattern in the micrographs.",
        expertLevel=LEVEL_ADVANCED,
        display=params.EnumParam.DISPLAY_COMBO,
    )
    add(
        group,
        "gainRowOrder",
        "Order of the gain's rows",
        "TIFF files store the top row first, MRC files the bottom row.",
        expertLevel=LEVEL_ADVANCED,
        display=params.EnumParam.DISPLAY_COMBO,
    )
    group = form.addGroup("Bad pixels (each is replaced by its good neighbours)")
    add(group, "removeHotPixels", "Find hot and dead pixels?")
    add(group, "defectFile", "Defect list", "x and y of a rectangle's first pixel, counted from 0.")
    add(group, "defectMap", "Defect map", "It must have the size of the movie's frames.")
    group = form.addGroup("Magnification distortion", expertLevel=LEVEL_ADVANCED)
    add(
        group,
        "doMagCor",
        "Correct magnification distortion?",
        "The picture is stretched about its centre; the pixel size stays the one of the movies. Don't combine it with "
        "Bayesian polishing in RELION, which reads the movies as they are.",
        expertLevel=LEVEL_ADVANCED,
    )
    asked = {"condition": "doMagCor", "expertLevel": LEVEL_ADVANCED}
    add(group, "scaleMaj", "Major scale factor", **asked)
    add(group, "scaleMin", "Minor scale factor", **asked)
    add(group, "angDist", "Distortion angle (deg)", **asked)


def define_alignment(form: Any, local: bool = True) -> None:
    """local : whether local motion is measured by default."""
    form.addSection(label="Alignment")
    group = form.addGroup("Whole frames")
    add(
        group,
        "maxShift",
        "Maximum shift (A), 0 = automatic",
        "How far the sample may move from one frame to the next; the whole drift may be many times longer. "
        "0: automatic, which starts with 50 A and goes beyond where frames find no partner within it.",
    )
    add(
        group,
        "maxResForCorrelation",
        "Maximum resolution (A), 0 = automatic",
        "Details finer than this are mostly noise in a single frame and are left out of the comparison. "
        "0: automatic, 30 A for a field of view of 4096 A, finer (to 20 A) for smaller ones with fine detail.",
    )
    group = form.addGroup("Local motion")
    add(
        group,
        "doLocalAlignment",
        "Correct local motion?",
        "The beam makes the sample bend: different places of the image move differently. The motion is measured in "
        "patches and described by one smooth spline in space and time.",
        default=local,
    )
    advanced = {"expertLevel": LEVEL_ADVANCED}
    if_local = "doLocalAlignment"
    add(group, "autoPatches", "Choose patches automatically?", condition=if_local, **advanced)
    add(
        group,
        "minLocalRes",
        "Min size of the patch (A)",
        "Smaller patches follow the motion more closely but are noisier.",
        condition=if_local,
        **advanced,
    )
    line = group.addLine("Number of patches", condition=f"{if_local} and not autoPatches", **advanced)
    add(line, "patchesX", "X")
    add(line, "patchesY", "Y")
    add(group, "groupNFrames", "Group N frames", "Raises the signal of dim movies.", condition=if_local, **advanced)
    add(group, "autoControlPoints", "Choose control points automatically?", condition=if_local, **advanced)
    line = group.addLine(
        "Control points (override knots)",
        condition=f"{if_local} and not autoControlPoints",
        help="Number of control points of the spline along the image's axes and in time, at least 3 each. More follow "
        "the motion more closely and are noisier.",
        **advanced,
    )
    add(line, "controlPointX", "X")
    add(line, "controlPointY", "Y")
    add(line, "controlPointT", "time")
    add(
        group,
        "doRefinement",
        "Refine the whole motion together?",
        "Pairs of frames are compared first. With *Yes* the resulting motion is then adjusted so that the sum of all "
        "frames becomes as sharp as it can be; helps most with dim movies.",
        condition=if_local,
        **advanced,
    )


def _define_output(form: Any) -> None:
    form.addSection(label="Output")
    _define_dose(form)
    group = form.addGroup("Micrographs")
    add_image_parameters(group)
    add(group, "doSaveAveMic", "Save aligned micrographs?", expertLevel=LEVEL_ADVANCED)
    _define_halves(form)
    group = form.addGroup("Further results")
    add_psd(group)
    add(
        group,
        "doSaveMovie",
        "Save aligned movies?",
        "The output movies are then these (binned and cropped like the micrographs, as large as 32-bit numbers make "
        "them) instead of the input movies with their shifts.",
        expertLevel=LEVEL_ADVANCED,
    )
    add(
        group,
        "doSavePs",
        "Save spectra for CTF programs?",
        "Frames are summed in groups of 4 e/A^2, the power spectra of the groups are summed again, and its root is "
        "written (_PS.mrc, 512 x 512). Thon rings are clearer there than in the spectrum of the micrograph.",
        expertLevel=LEVEL_ADVANCED,
    )


def add_image_parameters(group: Any) -> None:
    add(
        group,
        "binFactor",
        "Binning factor",
        "2 halves the number of pixels on each axis. The alignment itself always uses the full frames.",
    )
    add(group, "fcropFactor", "F-crop factor", expertLevel=LEVEL_ADVANCED)
    line = group.addLine("Crop offsets (px)", help="First column (X) and row (Y) that is written, in unbinned pixels.")
    add(line, "cropOffsetX", "X")
    add(line, "cropOffsetY", "Y")
    line = group.addLine(
        "Crop dimensions (px)", help="Width (X) and height (Y) that is written, in unbinned pixels. 0: up to the edge."
    )
    add(line, "cropDimX", "X")
    add(line, "cropDimY", "Y")
    add(
        group,
        "saveFloat16",
        "Write 16-bit floats?",
        "Half the disk space, and precise enough. Some programs can't read this kind of MRC file (mode 12).",
    )


def add_psd(group: Any) -> None:
    add(
        group,
        "doComputePSD",
        "Compute PSD (before/after)?",
        "The picture shows, side by side, whether the correction brought the Thon rings out.",
    )


def _define_dose(form: Any) -> None:
    group = form.addGroup("Dose weighting")
    add(
        group,
        "doApplyDoseFilter",
        "Apply dose filter?",
        "The beam destroys fine detail first: late frames are weighted down at high resolution (Grant and Grigorieff, "
        "2015). The weighted micrographs are an output of their own. Use them for particles, the unweighted ones to "
        "find the CTF.",
    )
    add(
        group,
        "doSaveUnweightedMic",
        "Save unweighted micrographs?",
        condition="doApplyDoseFilter",
    )
    group.addParam(
        "useMovieDose",
        params.BooleanParam,
        default=True,
        label="Take the dose from the movies?",
        help="With *Yes* dose per frame and initial dose are those given when the movies were imported. With *No* they "
        "are given here.",
        expertLevel=LEVEL_ADVANCED,
    )
    line = group.addLine(
        "Dose (e/A^2)",
        condition="not useMovieDose",
        help="Dose of one frame as it is aligned (for EER: of one group of hardware frames), and the dose before the "
        "first frame of the file.",
        expertLevel=LEVEL_ADVANCED,
    )
    line.addParam("dosePerFrame", params.FloatParam, default=1.0, label="per frame")
    line.addParam("preExposure", params.FloatParam, default=0.0, label="before")


def _define_halves(form: Any) -> None:
    group = form.addGroup("Even and odd frames")
    add(
        group,
        "splitEvenOdd",
        "Sum even and odd frames apart?",
        "Two more micrographs of half the frames each, moved by the same motion: for denoisers, and to measure how far "
        "the halves agree (Fourier ring correlation).",
    )
    group.addParam(
        "denoiserPairs",
        params.BooleanParam,
        default=False,
        label="Pairs to train a denoiser?",
        help="Sum even and odd frames apart of the first movies only.",
        condition="not splitEvenOdd",
    )
    group.addParam(
        "nDenoiserPairs",
        params.IntParam,
        default=DENOISER_PAIRS,
        label="Number of pairs",
        help="200 are enough to train a denoiser.",
        condition="denoiserPairs and not splitEvenOdd",
    )
