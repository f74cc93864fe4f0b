"""The form of ProtFlexAlign; `tilt_form` uses parts of it.

Defaults and the first line of each help text come from `Settings`, which also checks the values. Labels, order and
additional help are defined here.

Parameters that XmippProtFlexAlign also has keep its names. The name of the protocol class differs, and so do the
defaults of *maxResForCorrelation*, *maxShift*, *useGpu* and *numberOfThreads* and the meaning of a few parameters: the
gain, for example, is flipped after its rotation here. docs/migration.md lists the differences and how to reuse a
workflow.
"""

from __future__ import annotations

from typing import Any

import pyworkflow.protocol.params as params
from pyworkflow.protocol.constants import LEVEL_ADVANCED

from flexalign_plugin.settings import DENOISER_PAIRS, FIELDS_OF_FORM, Settings

from . import devices

DEFAULT_THREADS = 4
EER_GROUP, EER_DOSE = 20, 1.0  # usual values


def add(where: Any, name: str, label: str, more: str = "", **kwargs: Any) -> None:
    """Add the parameter of one Settings field; see `add_field`."""
    add_field(where, name, Settings.__dataclass_fields__[FIELDS_OF_FORM[name]], label, more, **kwargs)


def add_field(where: Any, name: str, field: Any, label: str, more: str = "", **kwargs: Any) -> None:
    """Add a parameter with the type, the default and the help of a field of settings.

    Parameters
    ----------
    where : form, group or line. field : of the dataclass, declared with `option`.
    more : additional help, shown below the help of the field.
    kwargs : passed to pyworkflow; `default` replaces the field's default, `choices` the texts of its choices.
    """
    default, choices = kwargs.pop("default", field.default), field.metadata["choices"]
    help_text = field.metadata["help"] + ("\n" + more if more else "")
    kwargs.update(label=label, help=help_text)
    if choices is not None:
        texts = kwargs.pop("choices", [str(c) for c in choices])
        where.addParam(name, params.EnumParam, choices=texts, default=choices.index(default), **kwargs)
    elif default is None:
        where.addParam(name, params.FileParam, default="", allowsNull=True, **kwargs)
    else:
        kinds = {bool: params.BooleanParam, int: params.IntParam, float: params.FloatParam, str: params.StringParam}
        where.addParam(name, kinds[type(default)], default=default, **kwargs)


def define_form(form: Any) -> None:
    """Add all parameters except the input movies, which the base class has already added to the open section."""
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
            help="Align only the first N movies of the input, for example to test settings. 0: all movies.",
        )
    add(group, "lowMemory", "Low-memory mode?", "For movies that do not fit into memory. The results are the same.")
    devices.define_movies_at_once(group)
    devices.define_time_limit(group)
    devices.define_details(form)
    form.addParallelSection(
        threads=1,
        mpi=0,
        binThreads=DEFAULT_THREADS,
        binThreadsHelp="Number of CPU cores that align the movies (limited to the cores of the machine). Several "
        "movies are aligned at the same time and share these cores (*Movies at once*): enter all cores here and leave "
        "*Scipion threads* at 1. With GPUs: CPU cores that read and decode the movies of each GPU. If each step is "
        "submitted to the queue of a cluster: CPU cores of each job. The number of simultaneous jobs is then *Scipion "
        "threads* minus 1.",
    )


def define_frames(form: Any, movies: str = "inputMovies", eer_frames: int = Settings.n_frames) -> None:
    """Parameters that select and group the frames.

    Parameters
    ----------
    movies : name of the input parameter; pyworkflow evaluates the conditions again when it changes.
    eer_frames : default number of EER frames.
    """
    only_eer, only_tiff = f"{movies} is not None and inputIsEer", f"{movies} is not None and inputIsTiff"
    group = form.addGroup("Frames")
    line = group.addLine(
        "Frames to ALIGN",
        help="First and last frame to align, counted from 1 as in the movie file. 0 as the last frame means the last "
        "frame of the movie. For EER movies these are the frames after grouping.",
    )
    add(line, "alignFrame0", "from")
    add(line, "alignFrameN", "to")
    add(
        group,
        "useAlignToSum",
        "Use ALIGN frames range to SUM?",
        "With *No* you choose which of the aligned frames are summed into the micrograph, for example without the "
        "first frames, which move most.",
    )
    line = group.addLine(
        "Frames to SUM",
        condition="not useAlignToSum",
        help="First and last frame to sum into the micrograph, counted from 1. Both must be inside the range to align. "
        "0 as the last frame means the last aligned frame.",
    )
    add(line, "sumFrame0", "from")
    add(line, "sumFrameN", "to")

    add(
        group,
        "useWholeFrames",
        "Use complete frames of truncated movies?",
        "With *No* a movie whose file was cut off, for example by an interrupted copy, fails. With *Yes* its complete "
        "frames are aligned, and a warning states what is missing.",
        expertLevel=LEVEL_ADVANCED,
    )

    group = form.addGroup("TIFF movies", condition=only_tiff, expertLevel=LEVEL_ADVANCED)
    add(
        group,
        "flipTiff",
        "Turn TIFF movies upside down?",
        "Micrographs and shifts then refer to the flipped frames. Choose *Yes* for Bayesian polishing in RELION, and "
        "*No* if other programs in Scipion will read the same movies.",
        condition=only_tiff,
        expertLevel=LEVEL_ADVANCED,
    )
    group = form.addGroup("EER movies", condition=only_eer)
    group.addParam(
        "eerFractionation",
        params.EnumParam,
        choices=["Number of frames", "Hardware frames in each", "Dose of each"],
        default=0,
        label="EER frames are chosen by",
        help="The camera stores hundreds of hardware frames with few electrons each. They are summed in groups of "
        "equal size. A dose of about 1 e/A^2 in each group is a good choice. The dose per frame of imported EER movies "
        "is the dose of one hardware frame. For tilt series the import gives the dose of the whole tilt.",
        display=params.EnumParam.DISPLAY_COMBO,
        condition=only_eer,
    )
    add(
        group,
        "nFrames",
        "Number of EER frames",
        condition=f"{only_eer} and eerFractionation == 0",
        default=eer_frames,
    )
    add(
        group,
        "eerGroup",
        "Hardware frames in each frame",
        "MotionCor and RELION call it EER fractionation.",
        condition=f"{only_eer} and eerFractionation == 1",
        default=EER_GROUP,
        validators=[params.Positive],
    )
    add(
        group,
        "eerDose",
        "Dose of each frame (e/A^2)",
        "This needs the dose: from the import, from *Dose weighting*, or from the movie's own metadata.",
        condition=f"{only_eer} and eerFractionation == 2",
        default=EER_DOSE,
        validators=[params.Positive],
    )
    add(
        group,
        "eerSampling",
        "EER rendering",
        "The camera locates electrons with sub-pixel precision. The pixel size of the imported movies is always that "
        "of the 4K grid. With 8K or 16K, that of the micrographs is a half or a quarter of it, times the binning.",
        choices=["4K (physical pixels)", "8K", "16K"],
        display=params.EnumParam.DISPLAY_COMBO,
        condition=only_eer,
    )


def define_correction(form: Any) -> None:
    form.addSection(label="Gain and defects")
    group = form.addGroup("Gain reference (the file given at the import of the movies)")
    add(
        group,
        "gainRot",
        "Rotate the gain",
        "The rotation is applied first, then the flip.",
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
        "A wrong choice is visible as the detector's pattern in the micrographs.",
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
    group = form.addGroup("Defects (each defect pixel is replaced by its good neighbours)")
    add(group, "removeHotPixels", "Replace hot and dead pixels?")
    add(group, "defectFile", "Defect list", "x and y are the first pixel of the rectangle, counted from 0.")
    add(group, "defectMap", "Defect map", "The image must have the size of the movie's frames.")
    group = form.addGroup("Magnification distortion", expertLevel=LEVEL_ADVANCED)
    add(
        group,
        "doMagCor",
        "Correct magnification distortion?",
        "The image is stretched about its centre. The pixel size remains that of the movies. Do not combine this with "
        "Bayesian polishing in RELION, which reads the uncorrected movies.",
        expertLevel=LEVEL_ADVANCED,
    )
    if_corrected = {"condition": "doMagCor", "expertLevel": LEVEL_ADVANCED}
    add(group, "scaleMaj", "Major scale factor", **if_corrected)
    add(group, "scaleMin", "Minor scale factor", **if_corrected)
    add(group, "angDist", "Distortion angle (deg)", **if_corrected)


def define_alignment(form: Any, local: bool = True) -> None:
    """Parameters of the motion estimate. local : default of *doLocalAlignment*."""
    form.addSection(label="Alignment")
    group = form.addGroup("Whole frames")
    add(
        group,
        "maxShift",
        "Maximum shift (A), 0 = automatic",
        "The total drift over all frames may be many times larger. The automatic value starts with 50 A and increases, "
        "up to four times that, if frames cannot be aligned within it.",
    )
    add(
        group,
        "maxResForCorrelation",
        "Maximum resolution (A), 0 = automatic",
        "Finer detail is mostly noise in a single frame and is not used to compare frames. "
        "The automatic value is 30 A for a field of view of 4096 A, and finer (down to 20 A) for a smaller one with "
        "fine detail.",
    )
    add(
        group,
        "referenceFrame",
        "Reference frame",
        "Keep *first* if particles will be polished in RELION, whose protocol in Scipion takes the first aligned frame "
        "as the reference of any motion. Micrographs are equally sharp with both.",
        expertLevel=LEVEL_ADVANCED,
        display=params.EnumParam.DISPLAY_COMBO,
    )
    group = form.addGroup("Local motion")
    add(
        group,
        "doLocalAlignment",
        "Correct local motion?",
        "The beam deforms the specimen, so that different parts of the image move differently. This motion is measured "
        "in patches and described by a smooth B-spline in space and time.",
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
    add(group, "groupNFrames", "Group N frames", "Use more for movies of low signal.", condition=if_local, **advanced)
    add(group, "autoControlPoints", "Choose control points automatically?", condition=if_local, **advanced)
    line = group.addLine(
        "Control points (override knots)",
        condition=f"{if_local} and not autoControlPoints",
        help="Number of control points of the B-spline along X, along Y and in time, at least 3 each. More control "
        "points follow the motion more closely but are noisier.",
        **advanced,
    )
    add(line, "controlPointX", "X")
    add(line, "controlPointY", "Y")
    add(line, "controlPointT", "time")
    add(
        group,
        "doRefinement",
        "Refine motion jointly?",
        "The published method compares pairs of frames. With *Yes* the resulting motion is then adjusted so that the "
        "sum of all frames becomes as sharp as possible. This helps most with movies of low signal.",
        condition=if_local,
        **advanced,
    )


def _define_output(form: Any) -> None:
    form.addSection(label="Output")
    _define_dose(form)
    group = form.addGroup("Micrographs")
    add_image_parameters(group)
    add(group, "doSaveAveMic", "Save aligned micrographs?", expertLevel=LEVEL_ADVANCED)
    _define_even_odd(form)
    group = form.addGroup("Further results")
    add_psd(group)
    add(
        group,
        "doSaveMovie",
        "Save aligned movies?",
        "The output movies are then the aligned movies, binned and cropped like the micrographs, instead of the input "
        "movies with their shifts. They take as much disk space as movies of 32-bit floats, or half of that with "
        "16-bit floats.",
        expertLevel=LEVEL_ADVANCED,
    )
    add(
        group,
        "doSavePs",
        "Save spectra for CTF programs?",
        "Frames are summed in groups of 4 e/A^2, the power spectra of the groups are added, and the square root is "
        "written (_PS.mrc, 512 x 512). Thon rings are clearer in it than in the spectrum of the micrograph.",
        expertLevel=LEVEL_ADVANCED,
    )


def add_image_parameters(group: Any) -> None:
    add(
        group,
        "binFactor",
        "Binning factor",
        "2 halves the number of pixels on each axis. The alignment itself always uses the unbinned frames.",
    )
    add(group, "fcropFactor", "F-crop factor", expertLevel=LEVEL_ADVANCED)
    line = group.addLine("Crop offsets (px)", help="First column (X) and first row (Y) to write, in unbinned pixels.")
    add(line, "cropOffsetX", "X")
    add(line, "cropOffsetY", "Y")
    line = group.addLine(
        "Crop dimensions (px)", help="Width (X) and height (Y) to write, in unbinned pixels. 0: up to the edge."
    )
    add(line, "cropDimX", "X")
    add(line, "cropDimY", "Y")
    add(
        group,
        "saveFloat16",
        "Write 16-bit floats?",
        "This halves the disk space, and the precision is sufficient. Some programs can't read MRC files of mode 12.",
    )


def add_psd(group: Any) -> None:
    add(
        group,
        "doComputePSD",
        "Compute PSD (before/after)?",
        "The picture shows both side by side: the Thon rings should be clearer after the correction.",
    )


def _define_dose(form: Any) -> None:
    group = form.addGroup("Dose weighting")
    add(
        group,
        "doApplyDoseFilter",
        "Apply dose filter?",
        "Radiation damage destroys fine detail first, so late frames are weighted down at high resolution (Grant and "
        "Grigorieff, 2015). The dose-weighted micrographs are a separate output: use them to extract particles, and "
        "the unweighted ones for CTF estimation.",
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
        label="Use dose of imported movies?",
        help="With *Yes* the dose per frame and the initial dose are those given at the import of the movies. With "
        "*No* you enter them here.",
        expertLevel=LEVEL_ADVANCED,
    )
    line = group.addLine(
        "Dose (e/A^2)",
        condition="not useMovieDose",
        help="Dose of one aligned frame (for EER: of one group of hardware frames), or of the whole movie, which is "
        "used if it is not 0; and the dose that the specimen received before the first frame of the file.",
        expertLevel=LEVEL_ADVANCED,
    )
    line.addParam("dosePerFrame", params.FloatParam, default=1.0, label="per frame")
    line.addParam("totalDose", params.FloatParam, default=0.0, label="or in all")
    line.addParam("preExposure", params.FloatParam, default=0.0, label="before")


def _define_even_odd(form: Any) -> None:
    group = form.addGroup("Even and odd frames")
    add(
        group,
        "splitEvenOdd",
        "Sum even and odd frames?",
        "Two more micrographs, each from half of the frames, corrected with the same motion. Denoisers need them. The "
        "Fourier ring correlation measures their agreement.",
    )
    group.addParam(
        "denoiserPairs",
        params.BooleanParam,
        default=False,
        label="Save pairs for a denoiser?",
        help="Write sums of even and of odd frames for the first movies only.",
        condition="not splitEvenOdd",
    )
    group.addParam(
        "nDenoiserPairs",
        params.IntParam,
        default=DENOISER_PAIRS,
        label="Number of pairs",
        help="Number of movies for which the sums are written. 200 are enough to train a denoiser.",
        condition="denoiserPairs and not splitEvenOdd",
    )
