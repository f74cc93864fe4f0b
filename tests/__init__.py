"""Tests, one file for each module; the tree mirrors the repository's. pytest runs them.

`scipion tests` runs `scipion_tests` alone, which needs no pytest: the others are no `unittest` tests.
"""

from __future__ import annotations

import unittest
from typing import Any


def load_tests(loader: unittest.TestLoader, tests: Any, pattern: Any) -> unittest.TestSuite:
    """What unittest, and so Scipion, finds here."""
    return loader.loadTestsFromName(f"{__name__}.scipion_tests")
