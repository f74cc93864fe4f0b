"""Writers of the result files of an aligned movie (docs/outputs.md)."""

from .writer import write_result

__all__ = ["write_result"]
