"""Translates workflow files of Scipion from Xmipp's FlexAlign protocol to the one of this plugin.

A workflow is the list of protocols that Scipion exports as JSON. docs/migration.md compares the two protocols. The gain
follows `xmipp3/protocols/protocol_flexalign.py`: for TIFF movies it is turned upside down, then the flip of the form is
applied, then the rotation. Here the order of rows comes first too, then the rotation, then the flip.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Optional, Tuple

from .errors import SettingsError
from .settings import GAIN_FLIPS, GAIN_ROTATIONS, GAIN_ROW_ORDERS, MIDDLE_MOST, REFERENCE_FRAMES

Protocol = Dict[str, Any]

XMIPP_CLASS, OUR_CLASS = "XmippProtFlexAlign", "ProtFlexAlign"
XMIPP_LABEL, OUR_LABEL = "xmipp3 - FlexAlign", "FlexAlign"
# Defaults that differ here: they are written into the translation if the workflow does not name them. Xmipp's
# micrographs always have the geometry of a middle frame.
XMIPP_DEFAULTS = {
    "maxResForCorrelation": 30.0,
    "maxShift": 50,
    "useGpu": True,
    "referenceFrame": REFERENCE_FRAMES.index(MIDDLE_MOST),
}
# Only in Xmipp's form; and the crop, which is in its files although it has no effect.
LEFT_OUT = ("streamingSleepOnWait", "numberOfMpi", "cropOffsetX", "cropOffsetY", "cropDimX", "cropDimY")
UPSIDE_DOWN, LEFT_RIGHT = GAIN_FLIPS.index("upside-down"), GAIN_FLIPS.index("left-right")
QUARTER_TURNS = GAIN_ROTATIONS.index("90"), GAIN_ROTATIONS.index("270")


def translate(workflow: List[Protocol], cpu: bool = False) -> Tuple[List[Protocol], List[str]]:
    """The workflow with every FlexAlign protocol of Xmipp replaced by this plugin's.

    Parameters
    ----------
    workflow : protocols as in Scipion's file; not changed.
    cpu : switch GPUs off, whatever the workflow says.

    Returns
    -------
    The new list of protocols; one sentence for each thing that a user should know.

    Raises
    ------
    SettingsError : a value of the gain is not one of the form's.
    """
    by_id = {str(protocol.get("object.id")): protocol for protocol in workflow}
    new, notes = [], []
    for protocol in workflow:
        if protocol.get("object.className") == XMIPP_CLASS:
            protocol, sentences = _translated(protocol, by_id, cpu)
            notes += sentences
        new.append(protocol)
    return new, notes


def _translated(protocol: Protocol, by_id: Dict[str, Protocol], cpu: bool) -> Tuple[Protocol, List[str]]:
    name = f"FlexAlign with id {protocol.get('object.id')}"
    new = {key: value for key, value in {**XMIPP_DEFAULTS, **protocol}.items() if key not in LEFT_OUT}
    new["object.className"] = OUR_CLASS
    label = str(protocol.get("object.label") or "")
    if label.startswith(XMIPP_LABEL):
        new["object.label"] = OUR_LABEL + label[len(XMIPP_LABEL) :]
    notes = [
        f"{name}: maximum resolution {new['maxResForCorrelation']} A and maximum shift {new['maxShift']} A are those "
        "of the workflow; 0 would be automatic here."
    ]
    if "referenceFrame" not in protocol:
        notes.append(
            f"{name}: the reference frame is the middle-most one, as in Xmipp. For Bayesian polishing in RELION choose "
            "the first (Reference frame in the form)."
        )
    if cpu:
        new["useGpu"] = False
    elif new["useGpu"]:
        notes.append(
            f"{name}: GPUs are used, as in the workflow, but this plugin's GPU code has not been run on real hardware: "
            "use --cpu, or set GPU IDs to No in the form."
        )
    if "QUEUE_FOR_JOBS" not in str(protocol.get("_queueParams")):
        new["numberOfThreads"] = 1  # there: the number of GPUs plus 1
    return new, notes + _translate_gain(new, name, by_id)


def _translate_gain(new: Protocol, name: str, by_id: Dict[str, Protocol]) -> List[str]:
    notes = []
    rotation, flip = (_choice(new, key, name) for key in ("gainRot", "gainFlip"))
    if rotation in QUARTER_TURNS and flip:
        new["gainFlip"] = LEFT_RIGHT if flip == UPSIDE_DOWN else UPSIDE_DOWN
        notes.append(
            f"{name}: the gain is rotated by {GAIN_ROTATIONS[rotation]} degrees and flipped. Xmipp flips before it "
            f"rotates, therefore {GAIN_FLIPS[flip]} became {GAIN_FLIPS[new['gainFlip']]} here."
        )
    imported = _import_of(new, by_id)
    if imported is not None and "gainFile" in imported and not imported["gainFile"]:
        return notes
    kind = _extension(imported)
    if kind is None:
        notes.append(
            f"{name}: the format of the movies is not known from the workflow. If they have a gain, check its "
            "orientation with the wizard beside Rotate the gain."
        )
        return notes
    new["gainRowOrder"] = GAIN_ROW_ORDERS.index("flipped" if kind in ("tif", "tiff") else "same")
    if str((imported or {}).get("gainFile")).lower().endswith(".gain"):
        notes.append(f"{name}: movies are divided by the .gain file; Xmipp multiplies by it.")
    return notes


def _choice(protocol: Protocol, key: str, name: str) -> int:
    choices = {"gainRot": GAIN_ROTATIONS, "gainFlip": GAIN_FLIPS}[key]
    value = protocol.get(key) or 0
    if str(value) not in map(str, range(len(choices))):
        raise SettingsError(
            f"{name}: {key} is {value!r}, but must be 0 to {len(choices) - 1}: export the workflow again."
        )
    return int(value)


def _import_of(protocol: Protocol, by_id: Dict[str, Protocol]) -> Optional[Protocol]:
    """The protocol that imported the movies, if it is in the workflow."""
    seen = set()
    while True:
        source = str(protocol.get("inputMovies") or "").split(".")[0]
        if source not in by_id or source in seen:
            return None
        seen.add(source)
        protocol = by_id[source]
        if "filesPath" in protocol:
            return protocol


def _extension(imported: Optional[Protocol]) -> Optional[str]:
    """The ending of the movies' names, in lower case, if the import names one."""
    for key in ("filesPattern", "filesPath"):
        found = re.search(r"\.(tiff?|mrcs?|eer)\b", str((imported or {}).get(key) or "").lower())
        if found:
            return found.group(1)
    return None
