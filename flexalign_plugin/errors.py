"""Errors in the user's words: each message names the file, what is wrong and what to do."""

from __future__ import annotations


class FlexAlignError(Exception):
    """Base of every error that the user can do something about; its text is shown as it is, without a traceback."""


class MovieError(FlexAlignError):
    """A movie can't be read or aligned. The other movies go on."""


class CorrectionError(FlexAlignError):
    """A gain, dark or defect file can't be used."""


class SettingsError(FlexAlignError):
    """A parameter has a value that makes no sense, alone or together with the movie."""


class OutputError(FlexAlignError):
    """A result can't be written (permissions, disk full)."""
