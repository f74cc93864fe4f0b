"""`flexalign xmipp-workflow`: translates a workflow file with Xmipp's FlexAlign protocol."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any, Dict, List

from ..errors import SettingsError
from ..inputs import read_json
from .values import SUCCESS


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "xmipp-workflow",
        help="translate a Scipion workflow from Xmipp's FlexAlign to this one",
        description="Translate a workflow that Scipion has exported (a .json file): every FlexAlign protocol of Xmipp "
        "becomes this plugin's, with the values of the workflow. Import the result in Scipion's project window "
        "(Project > Import workflow).",
        epilog="Exit status: 0 the translation is written, 1 it can't be written, 2 the workflow can't be read or has "
        "no FlexAlign protocol of Xmipp.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("workflow", metavar="WORKFLOW", help="file exported by Scipion")
    option("--output", required=True, metavar="FILE", help="file to write")
    option("--cpu", action="store_true", help="switch GPUs off (recommended: see docs/gpu.md)")
    parser.set_defaults(run=_xmipp_workflow)


def _xmipp_workflow(args: argparse.Namespace) -> int:
    from ..files import atomic_path
    from ..xmipp_workflow import OUR_CLASS, XMIPP_CLASS, translate

    workflow = _read(args.workflow)
    if os.path.exists(args.output) and os.path.samefile(args.workflow, args.output):
        raise SettingsError(f"{args.output}: is the workflow itself: give another name for the translation.")
    found = sum(protocol.get("object.className") == XMIPP_CLASS for protocol in workflow)
    if not found:
        raise SettingsError(f"{args.workflow}: has no protocol {XMIPP_CLASS}: there is nothing to translate.")
    translated, notes = translate(workflow, args.cpu)
    with atomic_path(args.output) as temporary, open(temporary, "w", encoding="utf-8") as f:
        json.dump(translated, f, indent=4)
    for note in notes:
        print(note)
    print(f"{args.output}: {len(translated)} protocols, {found} of {XMIPP_CLASS} became {OUR_CLASS}")
    return SUCCESS


def _read(path: str) -> List[Dict[str, Any]]:
    try:
        workflow = read_json(path)
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror}): check the name.") from None
    except ValueError:
        raise SettingsError(f"{path}: is not a JSON file: export the workflow again in Scipion.") from None
    if not isinstance(workflow, list) or not all(isinstance(protocol, dict) for protocol in workflow):
        raise SettingsError(f"{path}: is not a workflow of Scipion, which is a list of protocols: export it again.")
    return workflow
