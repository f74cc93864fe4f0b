"""The motion of a movie and the result of its alignment, passed from the aligner to the writers and the plots."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Optional

import numpy as np

from .correction.motion_correction import Images
from .correction.power_spectra import Spectra
from .motion.model import MotionModel
from .motion.relion_polynomial import PolynomialFit
from .quality.figures import Figures
from .sanity import InputFacts
from .settings import Settings


@dataclass(frozen=True)
class KnownMotion:
    """The motion of a movie and what is said about it, measured now or read from an earlier result.

    Attributes
    ----------
    model : the motion. figures : those of the alignment. warnings, notes : sentences for the user.
    """

    model: MotionModel
    figures: Figures
    warnings: List[str]
    notes: List[str]


@dataclass(frozen=True)
class MovieResult:
    """The result of one aligned movie.

    Attributes
    ----------
    movie : path of the movie file.
    settings : with pixel size and dose per frame of the frames as they were aligned, see `movies.settings_of_frames`.
    given : the settings as they were given; None: the same.
    summed_frames : 0-based frames in the micrograph.
    images : micrographs and aligned movie.
    model : the motion.
    spectra : power spectra with and without motion correction; None if not requested.
    polynomial : RELION's polynomial; required for a local model.
    figures : quality figures.
    warnings : sentences for the user about possible problems with this movie.
    notes : sentences for the user about what was done (gain flipped, frames dropped, ...).
    timings_s : {stage: {"wall": s, "cpu": s}}.
    defects_px : (n, 2) int32, row and column of the pixels that were replaced in every frame.
    turned_gain : (ny, nx) float32, the gain as it was applied, if RELION would read the gain's file with another
        orientation; None otherwise.
    hardware_frames : hardware frames in each frame of an EER movie; None for other movies.
    facts : what was typed and what the movie holds.
    """

    movie: str
    settings: Settings
    model: MotionModel
    summed_frames: range
    images: Images
    spectra: Optional[Spectra] = None
    polynomial: Optional[PolynomialFit] = None
    figures: Figures = field(default_factory=Figures)
    warnings: List[str] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)
    timings_s: Dict[str, Dict[str, float]] = field(default_factory=dict)
    defects_px: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    turned_gain: Optional[np.ndarray] = None
    hardware_frames: Optional[int] = None
    given: Optional[Settings] = None
    facts: Optional[InputFacts] = None

    @property
    def micrograph_pixel_size_A(self) -> float:
        return self.settings.micrograph_pixel_size
