"""`Figures`: all quality figures of an aligned movie, each with its name, unit, meaning and limit.

`_motion.json` holds these figures under these names and in this order. The report, the viewer and the table in
docs/outputs.md are made from the fields below. A new figure needs one new field and the code that computes it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..inputs import dataclass_of

MANY_ON_RIM = 0.1  # fraction of the pairs, above which the search range may be too small
LOW_DOSE = 0.5  # of the run's median: thick ice, or a blocked beam
FRACTION = "fraction"  # shown in percent


class Description(NamedTuple):
    """Description of a figure for the user.

    Attributes
    ----------
    label : a few words. unit : "px" means a length in unbinned pixels, "pixels" a number of them.
    meaning : one or two sentences.
    limit : movies above this value should be inspected; None: no limit.
    outlier_above : a movie that is far above the others of a run should be inspected only if it is also above this
        value; None: not compared.
    outlier_below : movies below this fraction of the run's median should be inspected; None: not compared.
    rank : figures with a rank are shown first, in this order.
    chart : chart of the report to which the figure belongs: "motion", "local motion" or "dose" of a run, or "pairs" of
        frames.
    group : figures of a group are written only if one of them is known: "local alignment", "even and odd halves",
        "power spectra" or "RELION's polynomial". Figures without a group are always written, `null` if unknown.
    """

    label: str
    unit: str
    meaning: str
    limit: Optional[float] = None
    outlier_above: Optional[float] = None
    outlier_below: Optional[float] = None
    rank: Optional[int] = None
    chart: str = ""
    group: str = ""


def figure(label: str, unit: str, meaning: str, **more: Any) -> Any:
    """A field of `Figures`, unknown by default; `more` as in `Description`."""
    return dataclasses.field(default=None, metadata={"description": Description(label, unit, meaning, **more)})


LOCAL, HALVES, SPECTRA, POLYNOMIAL = "local alignment", "even and odd halves", "power spectra", "RELION's polynomial"
Numbers = Sequence[Optional[float]]  # None for numbers that are not finite
Points = Sequence[Sequence[Optional[float]]]


@dataclass(frozen=True)
class Figures:
    """Figures of one movie; None if a figure is not known. All are JSON-ready: plain numbers, lists and dicts."""

    correlated_area_px: Optional[List[int]] = figure(
        "Area compared",
        "px",
        "Rows and columns of the central part of the frames that was compared: a size that is fast to transform, at "
        "most 10 % smaller than the frame. On a GPU the search for fast sizes chooses it. The micrograph keeps every "
        "pixel.",
    )
    max_res_for_correlation_A: Optional[float] = figure(
        "Resolution of the comparison",
        "Å",
        "Resolution to which frames were compared: that of the settings, or the automatic one where they are 0.",
    )
    max_shift_A: Optional[float] = figure(
        "Search range",
        "Å",
        "Largest shift between consecutive frames that was searched: that of the settings, or the automatic one.",
    )
    reference_frame: Optional[int] = figure(
        "Reference frame", "", "The frame (from 1) in which all shifts are zero.", rank=20
    )
    pairs_rejected: Optional[float] = figure(
        "Rejected pairs",
        FRACTION,
        "Fraction of the frame pairs that contradict the estimated motion of the whole frame. If it is high, the movie "
        "has little signal, and all pairs are searched jointly.",
        limit=0.3,
        rank=7,
        chart="pairs",
    )
    frame_pairs_rejected: Optional[Numbers] = figure(
        "Rejected pairs of each frame", FRACTION, "Fraction of the rejected pairs of each aligned frame."
    )
    pairs_on_rim: Optional[float] = figure(
        "Pairs at the search limit",
        FRACTION,
        "Fraction of the frame pairs without a correlation peak inside the search range.",
        limit=MANY_ON_RIM,
        rank=8,
    )
    pair_residual_px: Optional[float] = figure(
        "Residual of pairs",
        "px",
        "Standard deviation of the shifts of the accepted pairs about the motion.",
        outlier_above=0.2,
        rank=9,
    )
    pair_significance: Optional[float] = figure(
        "Strength of the correlation peaks",
        "",
        "Height of a pair's correlation peak in standard deviations of the correlation around it, median over the "
        "pairs. From 5 on nearly all pairs are measured well; near 1 single pairs show no signal.",
        rank=10,
    )
    uncovered_border_px: Optional[Dict[str, float]] = figure(
        "Uncovered border",
        "px",
        "Width of the border at each edge of the micrograph in which some frames have no data; their mean is used "
        "there.",
    )
    patches: Optional[List[int]] = figure("Patches", "", "Patches along y and x.", group=LOCAL)
    patch_centres_px: Optional[Points] = figure("Patch centres", "px", "`[y, x]` of each patch.", group=LOCAL)
    patch_shifts_px: Optional[Sequence[Points]] = figure(
        "Patch shifts",
        "px",
        "Shift `[sy, sx]` of each patch in each frame as measured from pairs, before the spline; the mean over the "
        "frames is removed.",
        group=LOCAL,
    )
    patch_pairs_rejected: Optional[float] = figure(
        "Rejected pairs of patches",
        FRACTION,
        "Fraction of the frame pairs of a patch that contradict its estimated motion, mean over the patches.",
        limit=0.5,
        rank=11,
        group=LOCAL,
    )
    patches_rejected: Optional[Numbers] = figure(
        "Rejected pairs of each patch",
        FRACTION,
        "Fraction of the rejected pairs of each patch, in the order of the centres.",
        group=LOCAL,
    )
    control_points: Optional[List[int]] = figure(
        "Control points",
        "",
        "Of the field: in time, along y, along x; `null` when no local motion rises above the noise.",
        group=LOCAL,
    )
    local_log_evidence: Optional[float] = figure(
        "Evidence for local motion",
        "",
        "Natural logarithm of how much more probable the movie is with the local field than with whole-frame shifts "
        "alone. The field is dropped when it is below 0.",
        rank=16,
        group=LOCAL,
    )
    shift_sigma_px: Optional[Points] = figure(
        "Standard errors of the shifts",
        "px",
        "Standard error `[sy, sx]` of each frame's shift, from the curvature of the likelihood. As for all errors "
        "here, the mean shift over the frames is removed first. `null` without refinement.",
    )
    field_sigma_px: Optional[float] = figure(
        "Standard error of the local field",
        "px",
        "Length of the error vector of the local field, rms over the frame and all frames. `null` without a refined "
        "field.",
    )
    field_sigma_mesh_px: Optional[Points] = figure(
        "Standard error of the local field, map",
        "px",
        "Standard error of the local field at 9 x 9 positions from edge to edge, `[y][x]`. It is largest at the "
        "edges, beyond the centres of the outer patches.",
    )
    field_misfit_px: Optional[float] = figure(
        "Misfit of the local field",
        "px",
        "Rms length of patch motion that the spline does not follow, such as a jolt within one frame. 0 where it is "
        "not clear of noise; `null` without a refined field.",
    )
    global_error_px: Optional[float] = figure(
        "Expected error of the whole-frame shifts",
        "px",
        "Rms error to expect of the shifts of whole frames alone, from `shift_sigma_px`. It says nothing about local "
        "motion.",
    )
    expected_error_px: Optional[float] = figure(
        "Expected error",
        "px",
        "Rms error to expect of the motion over the frame and all frames, from `shift_sigma_px`, `field_sigma_px` and "
        "`field_misfit_px`. It leaves out what blurs within a patch or a frame (0.02 px on phantoms). `null` without "
        "local alignment: the local motion that is left is not measured then, and it is often ten times as large as "
        "`global_error_px`.",
        rank=12,
    )
    motion_over_error: Optional[float] = figure(
        "Motion over its error", "", "Rms motion divided by its expected error; `null` where that is.", rank=14
    )
    confidence: Optional[float] = figure(
        "Confidence",
        FRACTION,
        "Fraction of the signal's amplitude at Nyquist that remains with the expected error e, `exp(-(pi e / 2)^2)`: "
        "0.98 for 0.1 px, 0.54 for 0.5 px. 0 when no motion could be measured; `null` where the expected error is.",
        rank=13,
    )
    roughness: Optional[float] = figure(
        "Roughness of the path",
        "",
        "Rms second difference of the whole-frame shifts over their rms first difference: near 0 for a smooth path, "
        "1.4 for a random walk, 1.7 for noise. Above 1.5, with steps above 1 px, there is a warning.",
    )
    late_drift_A_per_dose: Optional[float] = figure(
        "Late drift",
        "Å per e/Å²",
        "How fast the specimen still drifts after the first 4 e/Å²: the distance between the first and the last of "
        "these frames, per dose. It blurs single frames. Above 1 there is a warning. `null` when the dose is not "
        "known.",
        rank=15,
    )
    counted_dose_A2: Optional[float] = figure(
        "Counted dose",
        "e/Å²",
        "Electrons counted in the movie, all frames. If it falls over a run, the source fades or the ice gets thicker. "
        "`null` where the values of the movie are no counts of single electrons.",
        outlier_below=LOW_DOSE,
        rank=21,
        chart="dose",
    )
    mean_intensity: Optional[float] = figure(
        "Mean intensity",
        "",
        "Mean value of a frame after gain and dark, in the units of the movie.",
        outlier_below=LOW_DOSE,
        rank=22,
        chart="dose",
    )
    pixels_replaced: Optional[int] = figure(
        "Pixels replaced", "pixels", "Defects and hot pixels, replaced in every frame.", rank=19
    )
    defects: Optional[Dict[str, int]] = figure(
        "Defects by source",
        "pixels",
        "Pixels that each source marks: `gain`, `gain_list` (in the gain's own file), `defect_map`, `defect_file`, and "
        "`hot_or_dead`, those detected in the movie and marked by no other source.",
    )
    frc_frequency_per_A: Optional[Numbers] = figure(
        "Frequencies of the Fourier ring correlation", "1/Å", "Middle of each ring, up to Nyquist.", group=HALVES
    )
    frc: Optional[Numbers] = figure(
        "Fourier ring correlation",
        "",
        "Of the even and odd micrographs in 64 rings, without uncovered borders.",
        group=HALVES,
    )
    frc_0143_A: Optional[float] = figure(
        "Even and odd agree to (0.143)",
        "Å",
        "Finest resolution at which the Fourier ring correlation of even and odd frames reaches 0.143; between zeros "
        "of the microscope's transfer function it may fall below. `null` if it never does.",
        rank=17,
        group=HALVES,
    )
    frc_05_A: Optional[float] = figure(
        "Even and odd agree to (0.5)",
        "Å",
        "Resolution at which the Fourier ring correlation of even and odd frames falls below 0.5.",
        rank=18,
        group=HALVES,
    )
    psd_profile: Optional[Mapping[str, Numbers]] = figure(
        "Radial averages of the power spectra",
        "log10",
        "Less their backgrounds, as drawn in `_plot_psd.png`: `corrected` and `uncorrected`, from frequency 0 to "
        "Nyquist in equal steps.",
        group=SPECTRA,
    )
    thon_rings_A: Optional[float] = figure(
        "Thon rings seen to",
        "Å",
        "Finest resolution to which Thon rings stand out in the power spectrum of the corrected micrograph: up to "
        "there the correlation of rings in two halves of its tiles is above 0.5. `null` if there are none, or the "
        "frame is too small.",
        outlier_above=8.0,
        rank=5,
        group=SPECTRA,
    )
    thon_rings_uncorrected_A: Optional[float] = figure(
        "Thon rings without correction",
        "Å",
        "The same for the mean of the frames without motion correction.",
        rank=6,
        group=SPECTRA,
    )
    thon_ring_correlation: Optional[Mapping[str, Numbers]] = figure(
        "Correlation of Thon rings",
        "",
        "Of two halves of the tiles, `corrected` and `uncorrected`, from frequency 0 to Nyquist in equal steps; `null` "
        "at the lowest frequencies.",
        group=SPECTRA,
    )
    accumulated_motion_total_A: Optional[float] = figure(
        "Total motion",
        "Å",
        "Length of the path of the whole frame over the aligned frames.",
        outlier_above=5.0,
        rank=1,
        chart="motion",
    )
    accumulated_motion_early_A: Optional[float] = figure(
        "Early motion",
        "Å",
        "Part of the total motion up to 4 e/Å²: steps that lead to a frame at whose end the dose, with pre-exposure, "
        "is at most 4. `null` when the dose is not known.",
        rank=2,
        chart="motion",
    )
    accumulated_motion_late_A: Optional[float] = figure(
        "Late motion",
        "Å",
        "Part of the total motion after 4 e/Å². `null` when the dose is not known.",
        rank=3,
        chart="motion",
    )
    local_motion_max_px: Optional[float] = figure(
        "Largest local motion",
        "px",
        "Largest distance, on a 9 x 9 mesh over the frame and in any frame, between the local shift and the one in the "
        "first aligned frame. 0 without local alignment.",
        outlier_above=1.0,
        rank=4,
        chart="local motion",
    )
    relion_fit_rms_px: Optional[float] = figure(
        "RELION polynomial, rms",
        "px",
        "Length of the difference between RELION's polynomial in `_shifts.star` and the spline, rms over a 16 x 16 "
        "mesh and all aligned frames.",
        rank=23,
        group=POLYNOMIAL,
    )
    relion_fit_max_px: Optional[float] = figure(
        "RELION polynomial, largest", "px", "Largest length of this difference.", rank=24, group=POLYNOMIAL
    )

    def to_dict(self) -> Dict[str, Any]:
        """{name: value} as in `_motion.json`; groups without any known figure are left out."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        present = {DESCRIPTIONS[name].group for name, value in values.items() if value is not None}
        return {
            name: value
            for name, value in values.items()
            if not DESCRIPTIONS[name].group or DESCRIPTIONS[name].group in present
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Figures:
        """Figures of a saved result. Names that this version does not have are ignored.

        Raises
        ------
        ValueError : a value has the wrong type.
        """
        return dataclass_of(cls, values, ignore_unknown=True)

    def of_motion(self) -> Figures:
        """The figures without those of images, which are others if the frames are summed in another way."""
        of_images = [name for name, description in DESCRIPTIONS.items() if description.group in (HALVES, SPECTRA)]
        return dataclasses.replace(self, **dict.fromkeys(of_images))


# {name: description}, in the order of the fields.
DESCRIPTIONS: Dict[str, Description] = {
    field.name: field.metadata["description"] for field in dataclasses.fields(Figures)
}


def in_order_of_rank() -> List[str]:
    """Names of the figures with a rank, the most important first."""
    ranks: List[Tuple[int, str]] = []
    for name, description in DESCRIPTIONS.items():
        if description.rank is not None:
            ranks.append((description.rank, name))
    return [name for _, name in sorted(ranks)]


def in_chart(chart: str) -> List[str]:
    """Names of the figures that are drawn in this chart of a run."""
    return [name for name in in_order_of_rank() if DESCRIPTIONS[name].chart == chart]


def documentation() -> str:
    """The table of docs/outputs.md. `python -m flexalign_plugin.quality.figures` prints it."""
    lines = ["| name | unit | meaning |", "|---|---|---|"]
    for name, description in DESCRIPTIONS.items():
        unit = {"px": "unbinned px", FRACTION: "0 to 1"}.get(description.unit, description.unit)
        group = f" Only with {description.group}." if description.group else ""
        limit = f" Above {description.limit:g} the movie should be inspected." if description.limit is not None else ""
        lines.append(f"| `{name}` | {unit} | {description.meaning}{limit}{group} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(documentation(), end="")
