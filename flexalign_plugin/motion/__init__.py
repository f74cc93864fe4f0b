"""The mathematics of alignment: arrays in, arrays out. `MotionModel` is the public entry point."""

from .model import MotionModel

__all__ = ["MotionModel"]
