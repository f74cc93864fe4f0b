"""The text of *Help* in the form: what the protocol does, and docs/parameters.md with the labels of the form."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path
from typing import Any, Dict, List

import pyworkflow.protocol.params as params

import flexalign_plugin

DOCS = Path(flexalign_plugin.__file__).parent / "docs"
WIDTH = 76  # characters; Scipion's dialog is at most 80 wide and breaks longer lines anywhere
INDENT = "    "
PARTICLES = "Particles"  # beginning of the headings of docs/parameters.md about the protocols of particles


def help_text(protocol: Any) -> str:
    """Help for a protocol (an object): the docstring of its class, and the table row of each parameter in its form."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(type(protocol).__doc__ or ""))
    lines = [_filled(paragraph) + "\n" for paragraph in paragraphs]
    rows = _parameters(_labels(protocol), type(protocol).aboutParticles)
    return "\n".join([*lines, *rows, "", f"All documentation: [[{DOCS}][{DOCS}]]"])


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()), WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _labels(protocol: Any) -> Dict[str, str]:
    """{name of a parameter: its label in the form}; parameters of one line have the label of the line."""
    labels = {name: param.label.get() for name, param in protocol.getDefinition().iterParams()}
    for _, element in protocol.getDefinition().iterAllParams():
        if isinstance(element, params.Line):
            labels.update({name: element.label.get() for name, _ in element.iterParams()})
    # Scipion draws these itself, with labels of its own.
    fixed = {"useGpu": "GPU IDs", "gpuList": "GPU IDs", "binThreads": "Threads", "numberOfThreads": "Scipion threads"}
    if protocol.modeSerial():  # its threads are those of the computation
        fixed["numberOfThreads"] = "Threads"
    labels.update({name: label for name, label in fixed.items() if name in labels})
    return labels


def _parameters(labels: Dict[str, str], about_particles: bool) -> List[str]:
    """Lines with every section and table row of docs/parameters.md that concerns parameters in `labels`."""
    lines: List[str] = []
    heading, concerns = "", False
    with open(DOCS / "parameters.md", encoding="utf-8") as f:
        text = f.read()
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line[3:]
            concerns = heading.startswith(PARTICLES) == about_particles
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not concerns or len(cells) != 3:  # of other protocols, or not a table of parameters
            continue
        named = [labels[name] for name in re.findall(r"\*(\w+)\*", cells[0]) if name in labels]
        if not named:  # the head of a table, or not in this form
            continue
        if heading:
            lines += [f"*{heading}*", ""]
            heading = ""
        default = f"  (default: {_plain(cells[1], labels)})" if cells[1] else ""
        lines += [_filled(", ".join(dict.fromkeys(named)) + default)]
        lines += [_filled("Change it when " + _plain(cells[2], labels), INDENT) + ".", ""]
    return lines


def _plain(text: str, labels: Dict[str, str]) -> str:
    """Markdown without its links and code marks, and with labels instead of names."""
    text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text).replace("`", "").rstrip(".")
    # In quotation marks: Scipion knows bold text only within one line.
    return re.sub(r"\*([^*]+)\*", lambda name: f'"{labels.get(name.group(1), name.group(1))}"', text)
