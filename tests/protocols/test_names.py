"""What Scipion shows of the protocols outside their forms: their names, their places in the tree, their help."""

from __future__ import annotations

import importlib.util
import re

import pytest

from flexalign_plugin import protocols
from flexalign_plugin.protocols import help_text

PARTICLES = [protocols.ProtSwiftAlign, protocols.ProtSwiftConsensus]
CLASSES = [protocols.ProtFlexAlign]
if importlib.util.find_spec("tomo") is not None:
    CLASSES.append(protocols.ProtFlexAlignTiltSeries)


@pytest.mark.parametrize(
    ("name", "label", "view", "section"),
    [
        ("ProtFlexAlign", "FlexAlign", "Protocols SPA", "Movies"),
        ("ProtFlexAlignTiltSeries", "FlexAlign tilt series", "Tomography", "Tilt-series movies"),
        ("ProtSwiftAlign", "SwiftAlign", "Protocols SPA", "3D/Refine"),
        ("ProtSwiftConsensus", "SwiftAlign consensus", "Protocols SPA", "3D/Analysis"),
    ],
)
def test_the_tree_shows_the_name_directly_under_its_section(tmp_path, name, label, view, section):
    """As motioncorr, relion and cistem. The tree cuts long names off, so that the name must come first."""
    import pwem
    from pyworkflow.gui.project.viewprotocols_extra import ProtocolTreeConfig

    if name not in [cls.__name__ for cls in CLASSES + PARTICLES]:
        pytest.skip("scipion-em-tomo is not installed")
    (tmp_path / "protocols.conf").write_text("[PROTOCOLS]\n")
    views = ProtocolTreeConfig.load(pwem.Domain, str(tmp_path / "protocols.conf"))
    found = views[view]
    for text in section.split("/"):
        (found,) = [part for part in found.childs if part.text == text]
    (ours,) = [item for item in found.childs if item.value == name]
    assert (ours.tag, ours.text) == ("protocol", "default")  # the tree then shows the label of the class
    assert getattr(protocols, name).getClassLabel() == label


def test_the_plugin_names_its_fields_and_the_protocols_their_state():
    import pwem
    from pyworkflow import BETA, PROD, SPA, TOMO

    assert pwem.Domain.getPlugins()["flexalign_plugin"].Plugin._processingField == [SPA, TOMO]
    for cls in PARTICLES:  # their accuracy on real particles has not been measured yet
        assert cls._devStatus == BETA and cls._lastUpdateVersion
    for cls in CLASSES:
        assert cls._devStatus == PROD and cls._lastUpdateVersion
        assert not cls(useGpu=False).warnings()
        (warning,) = cls(useGpu=True).warnings()
        assert "not been run on real hardware" in warning
        assert "not been run on real hardware" in " ".join(cls.getHelpText().split())


@pytest.mark.parametrize("cls", CLASSES + PARTICLES)
def test_help_explains_every_parameter_by_its_label(cls):
    text = cls.getHelpText()
    words = " ".join(text.split())
    protocol = cls()
    missing = [
        name
        for name, label in help_text._labels(protocol).items()
        if label not in words and f"*{name}*" in (help_text.DOCS / "parameters.md").read_text(encoding="utf-8")
    ]
    assert not missing
    # No name of a workflow file, no Markdown.
    assert not re.search(r"\b(maxShift|alignFrame0|doSavePs)\b|`|\]\(", text)
    if cls is not protocols.ProtFlexAlign:
        assert "Only process N movies" not in text


@pytest.mark.parametrize("cls", CLASSES + PARTICLES)
def test_no_line_of_the_help_is_broken_by_the_dialog(cls):
    """The dialog is 80 characters wide. A line that is much shorter than the others ends a paragraph."""
    lines = cls.getHelpText().splitlines()
    *lines, last = lines
    assert last.startswith("All documentation: [[")
    assert max(map(len, lines)) <= help_text.WIDTH
    for line, following in zip(lines, lines[1:]):
        if line.strip() and following.strip() and line.startswith("    ") == following.startswith("    "):
            assert len(line) + 1 + len(following.split()[0]) > help_text.WIDTH, line
