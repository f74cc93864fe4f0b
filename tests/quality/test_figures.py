"""The record of the figures: what of it is written, what people read about it, and its table in the documentation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from flexalign_plugin.motion.global_alignment import POOR_REJECTION
from flexalign_plugin.quality.figures import (
    DESCRIPTIONS,
    MANY_ON_RIM,
    Figures,
    documentation,
    in_chart,
    in_order_of_rank,
)

DOCS = Path(__file__).resolve().parents[2] / "docs" / "outputs.md"
NAMES = [field.name for field in dataclasses.fields(Figures)]
UNGROUPED = [name for name in NAMES if not DESCRIPTIONS[name].group]


@pytest.mark.skipif(not DOCS.exists(), reason="installed without its documentation")
def test_the_table_in_the_documentation_is_the_generated_one():
    section = DOCS.read_text(encoding="utf-8").split("### Quality figures\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert table == documentation().splitlines(), "docs/outputs.md: run python -m flexalign_plugin.quality.figures"


def test_figures_outside_of_groups_are_always_written():
    """In the order of the fields, null if unknown."""
    values = Figures(reference_frame=3).to_dict()
    assert list(values) == UNGROUPED and len(values) > 20
    assert values.pop("reference_frame") == 3
    assert set(values.values()) == {None}


@pytest.mark.parametrize(
    "name, others",
    [
        ("patches", {"patch_centres_px", "patch_shifts_px", "control_points", "local_log_evidence"}),
        ("frc", {"frc_frequency_per_A", "frc_0143_A", "frc_05_A"}),
        ("psd_profile", set()),
        ("relion_fit_rms_px", {"relion_fit_max_px"}),
    ],
)
def test_a_group_is_written_as_a_whole_where_one_figure_is_known(name, others):
    values = Figures(**{name: 0}).to_dict()
    group = DESCRIPTIONS[name].group
    assert list(values) == [n for n in NAMES if n in UNGROUPED or DESCRIPTIONS[n].group == group]
    assert others <= set(values) and values[name] == 0
    assert all(values[other] is None for other in others)


def test_figures_come_back_from_a_file_of_any_version():
    figures = Figures(pairs_rejected=0.25, patches=[2, 3], defects={"gain": 4})
    assert Figures.from_dict(figures.to_dict()) == figures
    assert Figures.from_dict({**figures.to_dict(), "of_another_version": 1.5}) == figures
    assert Figures.from_dict({}) == Figures()


def test_every_figure_is_explained():
    assert list(DESCRIPTIONS) == NAMES
    for name, description in DESCRIPTIONS.items():
        assert description.label and description.meaning.endswith("."), name
        assert "|" not in description.meaning + description.unit, name  # it is a cell of a table
    labels = [description.label for description in DESCRIPTIONS.values()]
    assert len(set(labels)) == len(labels)


def test_ranks_are_distinct_and_give_the_order():
    ranked = in_order_of_rank()
    ranks = [DESCRIPTIONS[name].rank for name in ranked]
    assert ranks == sorted(set(ranks)) and ranks[0] == 1
    assert ranked[0] == "accumulated_motion_total_A"
    # Only figures with a rank can be drawn, compared between movies or be of concern.
    for name in set(NAMES) - set(ranked):
        description = DESCRIPTIONS[name]
        assert not description.chart and description.limit is description.outlier_above is None, name


def test_figures_of_each_chart():
    assert in_chart("motion") == [f"accumulated_motion_{part}_A" for part in ("total", "early", "late")]
    assert in_chart("local motion") == ["local_motion_max_px"]
    assert in_chart("dose") == ["counted_dose_A2", "mean_intensity"]
    assert in_chart("pairs") == ["pairs_rejected"]
    assert {description.chart for description in DESCRIPTIONS.values()} == {
        "",
        "motion",
        "local motion",
        "dose",
        "pairs",
    }


def test_limits_are_those_that_the_alignment_uses():
    """Beyond the first the motion is searched another way, beyond the second there is a warning."""
    assert DESCRIPTIONS["pairs_rejected"].limit == POOR_REJECTION == 0.3
    assert DESCRIPTIONS["pairs_on_rim"].limit == MANY_ON_RIM == 0.1
