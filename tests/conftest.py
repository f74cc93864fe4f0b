"""Shared by all tests: Scipion's environment must be there before anything imports pyworkflow."""

from __future__ import annotations

import os
import tempfile

import pytest

from . import scipion_project

_home = tempfile.TemporaryDirectory(prefix="flexalign-tests-")
scipion_project.prepare(_home.name)


@pytest.fixture(autouse=True)
def _same_folder():
    """Scipion projects change the working folder."""
    before = os.getcwd()
    yield
    os.chdir(before)
