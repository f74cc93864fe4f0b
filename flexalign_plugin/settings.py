"""All settings of one alignment in one frozen dataclass: validated once, saved with every result.

Field names are the form's parameter names in snake_case (`maxResForCorrelation` -> `max_res_for_correlation`,
`--max-res-for-correlation` on the command line), so that form, command line and saved results say the same thing.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .errors import SettingsError

GAIN_ROTATIONS = ("none", "90", "180", "270")  # counter-clockwise
GAIN_FLIPS = ("none", "upside-down", "left-right")
GAIN_CONVENTIONS = ("auto", "multiply", "divide")
GAIN_ROW_ORDERS = ("auto", "same", "flipped")
EER_SAMPLINGS = (1, 2, 4)  # 4K, 8K, 16K rendering
MIN_CONTROL_POINTS = 3
MAX_BIN_FACTOR = 16.0
MAX_DISTORTION = 0.1
FINEST_AUTO_A = 20.0  # bounds of the automatic resolution for correlation: in Angstrom, and in pixels
PIXELS_IN_AUTO = 3.0


def option(default: Any, help: str, choices: Optional[Sequence[Any]] = None, metavar: str = "") -> Any:
    """A dataclass field that knows its help text; command line and form both read it from here."""
    return field(default=default, metadata={"help": help, "choices": choices, "metavar": metavar})


def snake_case(camel: str) -> str:
    """`doComputePSD` -> `do_compute_psd`, `groupNFrames` -> `group_n_frames`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", camel).lower()


@dataclass(frozen=True)
class Settings:
    """Settings of one alignment. Lengths in Angstrom and pixels are unbinned; frame numbers are 1-based, 0 = last."""

    pixel_size: float = option(1.0, "Pixel size of the movie as stored, in Angstrom.", metavar="A")
    voltage: float = option(300.0, "Acceleration voltage in kV.", metavar="KV")
    dose_per_frame: Optional[float] = option(None, "Dose per frame in e/A^2 (per output frame for EER).", metavar="D")
    pre_exposure: float = option(0.0, "Dose received before the first frame, in e/A^2.", metavar="D")

    gain: Optional[str] = option(None, "Gain reference (MRC, TIFF, EER .gain or dm4).", metavar="FILE")
    dark: Optional[str] = option(None, "Dark reference, subtracted before the gain is applied.", metavar="FILE")
    gain_rot: str = option(
        "none",
        "Rotate the gain counter-clockwise by this many degrees, seen with row 0 on top; RELION and MotionCor turn the "
        "other way (their 90 is 270 here).",
        GAIN_ROTATIONS,
    )
    gain_flip: str = option("none", "Flip the gain after the rotation.", GAIN_FLIPS)
    gain_convention: str = option(
        "auto", "Multiply movies by the gain or divide by it; auto divides only for .gain files.", GAIN_CONVENTIONS
    )
    gain_row_order: str = option(
        "auto",
        "Whether the gain's rows run in the movie's order; auto flips an MRC gain for TIFF and EER movies, "
        "and a TIFF or dm4 gain for MRC movies.",
        GAIN_ROW_ORDERS,
    )
    defect_file: Optional[str] = option(
        None,
        "Text file of defects: one rectangle 'x y width height' a line, or SerialEM's list of camera defects.",
        metavar="FILE",
    )
    defect_map: Optional[str] = option(None, "Image (MRC or TIFF) that is not zero at defect pixels.", metavar="FILE")
    remove_hot_pixels: bool = option(True, "Find hot and dead pixels in the movie itself and replace them.")

    n_frames: int = option(
        40, "EER only: number of frames that the hardware frames are grouped into; the rest at the end is left out."
    )
    eer_sampling: int = option(1, "EER only: render at the physical grid (1, 4K), 2x (8K) or 4x (16K).", EER_SAMPLINGS)

    flip_tiff: bool = option(
        False, "Turn TIFF movies upside down when they are read, as RELION and IMOD do; for polishing in RELION."
    )

    align_frame0: int = option(1, "First frame to align; the first frame is 1.")
    align_frame_n: int = option(0, "Last frame to align; 0 means the last of the movie.")
    use_align_to_sum: bool = option(True, "Sum the same frames that are aligned.")
    sum_frame0: int = option(1, "First frame to sum, when it is not the range to align.")
    sum_frame_n: int = option(0, "Last frame to sum; 0 means the last one aligned.")
    bin_factor: float = option(1.0, "Binning of the micrograph, by cropping its Fourier transform.")
    fcrop_factor: float = option(
        1.0,
        "The same as a fraction, as CryoSPARC names it: the part of the Fourier transform to keep on each axis, 0.5 is "
        "binning by 2; both factors multiply.",
    )
    crop_offset_x: int = option(0, "Crop: first column, in unbinned pixels.")
    crop_offset_y: int = option(0, "Crop: first row, in unbinned pixels.")
    crop_dim_x: int = option(0, "Crop: width in unbinned pixels; 0 means up to the edge.")
    crop_dim_y: int = option(0, "Crop: height in unbinned pixels; 0 means up to the edge.")

    max_res_for_correlation: float = option(
        0.0,
        "Resolution in Angstrom to which frames are compared; 0: automatic, mostly 20 to 30 A.",
        metavar="A",
    )
    max_shift: float = option(
        0.0,
        "Largest shift between consecutive frames, in Angstrom; 0: automatic, 50 A and more where frames need it.",
        metavar="A",
    )

    do_mag_cor: bool = option(False, "Correct magnification distortion, in the same resampling as the motion.")
    scale_maj: float = option(1.0, "Magnification distortion: stretch along the major axis.", metavar="S")
    scale_min: float = option(1.0, "Magnification distortion: stretch along the minor axis.", metavar="S")
    ang_dist: float = option(
        0.0,
        "Magnification distortion: angle of the major axis in degrees, from the x axis to higher rows.",
        metavar="DEG",
    )

    do_local_alignment: bool = option(True, "Correct beam-induced motion that differs across the image.")
    auto_patches: bool = option(True, "Choose the number of patches from the patch size.")
    patches_x: int = option(7, "Patches along X, when not automatic.")
    patches_y: int = option(7, "Patches along Y, when not automatic.")
    min_local_res: float = option(500.0, "Patch size in Angstrom.", metavar="A")
    group_n_frames: int = option(3, "Frames averaged into one before patches are compared.")
    auto_control_points: bool = option(
        True, "Choose the spline's control points from the movie's size; the refinement takes more where that pays."
    )
    control_point_x: int = option(6, "Control points along X, when not automatic.")
    control_point_y: int = option(6, "Control points along Y, when not automatic.")
    control_point_t: int = option(5, "Control points in time, when not automatic.")

    do_refinement: bool = option(
        True, "Refine all patches and frames together after the published method; no gives FlexAlign as published."
    )

    do_apply_dose_filter: bool = option(
        True, "Write a dose-weighted micrograph too; only where the dose per frame is known."
    )
    do_save_unweighted_mic: bool = option(True, "Write the unweighted micrograph beside the dose-weighted one.")
    split_even_odd: bool = option(
        False, "Write the means of the even and of the odd frames too, dose-weighted when the micrograph is."
    )
    do_save_ave_mic: bool = option(True, "Write the motion-corrected micrographs.")
    do_save_movie: bool = option(False, "Write the aligned movie.")
    save_float16: bool = option(False, "Write micrographs and aligned movies as 16-bit floats (MRC mode 12).")
    do_save_ps: bool = option(
        False, "Write the amplitude spectrum for CTF programs, of sums of frames of 4 e/A^2 as in RELION."
    )
    do_compute_psd: bool = option(True, "Compute power spectra before and after the correction.")
    do_plots: bool = option(True, "Draw trajectory, local motion, power spectrum and thumbnail.")

    low_memory: bool = option(
        False, "Use less memory and more time: read frames one at a time, make one image after the other."
    )

    @property
    def output_binning(self) -> float:
        """How many times larger the pixels of the micrograph are than those of the movie."""
        return self.bin_factor / self.fcrop_factor

    @property
    def is_dose_weighted(self) -> bool:
        return self.do_apply_dose_filter and self.dose_per_frame is not None

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise SettingsError(" ".join(problems))

    def problems(self) -> List[str]:
        """One sentence for each value that makes no sense on its own or with another setting."""
        found = []

        def check(ok: bool, sentence: str) -> None:
            if not ok:
                found.append(sentence)

        check(0 < self.pixel_size < 1000, f"Pixel size is {self.pixel_size} A: give the movie's pixel size, above 0.")
        check(
            10 <= self.voltage <= 2000, f"Voltage is {self.voltage} kV: give it in kilovolts, usually 100, 200 or 300."
        )
        check(
            self.dose_per_frame is None or self.dose_per_frame >= 0,
            f"Dose per frame is {self.dose_per_frame} e/A^2: it can't be negative.",
        )
        check(
            not self.do_save_ps or bool(self.dose_per_frame),
            "Amplitude spectra for CTF programs are sums over frames of 4 e/A^2, but the dose per frame is not known: "
            "give it, or leave these spectra out.",
        )
        check(self.pre_exposure >= 0, f"Pre-exposure is {self.pre_exposure} e/A^2: it can't be negative.")
        for name in ("gain_rot", "gain_flip", "gain_convention", "gain_row_order", "eer_sampling"):
            allowed = self.__dataclass_fields__[name].metadata["choices"]
            check(
                getattr(self, name) in allowed,
                f"{name} is {getattr(self, name)!r}: choose one of {', '.join(str(a) for a in allowed)}.",
            )
        check(self.n_frames >= 2, f"Number of EER frames is {self.n_frames}: at least 2 are needed to align.")
        for first, last, what in (
            (self.align_frame0, self.align_frame_n, "align"),
            (self.sum_frame0, self.sum_frame_n, "sum"),
        ):
            if what == "sum" and self.use_align_to_sum:
                continue
            check(first >= 1, f"First frame to {what} is {first}: frames are counted from 1.")
            check(last >= 0, f"Last frame to {what} is {last}: use 0 for the last frame.")
            check(
                last == 0 or last >= first + (1 if what == "align" else 0),
                f"Frames to {what} run from {first} to {last}: the last must come after the first.",
            )
        check(
            1 <= self.bin_factor <= MAX_BIN_FACTOR,
            f"Binning factor is {self.bin_factor}: use a number from 1 (no binning) to {MAX_BIN_FACTOR:g}.",
        )
        check(
            0 < self.fcrop_factor <= 1,
            f"F-crop factor is {self.fcrop_factor}: it is the part of the Fourier transform to keep, above 0 and at "
            "most 1 (no cropping).",
        )
        check(
            not 0 < self.fcrop_factor <= 1 or self.output_binning <= MAX_BIN_FACTOR,
            f"Binning factor {self.bin_factor:g} and F-crop factor {self.fcrop_factor:g} bin by "
            f"{self.output_binning if self.fcrop_factor else 0:g} together: at most {MAX_BIN_FACTOR:g} makes sense.",
        )
        for name in ("crop_offset_x", "crop_offset_y", "crop_dim_x", "crop_dim_y"):
            check(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: crop values can't be negative.")
        check(
            self.max_res_for_correlation == 0 or self.max_res_for_correlation >= 2 * self.pixel_size,
            f"Maximum resolution for correlation is {self.max_res_for_correlation:g} A, finer than the pixel "
            f"size allows ({2 * self.pixel_size:g} A): use a larger number, or 0 for automatic.",
        )
        check(
            not self.do_mag_cor or max(abs(self.scale_maj - 1), abs(self.scale_min - 1)) <= MAX_DISTORTION,
            f"Magnification distortion of {self.scale_maj:g} and {self.scale_min:g}: give factors near 1, from "
            f"{1 - MAX_DISTORTION:g} to {1 + MAX_DISTORTION:g}.",
        )
        check(
            not self.do_mag_cor or abs(self.ang_dist) <= 360,
            f"Angle of the magnification distortion is {self.ang_dist:g}: give degrees.",
        )
        check(self.max_shift >= 0, f"Maximum shift is {self.max_shift} A: it must be above 0, or 0 for automatic.")
        check(self.group_n_frames >= 1, f"Frames in a group: {self.group_n_frames}; at least 1.")
        compared = self.max_res_for_correlation or max(FINEST_AUTO_A, PIXELS_IN_AUTO * self.pixel_size)
        check(
            not self.do_local_alignment or self.min_local_res >= 4 * compared,
            f"Patches of {self.min_local_res:g} A are too small to compare at {compared:g} A: "
            f"use at least {4 * compared:g} A.",
        )
        if self.do_local_alignment and not self.auto_patches:
            check(
                self.patches_x >= 2 and self.patches_y >= 2,
                f"{self.patches_x} x {self.patches_y} patches: local alignment needs at least 2 on each axis.",
            )
        if self.do_local_alignment and not self.auto_control_points:
            points = (self.control_point_x, self.control_point_y, self.control_point_t)
            check(
                min(points) >= MIN_CONTROL_POINTS,
                f"Control points {points[0]} x {points[1]} x {points[2]}: at least {MIN_CONTROL_POINTS} on each axis.",
            )
            if not self.auto_patches:
                check(
                    self.patches_x >= self.control_point_x - 1 and self.patches_y >= self.control_point_y - 1,
                    f"{self.control_point_x} x {self.control_point_y} control points need at least "
                    f"{self.control_point_x - 1} x {self.control_point_y - 1} patches, but there are "
                    f"{self.patches_x} x {self.patches_y}: use more patches or fewer control points.",
                )
        return found

    def frame_ranges(self, n_frames: int, movie: str) -> Tuple[range, range]:
        """0-based frame ranges to align and to sum in a movie of `n_frames` frames, checked against it."""
        align = range(self.align_frame0 - 1, (self.align_frame_n or n_frames))
        if align.start >= n_frames or align.stop > n_frames:
            raise SettingsError(
                f"{movie}: frames {self.align_frame0} to {self.align_frame_n or 'the last'} are to be aligned, but it "
                f"has {n_frames}: change the range."
            )
        if len(align) < 2:
            raise SettingsError(
                f"{movie}: only {len(align)} frame in the range to align: at least 2 are needed (is it an image, or "
                "a gain reference?)."
            )
        if self.use_align_to_sum:
            return align, align
        total = range(self.sum_frame0 - 1, (self.sum_frame_n or align.stop))
        if total.start < align.start or total.stop > align.stop or len(total) < 1:
            raise SettingsError(
                f"{movie}: frames {total.start + 1} to {total.stop} are to be summed, but only {align.start + 1} to "
                f"{align.stop} are aligned: sum a part of the aligned range."
            )
        if self.split_even_odd and len(total) < 2:
            raise SettingsError(f"{movie}: 1 frame is to be summed: it can't be split into even and odd frames.")
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

    def to_dict(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Dict[str, Any]) -> Settings:
        """Settings from a saved result or a worker's request; names that this version does not know are an error."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise SettingsError(f"Unknown settings: {', '.join(unknown)}.")
        return cls(**values)
