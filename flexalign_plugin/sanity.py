"""Does the input make sense? One line with what it amounts to, and doubts about values that are probably mistyped.

`InputFacts` joins what the user typed with what the movie holds. Form, log, command and report show its `line` and its
`doubts`; each doubt names a value that would make sense. Nothing here reads a file: `movies.counting` measures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional, Tuple

# A as typed. Detectors at the highest magnifications give 0.2 A; movies with pixels above 20 A are not recorded.
SMALLEST_PIXEL, LARGEST_PIXEL = 0.15, 20.0
SENSIBLE_PIXEL = (0.2, LARGEST_PIXEL)  # range of a suggestion
SMALLEST_FIELD_UM, WHOLE_DETECTOR_PX = 0.05, 2000  # the field of a whole detector is never smaller
MOST_DOSE = 150.0  # e/A^2 in a movie; exposures are 20 to 100
SENSIBLE_DOSE = (1.0, 120.0)  # of a whole movie, range of a suggestion
# Dose counted in the movie, relative to the one that was given. The specimen, an energy filter and coincidences take up
# to half of the electrons, more in a thick specimen; a mistake by two in the pixel size changes it fourfold.
LEAST_COUNTED, MOST_COUNTED = 0.28, 1.6
PLAUSIBLE_COUNTED = (0.4, 1.3)  # of a suggestion
LEAST_GAIN, MOST_GAIN = 0.3, 3.0  # typical value of a gain reference; they are made with a mean of 1
PIXEL_TOLERANCE = 1.1  # a nominal pixel size is a few percent off
BY_TWO = "super-resolution or 8K?"
ANGSTROM_PER = {"metres": 1e10, "nm": 10.0, "pm": 0.01}


@dataclass(frozen=True)
class InputFacts:
    """What was typed, and what the movie holds.

    Attributes
    ----------
    pixel_size_A : of the frames as they are aligned. frame_px : (ny, nx).
    rendering : how much finer than the sensor's pixels these pixels are (EER: 1, 2 or 4).
    n_frames : in the movie. dose_A2 : of the movie in e/A^2, without pre-exposure; None if unknown.
    same_dose : whether all frames have the same dose.
    hardware_frames : in each frame of an EER movie, else None.
    counted : electrons per pixel and frame counted in the movie; None if its values are no counts of electrons.
    gain : typical value of the gain by which frames are multiplied; None without one.
    recorded_pixel_A : pixel size according to the movie's own metadata, which is compared elsewhere; None if unknown.
    """

    pixel_size_A: float
    frame_px: Tuple[int, int]
    n_frames: int
    dose_A2: Optional[float] = None
    same_dose: bool = True
    rendering: int = 1
    hardware_frames: Optional[int] = None
    counted: Optional[float] = None
    gain: Optional[float] = None
    recorded_pixel_A: Optional[float] = None

    @property
    def dose_per_frame(self) -> Optional[float]:
        """Mean over the frames, in e/A^2."""
        return None if self.dose_A2 is None else self.dose_A2 / self.n_frames

    @property
    def counted_A2(self) -> Optional[float]:
        """Electrons counted in the whole movie, in e/A^2."""
        return None if self.counted is None else self.counted * self.n_frames / self.pixel_size_A**2

    @property
    def line(self) -> str:
        """`0.83 A/px, field 0.48 x 0.34 um, 40 frames x 1.2 = 48 e/A^2; counted in the movie: 46`."""
        ny, nx = (number(n * self.pixel_size_A / 1e4, 2) for n in self.frame_px)
        field = nx if nx == ny else f"{nx} x {ny}"
        start = f"{number(self.pixel_size_A, 4)} A/px, field {field} um, {self.n_frames} frames"
        if self.dose_A2 is None or self.dose_per_frame is None:
            dose, unit = ", dose not given", " e/A^2"
        elif self.same_dose:
            dose, unit = f" x {number(self.dose_per_frame, 3)} = {number(self.dose_A2, 3)} e/A^2", ""
        else:
            dose, unit = f" of different dose, {number(self.dose_A2, 3)} e/A^2 in all", ""
        if self.counted_A2 is None:
            return f"{start}{dose}; the movie holds no electron counts to compare with"
        return f"{start}{dose}; counted in the movie: {number(self.counted_A2, 2)}{unit}"

    @property
    def doubts(self) -> List[str]:
        """One sentence for each value that makes no sense, with one that would."""
        # With a wrong pixel size the doses can't be compared.
        return (self._pixel_doubts() or self._dose_doubts()) + self._gain_doubts()

    def _pixel_doubts(self) -> List[str]:
        sensor = self.pixel_size_A * self.rendering
        field_um = max(self.frame_px) * self.pixel_size_A / 1e4
        whole = max(self.frame_px) >= WHOLE_DETECTOR_PX * self.rendering
        tiny = whole and field_um < SMALLEST_FIELD_UM
        if SMALLEST_PIXEL <= sensor <= LARGEST_PIXEL and not tiny:
            return []
        unit = unit_hint(sensor)
        return [
            f"A pixel size of {number(sensor, 4)} A gives a field of {number(field_um, 2)} um, which is "
            f"{'very small' if sensor <= LARGEST_PIXEL else 'very large'} for a movie: "
            + (f"{unit}." if unit else "check the pixel size.")
        ]

    def _is_pixel_contradicted(self) -> bool:
        own, typed = self.recorded_pixel_A, self.pixel_size_A * self.rendering
        return own is not None and not 1 / PIXEL_TOLERANCE <= typed / own <= PIXEL_TOLERANCE

    def _dose_doubts(self) -> List[str]:
        dose, each, counted = self.dose_A2, self.dose_per_frame, self.counted_A2
        if not dose or each is None or self._is_pixel_contradicted():
            return []
        if counted is not None and counted > 0 and not LEAST_COUNTED <= counted / dose <= MOST_COUNTED:
            return [self._counted_doubt(counted / dose)]
        whole = self.same_dose and SENSIBLE_DOSE[0] <= each <= SENSIBLE_DOSE[1] and self.n_frames > 1
        if dose <= MOST_DOSE or counted is not None:
            return []
        return [
            f"{self.n_frames} frames of {number(each, 3)} e/A^2 are {number(dose, 3)} e/A^2 in all, more than "
            "specimens are exposed to: "
            + (
                f"if {number(each, 3)} is the dose of the whole movie, the dose per frame is "
                f"{number(each / self.n_frames, 3)}."
                if whole
                else "check the dose per frame."
            )
        ]

    def _counted_doubt(self, ratio: float) -> str:
        """ratio : counted dose, relative to the given one."""
        dose, each, typed = self.dose_A2 or 0.0, self.dose_per_frame or 0.0, self.pixel_size_A * self.rendering
        group = self.hardware_frames
        # (factor by which the ratio would change, what the value would be)
        causes: List[Tuple[float, str]] = [
            (
                float(self.n_frames),
                f"a dose per frame of {number(each / self.n_frames, 3)} (was the total dose typed?)",
            )
        ]
        if group is not None:
            hardware = each / group
            causes += [
                (1.0 / group, f"a dose per frame of {number(each * group, 3)} (was it that of a hardware frame?)"),
                (
                    float(group),
                    f"a dose per hardware frame of {number(hardware / group, 3)} (was that of a whole frame typed?)",
                ),
                (
                    float(group * self.n_frames),
                    f"a dose per hardware frame of {number(hardware / group / self.n_frames, 3)} (was the total dose "
                    "typed?)",
                ),
            ]
        if self.recorded_pixel_A is None:
            units = ((10.0, "was it typed in nm?"), (0.01, "was it typed in pm?"))
            for times, why in ((0.5, BY_TWO), (2.0, BY_TWO), *units):
                if SENSIBLE_PIXEL[0] <= typed * times <= SENSIBLE_PIXEL[1]:
                    causes.append((times**-2, f"a pixel size of {number(typed * times, 4)} A ({why})"))
        low, high = PLAUSIBLE_COUNTED
        # The most probable first: usually some 80 % of the electrons are counted.
        causes.sort(key=lambda cause: abs(math.log(ratio * cause[0] / 0.8)))
        found = number(ratio * dose, 2)
        fitting = [text for factor, text in causes if factor != 1 and low <= ratio * factor <= high]
        start = f"The movie holds {found} e/A^2, but {number(dose, 3)} were given"
        if fitting:
            blocked = "" if ratio > 1 else ", unless the beam was partly blocked or the specimen is very thick"
            return f"{start}: {' or '.join(fitting)} would make sense{blocked}."
        if ratio > 1:
            return (
                f"{start}: check pixel size and dose; a dose per frame of {number(each * ratio, 2)}, {found} in all, "
                "would make sense."
            )
        return f"{start}: check pixel size and dose, or whether the beam was blocked or the specimen is very thick."

    def _gain_doubts(self) -> List[str]:
        gain = self.gain
        if gain is None or LEAST_GAIN <= gain <= MOST_GAIN:
            return []
        return [
            f"The gain's values are about {number(gain, 2)}, and micrographs are multiplied by it: gain references "
            f"have values about 1. Divide its values by {number(gain, 2)}, or check that it is the right file."
        ]


def unit_hint(pixel_size: float) -> str:
    """`0.83 A would make sense, if it was typed in nm`; empty if no usual unit explains this pixel size in A."""
    for unit, angstrom in ANGSTROM_PER.items():
        low, high = SENSIBLE_PIXEL
        if pixel_size > 0 and low <= pixel_size * angstrom <= high:
            return f"{number(pixel_size * angstrom, 4)} A would make sense, if it was typed in {unit}"
    return ""


def odd_pixel_hint(pixel_size: float) -> str:
    """`The pixel size is 83 A: 0.83 A would make sense, if it was typed in pm.`; empty for a usual pixel size."""
    hint = unit_hint(pixel_size)
    usual = SMALLEST_PIXEL <= pixel_size <= LARGEST_PIXEL
    return "" if usual or not hint else f"The pixel size is {number(pixel_size, 4)} A: {hint}."


def number(value: float, digits: int) -> str:
    """The value with this number of significant digits, but without rounding away digits before the decimal point."""
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text and abs(value) < 1e9 else text
