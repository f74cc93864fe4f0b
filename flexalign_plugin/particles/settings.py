"""The settings of one alignment of particles: validated once, saved with every result.

As with the settings of movies, the names are those of the form in snake_case, and those of the command's options.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Dict, List, Mapping, Union

from ..errors import SettingsError
from ..inputs import cut
from ..option import Bounds, option, out_of_bounds

Value = Union[str, int, float, bool]
COARSEST_GALLERY = 0.5  # of the particle's diameter: at coarser resolutions all views look the same
WITHOUT_EFFECT = ("threads", "memory")  # on the result
FIT = 1 + 1e-4  # pixel sizes are rounded: 4 A for 2 * 2.0001 A is no mistake


@dataclass(frozen=True)
class ParticleSettings:
    """Settings of one alignment of particles. Lengths in Angstrom, angles in degrees; 0 is automatic where it says."""

    max_resolution: float = option(
        8.0,
        "Finest detail that is compared, in Angstrom: not finer than the volume's own resolution.",
        metavar="A",
        form="maximumResolution",
        label="Maximum resolution",
        bounds=Bounds(0.5, 200, unit="A", advice="usually 6 to 15 A"),
    )
    mask_diameter: float = option(
        0.0,
        "Diameter of the particle in Angstrom; the noise is measured outside of it. 0: measured in the volume.",
        metavar="A",
        form="maskDiameter",
        label="Mask diameter",
        bounds=Bounds(0, 100_000, unit="A", advice="0 for automatic"),
    )
    max_shift: float = option(
        20.0,
        "Largest distance of a particle from the centre of its image, in Angstrom.",
        metavar="A",
        form="maxParticleShift",
        label="Maximum shift",
        bounds=Bounds(0, 10_000, unit="A"),
    )
    symmetry: str = option(
        "C1",
        "Symmetry of the volume: C1, C2, ..., D2, ..., T, O, I1, I2, I3 or I4, in RELION's and Scipion's frames.",
        metavar="NAME",
        form="symmetryGroup",
    )
    max_psi: float = option(
        180.0,
        "Largest in-plane angle, in degrees either way; 180: all.",
        metavar="DEG",
        form="maxPsi",
        label="Maximum in-plane angle",
        bounds=Bounds(0, 180, above=True, unit="degrees", advice="180 for all"),
    )
    coarse_resolution: float = option(
        0.0,
        "Resolution of the search over all orientations, in Angstrom; 0: chosen from the diameter.",
        metavar="A",
        form="initialResolution",
        label="Coarse resolution",
        bounds=Bounds(0, 500, unit="A", advice="0 for automatic"),
    )
    local_only: bool = option(
        False,
        "Only improve the orientations and shifts that the particles have, without a search over all orientations.",
        form="considerInputAlignment",
    )
    threads: int = option(
        0,
        "CPU threads; 0: all available.",
        metavar="N",
        label="Threads",
        bounds=Bounds(0, 1024, advice="0 for all available"),
    )
    memory: float = option(
        0.0,
        "Memory to use at most, in GB; 0: what the machine has.",
        metavar="GB",
        form="memory",
        label="Memory",
        bounds=Bounds(0, 100_000, unit="GB", advice="0 for what the machine has"),
    )

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise SettingsError(" ".join(problems))

    def problems(self) -> List[str]:
        """One sentence for each value that is out of bounds or contradicts another setting; empty if all are valid."""
        from .symmetry import rotations  # here, because it loads libraries, and the command's help is to be fast

        sentences = out_of_bounds(self)
        try:
            rotations(self.symmetry)
        except SettingsError as error:
            sentences.append(str(error))
        if not sentences and self.coarse_resolution and self.coarse_resolution < self.max_resolution:
            sentences.append(
                f"Coarse resolution is {self.coarse_resolution:g} A, finer than the maximum resolution of "
                f"{self.max_resolution:g} A: give a larger number, or 0 for automatic."
            )
        if not sentences and self.mask_diameter:
            sentences += self.problems_with_diameter(self.mask_diameter)
        return sentences

    def problems_with_diameter(self, diameter_A: float) -> List[str]:
        """One sentence for each setting that does not fit a particle of this diameter."""
        sentences = []
        coarsest = COARSEST_GALLERY * diameter_A
        for label, value in (
            ("Maximum resolution", self.max_resolution),
            ("Coarse resolution", self.coarse_resolution),
        ):
            if value > coarsest:
                sentences.append(
                    f"{label} is {value:g} A, too coarse for a particle of {diameter_A:.4g} A: give at most half of "
                    f"the diameter, {coarsest:.4g} A."
                )
        return sentences

    def problems_with_images(self, box: int, pixel_A: float, name: str) -> List[str]:
        """One sentence for each setting that does not fit images of `box` pixels of `pixel_A`.

        name : of the particles, to begin the sentences with, e.g. a file or "optics group 2 of particles.star".
        """
        sentences = []
        nyquist_A, side_A = 2 * pixel_A, box * pixel_A
        if self.max_resolution * FIT < nyquist_A:
            sentences.append(
                f"{name}: the maximum resolution is {self.max_resolution:g} A, finer than pixels of {pixel_A:g} A "
                f"can show: give at least {nyquist_A:g} A."
            )
        if self.max_shift > side_A / 2:
            sentences.append(
                f"{name}: the maximum shift is {self.max_shift:g} A, but from the centre of the images to their edge "
                f"it is {side_A / 2:g} A: give at most that."
            )
        if self.mask_diameter > side_A * FIT:
            sentences.append(
                f"{name}: the mask diameter is {self.mask_diameter:g} A, but the images are {side_A:g} A wide: give a "
                "smaller diameter, or extract the particles with a larger box."
            )
        return sentences

    def to_dict(self) -> Dict[str, Value]:
        return dataclasses.asdict(self)

    def result_of(self) -> Dict[str, Value]:
        """The settings on which the result depends."""
        return {name: value for name, value in self.to_dict().items() if name not in WITHOUT_EFFECT}

    @classmethod
    def from_dict(cls, values: Mapping[str, Value]) -> ParticleSettings:
        """Settings from a saved result; SettingsError if a name is unknown to this version."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise SettingsError(f"Unknown settings: {cut(', '.join(unknown))}.")
        return cls(**values)  # type: ignore[arg-type]


# {name of a parameter of the form: field of `ParticleSettings`}
FIELDS_OF_FORM = {f.metadata["form"]: f.name for f in dataclasses.fields(ParticleSettings) if f.metadata["form"]}
