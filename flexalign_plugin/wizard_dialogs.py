"""What all wizards share: errors and questions in dialogs."""

from __future__ import annotations

from typing import Any

from pyworkflow.gui.dialog import RESULT_NO, RESULT_YES, MessageDialog, showError
from pyworkflow.utils import Icon
from pyworkflow.wizard import Wizard

from .errors import FlexAlignError

DIALOG_WIDTH = 76  # characters; Scipion does not wrap long lines when it computes the height of a dialog


class DialogWizard(Wizard):
    """Shows an error in a dialog instead of a traceback."""

    def show(self, form: Any, *params: Any) -> None:
        try:
            self._show(form)
        except FlexAlignError as error:
            showError("FlexAlign", str(error), form.root)

    def _show(self, form: Any) -> None:
        raise NotImplementedError


def offer(title: str, text: str, root: Any) -> bool:
    """Whether the user takes what is offered. Scipion's `askYesNo` is a warning whose default is No."""
    buttons = [("Yes", RESULT_YES), ("No", RESULT_NO)]
    return bool(MessageDialog(root, title, text, Icon.INFO, buttons=buttons, default="Yes").resultYes())
