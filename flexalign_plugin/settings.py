"""All settings of one alignment in one frozen dataclass: validated once, saved with every result.

Field names are the form's parameter names in snake_case (`maxResForCorrelation` -> `max_res_for_correlation`,
`--max-res-for-correlation` on the command line), so that form, command line and saved results use the same names.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

from .errors import SettingsError
from .frame_doses import each_dose, parse_doses
from .inputs import cut, shortened
from .option import Bounds, option, out_of_bounds
from .resolution import finest_automatic_resolution_A
from .sanity import odd_pixel_hint

GAIN_ROTATIONS = ("none", "90", "180", "270")  # counter-clockwise
GAIN_FLIPS = ("none", "upside-down", "left-right")
GAIN_CONVENTIONS = ("auto", "multiply", "divide")
GAIN_ROW_ORDERS = ("auto", "same", "flipped")
EER_SAMPLINGS = (1, 2, 4)  # 4K, 8K, 16K rendering
FIRST, MIDDLE_MOST = REFERENCE_FRAMES = ("first", "middle-most")
MIN_CONTROL_POINTS = 3
MAX_BIN_FACTOR = 16.0
MAX_DISTORTION = 0.1
MAX_PIXELS = 1_000_000  # along an axis, and frames of a movie; as the readers of movies
MAX_ALIGNED = 5000  # frames; every pair of them is compared
MIN_SHIFT_PX = 0.1  # smallest search range that is not 0
LEAST_FIELD = 2.0  # shorter side of the frames, in resolutions at which they are compared
DENOISER_PAIRS = 200  # even and odd micrographs; enough to train a denoiser


@dataclass(frozen=True)
class Settings:
    """Settings of one alignment. Lengths in Angstrom and pixels are unbinned; frame numbers are 1-based, 0 = the
    last."""

    pixel_size: float = option(
        1.0,
        "Pixel size of the movie as recorded, in Angstrom; for EER always that of the 4K grid.",
        metavar="A",
        label="Pixel size",
        bounds=Bounds(0.01, 1000, unit="A", advice="that of the movie as recorded"),
    )
    voltage: float = option(
        300.0,
        "Acceleration voltage in kV.",
        metavar="KV",
        label="Voltage",
        bounds=Bounds(10, 2000, unit="kV", advice="usually 100, 200 or 300"),
    )
    dose_per_frame: Optional[float] = option(
        None,
        "Dose per frame in e/A^2 (for EER of a frame after grouping).",
        metavar="D",
        label="Dose per frame",
        bounds=Bounds(0, 10_000, unit="e/A^2"),
    )
    frame_doses: Optional[str] = option(
        None,
        "Doses of the frames if they differ: dose in e/A^2 and number of frames in turn, as in SerialEM's "
        "FrameDosesAndNumber, for example '0.5 10 1.2 30'; instead of the dose per frame.",
        metavar="TEXT",
    )
    total_dose: Optional[float] = option(
        None,
        "Dose of the whole movie in e/A^2.",
        metavar="D",
        label="Total dose",
        bounds=Bounds(0, 100_000, unit="e/A^2"),
    )
    dose_per_hardware_frame: Optional[float] = option(
        None,
        "EER only: dose of a hardware frame in e/A^2, instead of the dose per frame.",
        metavar="D",
        label="Dose per hardware frame",
        bounds=Bounds(0, 10_000, unit="e/A^2"),
    )
    pre_exposure: float = option(
        0.0,
        "Dose received before the first frame, in e/A^2.",
        metavar="D",
        label="Pre-exposure",
        bounds=Bounds(0, 100_000, unit="e/A^2"),
    )

    gain: Optional[str] = option(None, "Gain reference (MRC, TIFF, EER .gain or dm4).", metavar="FILE")
    dark: Optional[str] = option(None, "Dark reference, subtracted before the gain is applied.", metavar="FILE")
    gain_rot: str = option(
        "none",
        "Rotate the gain counter-clockwise by this many degrees, seen with row 0 on top; RELION and MotionCor rotate "
        "clockwise (their 90 is 270 here).",
        GAIN_ROTATIONS,
        form="gainRot",
    )
    gain_flip: str = option("none", "Flip the gain after the rotation.", GAIN_FLIPS, form="gainFlip")
    gain_convention: str = option(
        "auto",
        "Multiply movies by the gain or divide by it; auto divides only for .gain files.",
        GAIN_CONVENTIONS,
        form="gainConvention",
    )
    gain_row_order: str = option(
        "auto",
        "Whether the gain's rows are stored in the same order as the movie's or flipped; auto flips an MRC gain for "
        "TIFF and EER movies, and a TIFF or dm4 gain for MRC movies.",
        GAIN_ROW_ORDERS,
        form="gainRowOrder",
    )
    defect_file: Optional[str] = option(
        None,
        "Text file of defects: one rectangle 'x y width height' per line, or SerialEM's list of camera defects.",
        metavar="FILE",
        form="defectFile",
    )
    defect_map: Optional[str] = option(
        None, "Image (MRC or TIFF) that is nonzero at defect pixels.", metavar="FILE", form="defectMap"
    )
    remove_hot_pixels: bool = option(
        True, "Detect hot and dead pixels in each movie and replace them.", form="removeHotPixels"
    )

    n_frames: int = option(
        40,
        "EER only: number of frames into which the hardware frames are grouped; remaining hardware frames at the end "
        "are left out.",
        form="nFrames",
        label="Number of EER frames",
        bounds=Bounds(2, 100_000),
    )
    eer_group: int = option(
        0,
        "EER only: hardware frames in each frame, instead of the number of frames; used if above 0.",
        form="eerGroup",
        label="Hardware frames per EER frame",
        bounds=Bounds(0, 100_000, advice="0 if it is not used"),
    )
    eer_dose: float = option(
        0.0,
        "EER only: dose of each frame in e/A^2, instead of the number of frames; used if above 0.",
        metavar="D",
        form="eerDose",
        label="Dose per EER frame",
        bounds=Bounds(0, 10_000, unit="e/A^2", advice="0 if it is not used"),
    )
    eer_sampling: int = option(
        1,
        "EER only: render on the physical grid (1, 4K), 2x (8K) or 4x (16K).",
        EER_SAMPLINGS,
        form="eerSampling",
    )
    use_whole_frames: bool = option(
        False,
        "Align a truncated movie (MRC, TIFF, EER) from its complete frames, with a warning, instead of failing.",
        form="useWholeFrames",
    )

    flip_tiff: bool = option(
        False,
        "Flip TIFF movies upside down when they are read, as RELION and IMOD do; needed for polishing in RELION.",
        form="flipTiff",
    )

    align_frame0: int = option(
        1,
        "First frame to align; the first frame is 1.",
        form="alignFrame0",
        label="First frame to align",
        bounds=Bounds(1, MAX_PIXELS, advice="frames are counted from 1"),
    )
    align_frame_n: int = option(
        0,
        "Last frame to align; 0 means the last of the movie.",
        form="alignFrameN",
        label="Last frame to align",
        bounds=Bounds(0, MAX_PIXELS, advice="0 for the last frame"),
    )
    use_align_to_sum: bool = option(True, "Sum the same frames that are aligned.", form="useAlignToSum")
    sum_frame0: int = option(
        1,
        "First frame to sum, if the ranges to sum and to align differ.",
        form="sumFrame0",
        label="First frame to sum",
        bounds=Bounds(1, MAX_PIXELS, advice="frames are counted from 1", only_if="!use_align_to_sum"),
    )
    sum_frame_n: int = option(
        0,
        "Last frame to sum, if the ranges to sum and to align differ; 0 means the last aligned frame.",
        form="sumFrameN",
        label="Last frame to sum",
        bounds=Bounds(0, MAX_PIXELS, advice="0 for the last aligned frame", only_if="!use_align_to_sum"),
    )
    reference_frame: str = option(
        FIRST,
        "Frame whose geometry the micrograph has, in which all shifts are zero: the first aligned one, as in RELION, "
        "MotionCor and CryoSPARC, or the one nearest to all others, as in Xmipp.",
        REFERENCE_FRAMES,
        form="referenceFrame",
    )
    bin_factor: float = option(
        1.0,
        "Binning factor of the micrograph; binning crops its Fourier transform.",
        form="binFactor",
        label="Binning factor",
        bounds=Bounds(1, MAX_BIN_FACTOR, advice="1 for no binning"),
    )
    fcrop_factor: float = option(
        1.0,
        "Binning as in CryoSPARC: fraction of the Fourier transform to keep along each axis, 0.5 bins by 2; applied in "
        "addition to the binning factor.",
        form="fcropFactor",
        label="F-crop factor",
        bounds=Bounds(0, 1, above=True, advice="1 for no cropping"),
    )
    crop_offset_x: int = option(
        0,
        "Crop: first column, in unbinned pixels.",
        form="cropOffsetX",
        label="Crop offset X",
        bounds=Bounds(0, MAX_PIXELS, unit="px"),
    )
    crop_offset_y: int = option(
        0,
        "Crop: first row, in unbinned pixels.",
        form="cropOffsetY",
        label="Crop offset Y",
        bounds=Bounds(0, MAX_PIXELS, unit="px"),
    )
    crop_dim_x: int = option(
        0,
        "Crop: width in unbinned pixels; 0 means up to the edge.",
        form="cropDimX",
        label="Crop dimension X",
        bounds=Bounds(0, MAX_PIXELS, unit="px", advice="0 for up to the edge"),
    )
    crop_dim_y: int = option(
        0,
        "Crop: height in unbinned pixels; 0 means up to the edge.",
        form="cropDimY",
        label="Crop dimension Y",
        bounds=Bounds(0, MAX_PIXELS, unit="px", advice="0 for up to the edge"),
    )

    max_res_for_correlation: float = option(
        0.0,
        "Resolution in Angstrom up to which frames are compared; 0: automatic, usually 20 to 30 A.",
        metavar="A",
        form="maxResForCorrelation",
        label="Maximum resolution for correlation",
        bounds=Bounds(0, 10_000, unit="A", advice="0 for automatic"),
    )
    max_shift: float = option(
        0.0,
        "Largest shift between consecutive frames, in Angstrom; 0: automatic, 50 A or, if a movie needs it, up to 200 "
        "A.",
        metavar="A",
        form="maxShift",
        label="Maximum shift",
        bounds=Bounds(0, 100_000, unit="A", advice="0 for automatic"),
    )

    do_mag_cor: bool = option(
        False, "Correct magnification distortion in the same interpolation as the motion.", form="doMagCor"
    )
    scale_maj: float = option(
        1.0,
        "Magnification distortion: scale along the major axis.",
        metavar="S",
        form="scaleMaj",
        label="Magnification distortion, major scale",
        bounds=Bounds(1 - MAX_DISTORTION, 1 + MAX_DISTORTION, only_if="do_mag_cor"),
    )
    scale_min: float = option(
        1.0,
        "Magnification distortion: scale along the minor axis.",
        metavar="S",
        form="scaleMin",
        label="Magnification distortion, minor scale",
        bounds=Bounds(1 - MAX_DISTORTION, 1 + MAX_DISTORTION, only_if="do_mag_cor"),
    )
    ang_dist: float = option(
        0.0,
        "Magnification distortion: angle of the major axis in degrees, from the x axis towards higher rows.",
        metavar="DEG",
        form="angDist",
        label="Angle of the magnification distortion",
        bounds=Bounds(-360, 360, unit="degrees", only_if="do_mag_cor"),
    )

    do_local_alignment: bool = option(
        True, "Correct beam-induced motion that differs across the image.", form="doLocalAlignment"
    )
    auto_patches: bool = option(True, "Choose the number of patches from the patch size.", form="autoPatches")
    patches_x: int = option(
        7,
        "Patches along X, if not chosen automatically.",
        form="patchesX",
        label="Patches along X",
        bounds=Bounds(2, 1000, only_if="!auto_patches"),
    )
    patches_y: int = option(
        7,
        "Patches along Y, if not chosen automatically.",
        form="patchesY",
        label="Patches along Y",
        bounds=Bounds(2, 1000, only_if="!auto_patches"),
    )
    min_local_res: float = option(
        500.0,
        "Patch size in Angstrom.",
        metavar="A",
        form="minLocalRes",
        label="Patch size",
        bounds=Bounds(0, 1_000_000, above=True, unit="A"),
    )
    group_n_frames: int = option(
        3,
        "Number of consecutive frames averaged before patches are compared.",
        form="groupNFrames",
        label="Frames in a group",
        bounds=Bounds(1, 10_000),
    )
    auto_control_points: bool = option(
        True,
        "Choose the spline's control points from the size of the movie; the refinement adds more if the data support "
        "them.",
        form="autoControlPoints",
    )
    control_point_x: int = option(
        6,
        "Control points along X, if not chosen automatically.",
        form="controlPointX",
        label="Control points along X",
        bounds=Bounds(MIN_CONTROL_POINTS, 100, only_if="!auto_control_points"),
    )
    control_point_y: int = option(
        6,
        "Control points along Y, if not chosen automatically.",
        form="controlPointY",
        label="Control points along Y",
        bounds=Bounds(MIN_CONTROL_POINTS, 100, only_if="!auto_control_points"),
    )
    control_point_t: int = option(
        5,
        "Control points in time, if not chosen automatically.",
        form="controlPointT",
        label="Control points in time",
        bounds=Bounds(MIN_CONTROL_POINTS, 1000, only_if="!auto_control_points"),
    )

    do_refinement: bool = option(
        True,
        "Refine the motion of all patches and frames jointly, starting from the result of the published method; "
        "without it, the motion is estimated as published.",
        form="doRefinement",
    )

    do_apply_dose_filter: bool = option(
        True, "Also write a dose-weighted micrograph; needs the dose.", form="doApplyDoseFilter"
    )
    do_save_unweighted_mic: bool = option(
        True, "Write the unweighted micrograph in addition to the dose-weighted one.", form="doSaveUnweightedMic"
    )
    split_even_odd: bool = option(
        False,
        "Also write micrographs of the even and of the odd frames, dose-weighted if the micrograph is.",
        form="splitEvenOdd",
    )
    do_save_ave_mic: bool = option(True, "Write the motion-corrected micrographs.", form="doSaveAveMic")
    do_save_movie: bool = option(False, "Write the aligned movie.", form="doSaveMovie")
    save_float16: bool = option(
        False, "Write micrographs and aligned movies as 16-bit floats (MRC mode 12).", form="saveFloat16"
    )
    do_save_ps: bool = option(
        False,
        "Write the amplitude spectrum for CTF programs, from sums of frames with a dose of 4 e/A^2 each as in RELION.",
        form="doSavePs",
    )
    do_compute_psd: bool = option(True, "Compute power spectra before and after the correction.", form="doComputePSD")
    do_plots: bool = option(True, "Write pictures: trajectory, local motion, power spectrum and thumbnail.")

    low_memory: bool = option(
        False,
        "Use less memory and more time: one movie at a time, no frames kept, images made one after another.",
        form="lowMemory",
    )

    @property
    def output_binning(self) -> float:
        """Ratio of the micrograph's pixel size to the movie's pixel size."""
        return self.bin_factor / self.fcrop_factor

    @property
    def micrograph_pixel_size(self) -> float:
        """Pixel size of the micrographs, in Angstrom."""
        return self.pixel_size * self.output_binning

    @property
    def _doses(self) -> List[Union[float, str, None]]:
        return [self.dose_per_frame, self.frame_doses, self.total_dose, self.dose_per_hardware_frame]

    @property
    def dose_is_known(self) -> bool:
        return any(dose is not None for dose in self._doses)

    @property
    def is_dose_weighted(self) -> bool:
        return self.do_apply_dose_filter and self.dose_is_known

    def doses(self, n_frames: int) -> Optional[List[float]]:
        """Dose of each of the movie's `n_frames` frames in e/A^2; None if it is unknown."""
        if self.frame_doses is not None:
            return each_dose(parse_doses(self.frame_doses))
        return [self.dose_per_frame] * n_frames if self.dose_per_frame else None

    def dose_after(self, frames: Sequence[int]) -> Optional[List[float]]:
        """Dose at the end of each of these frames (0-based in the movie) in e/A^2, without the pre-exposure.

        Frames that are not aligned count too. None if the dose is unknown.
        """
        doses = self.doses(max(frames, default=-1) + 1)
        if doses is None:
            return None
        reached = list(accumulate(doses))
        return [reached[i] for i in frames]

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise SettingsError(" ".join(problems))

    def problems(self) -> List[str]:
        """One sentence for each value that is out of bounds or contradicts another setting; empty if all are valid."""
        sentences = out_of_bounds(self)
        if not sentences:
            sentences = self._contradictions()
            # With a mistyped pixel size, sizes and resolutions in Angstrom contradict each other.
            hint = odd_pixel_hint(self.pixel_size)
            sentences += [hint] if sentences and hint else []
        return sentences

    def _contradictions(self) -> List[str]:
        """One sentence for each combination of settings that contradict each other."""
        sentences = []

        def check(ok: bool, sentence: str) -> None:
            if not ok:
                sentences.append(sentence)

        if self.frame_doses is not None:
            try:
                parse_doses(self.frame_doses)
            except SettingsError as error:
                sentences.append(str(error))
        check(
            sum(dose is not None for dose in self._doses) < 2,
            "More than one dose is given: give the dose per frame, the doses of the frames, the dose of the whole "
            "movie or, for EER, the dose per hardware frame.",
        )
        check(
            not (self.eer_group and self.eer_dose),
            f"EER frames are to have {self.eer_group} hardware frames and a dose of {self.eer_dose:g} e/A^2: give one "
            "of them, and 0 for the other.",
        )
        check(
            not self.eer_dose or (self.dose_per_frame is None and self.frame_doses is None),
            f"EER frames are to have a dose of {self.eer_dose:g} e/A^2, but the dose of a frame is given too: give the "
            "dose of the whole movie or of a hardware frame instead.",
        )
        check(
            not self.do_save_ps or any(self._doses),
            "Amplitude spectra for CTF programs are computed from sums of frames with a dose of 4 e/A^2, but the dose "
            "per frame is not known: give the dose per frame, or don't write these spectra.",
        )
        ranges = [(self.align_frame0, self.align_frame_n, "align", 1, "come after")]
        if not self.use_align_to_sum:
            ranges.append((self.sum_frame0, self.sum_frame_n, "sum", 0, "not come before"))
        for first, last, purpose, least, rule in ranges:
            check(
                last == 0 or last >= first + least,
                f"Frames to {purpose} run from {first} to {last}: the last must {rule} the first.",
            )
        check(
            self.output_binning <= MAX_BIN_FACTOR,
            f"Binning factor {self.bin_factor:g} and F-crop factor {self.fcrop_factor:g} together bin by "
            f"{self.output_binning:g}: the largest allowed binning is {MAX_BIN_FACTOR:g}.",
        )
        check(
            self.max_res_for_correlation == 0 or self.max_res_for_correlation >= 2 * self.pixel_size,
            f"Maximum resolution for correlation is {self.max_res_for_correlation:g} A, finer than the pixel "
            f"size allows ({2 * self.pixel_size:g} A): use a larger number, or 0 for automatic.",
        )
        smallest = MIN_SHIFT_PX * self.pixel_size
        check(
            self.max_shift == 0 or self.max_shift >= smallest,
            f"Maximum shift is {self.max_shift:g} A, less than a tenth of a pixel ({smallest:g} A): use a larger "
            "number, or 0 for automatic.",
        )
        if self.do_local_alignment:
            compared = self.max_res_for_correlation or finest_automatic_resolution_A(self.pixel_size)
            check(
                self.min_local_res >= 4 * compared,
                f"Patches of {self.min_local_res:g} A are too small to compare at {compared:g} A: "
                f"use at least {4 * compared:g} A.",
            )
        if self.do_local_alignment and not self.auto_control_points and not self.auto_patches:
            check(
                self._has_enough_patches(self.patches_x, self.patches_y),
                f"{self.control_point_x} x {self.control_point_y} control points need at least "
                f"{self.control_point_x - 1} x {self.control_point_y - 1} patches, but there are "
                f"{self.patches_x} x {self.patches_y}: use more patches or fewer control points.",
            )
        return sentences

    def _has_enough_patches(self, patches_x: int, patches_y: int) -> bool:
        """Whether this number of patches determines the given number of control points."""
        return patches_x >= self.control_point_x - 1 and patches_y >= self.control_point_y - 1

    def frame_ranges(self, n_frames: int, movie: str) -> Tuple[range, range]:
        """0-based frame ranges to align and to sum in a movie of `n_frames` frames, checked against it."""
        align = range(self.align_frame0 - 1, (self.align_frame_n or n_frames))
        if align.start >= n_frames or align.stop > n_frames:
            raise SettingsError(
                f"{movie}: frames {self.align_frame0} to {self.align_frame_n or 'the last'} are to be aligned, but the "
                f"movie has {n_frames} frames: change the range."
            )
        if len(align) > MAX_ALIGNED:
            raise SettingsError(
                f"{movie}: {len(align)} frames are to be aligned, more than {MAX_ALIGNED}: choose a range, or group "
                "the frames before."
            )
        if len(align) < 2:
            advice = (
                "check that the file is a movie and not an image or a gain reference"
                if n_frames == 1
                else "change the range"
            )
            raise SettingsError(
                f"{movie}: only {len(align)} frame is in the range to align, but at least 2 are needed: {advice}."
            )
        if self.use_align_to_sum:
            return align, align
        total = range(self.sum_frame0 - 1, (self.sum_frame_n or align.stop))
        if total.start < align.start or total.stop > align.stop or len(total) < 1:
            raise SettingsError(
                f"{movie}: frames {total.start + 1} to {total.stop} are to be summed, but only {align.start + 1} to "
                f"{align.stop} are aligned: choose frames inside the aligned range."
            )
        if self.split_even_odd and len(total) < 2:
            raise SettingsError(
                f"{movie}: only 1 frame is to be summed, which can't be split into even and odd frames: sum more "
                "frames or don't split them."
            )
        return align, total

    def crop_window(self, ny: int, nx: int, movie: str) -> Tuple[slice, slice]:
        """Region (y, x) of the unbinned frame that is written, checked against the frame's size."""
        y0, x0 = self.crop_offset_y, self.crop_offset_x
        y1 = y0 + self.crop_dim_y if self.crop_dim_y else ny
        x1 = x0 + self.crop_dim_x if self.crop_dim_x else nx
        if y1 > ny or x1 > nx or y1 - y0 < 2 or x1 - x0 < 2:
            raise SettingsError(
                f"{movie}: the crop x {x0} to {x1}, y {y0} to {y1} is not inside its frames of {nx} x {ny} pixels: "
                "change crop offset or dimensions."
            )
        return slice(y0, y1), slice(x0, x1)

    def check_doses(self, n_frames: int, movie: str) -> None:
        """SettingsError if the doses of the frames are not those of a movie of `n_frames` frames."""
        doses = self.doses(n_frames)
        if doses is not None and len(doses) != n_frames:
            raise SettingsError(
                f"{movie}: the doses of {len(doses)} frames are given, but the movie has {n_frames}: give a dose for "
                "every frame."
            )

    def check_field(self, ny: int, nx: int, movie: str) -> None:
        """SettingsError if the frames show too little to be compared: usually a pixel size in another unit than A."""
        compared = self.max_res_for_correlation or finest_automatic_resolution_A(self.pixel_size)
        shorter = min(ny, nx) * self.pixel_size
        if shorter < LEAST_FIELD * compared:
            hint = odd_pixel_hint(self.pixel_size)
            raise SettingsError(
                f"{movie}: its frames of {nx} x {ny} pixels show only {shorter:.3g} A, too little to compare them at "
                f"{compared:g} A: check the pixel size.{' ' + hint if hint else ''}"
            )

    def check_control_points(self, ny: int, nx: int, movie: str) -> None:
        """SettingsError if the given control points need more patches than frames of this size have automatically."""
        if not self.do_local_alignment or self.auto_control_points or not self.auto_patches:
            return
        patch = self.min_local_res / self.pixel_size
        patches_x, patches_y = math.ceil(nx / patch), math.ceil(ny / patch)
        if not self._has_enough_patches(patches_x, patches_y):
            raise SettingsError(
                f"{movie}: {self.control_point_x} x {self.control_point_y} control points need at least "
                f"{self.control_point_x - 1} x {self.control_point_y - 1} patches, but frames of {nx} x {ny} pixels "
                f"have room for {patches_x} x {patches_y} patches of {self.min_local_res:g} A: use fewer control "
                "points or smaller patches."
            )

    def to_dict(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Dict[str, Any]) -> Settings:
        """Settings from a saved result or a worker's request; SettingsError if a name is unknown to this version."""
        if not isinstance(values, dict):
            raise SettingsError(f"Settings are {shortened(values)}: give names and values.")
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise SettingsError(f"Unknown settings: {cut(', '.join(unknown))}.")
        return cls(**values)

    @classmethod
    def of_result(cls, values: Dict[str, Any]) -> Settings:
        """Settings from a `_motion.json`, also of a version without a choice of the reference frame, which took the
        middle-most one; SettingsError as from `from_dict`."""
        return cls.from_dict({"reference_frame": MIDDLE_MOST, **values})


# {name of a parameter of the form: field of `Settings`}
FIELDS_OF_FORM = {f.metadata["form"]: f.name for f in dataclasses.fields(Settings) if f.metadata["form"]}

# Settings on which the motion depends: frames can't be summed with another value of them without a new alignment.
MOTION_SETTINGS = (
    *("pixel_size", "n_frames", "eer_group", "eer_dose", "eer_sampling", "use_whole_frames", "flip_tiff"),
    *("align_frame0", "align_frame_n", "reference_frame", "max_res_for_correlation", "max_shift"),
    *("do_local_alignment", "auto_patches", "patches_x", "patches_y", "min_local_res", "group_n_frames"),
    *("auto_control_points", "control_point_x", "control_point_y", "control_point_t", "do_refinement"),
)
