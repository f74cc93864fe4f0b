"""Errors that are shown to the user: each message states the file, what is wrong and what to do."""

from __future__ import annotations


class FlexAlignError(Exception):
    """Base class of errors that the user can correct; the message is shown without a traceback."""


class MovieError(FlexAlignError):
    """A movie can't be read or aligned. The other movies are not affected."""


class ParticleError(FlexAlignError):
    """A file of particles, a stack of their images or a volume can't be used."""


class NoParticleError(FlexAlignError):
    """None of the particles could be aligned."""


class CorrectionError(FlexAlignError):
    """A gain, dark or defect file can't be used."""


class SettingsError(FlexAlignError):
    """A parameter has an invalid value, or one that does not fit the movie."""


class OutputError(FlexAlignError):
    """A result can't be written (permissions, disk full)."""


class ResultError(FlexAlignError):
    """A saved result or record can't be read, or is not one of this version."""
