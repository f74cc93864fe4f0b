"""How Scipion names the protocols, and the text of their *Help*."""

from __future__ import annotations

from pwem.protocols import EMProtocol

from .help_text import help_text


class LabelAndHelp(EMProtocol):
    """Base class of all protocols."""

    aboutParticles = False

    @classmethod
    def getClassLabel(cls, prependPackageName: bool = True) -> str:
        """The label alone. Scipion would put the name of the package before it, and its tree would cut off the rest."""
        return str(cls._label)

    @classmethod
    def getHelpText(cls) -> str:
        return help_text(cls())
