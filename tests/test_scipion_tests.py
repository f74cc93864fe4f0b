"""What `scipion tests` lists and runs, in an environment without pytest."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NO_PYTEST = """
import importlib.abc, runpy, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("pytest", "_pytest"):
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Finder())
sys.argv = ["scipion tests", *sys.argv[1:]]
runpy.run_module("pyworkflow.apps.pw_run_tests", run_name="__main__")
"""


def scipion_tests(home, *words, **variables):
    """The command, with a home of its own; what it prints. variables : of the environment."""
    environment = dict(os.environ, SCIPION_HOME=str(home), SCIPION_USER_DATA=str(home), SCIPION_TESTS=str(home))
    environment.update(variables)
    done = subprocess.run(
        [sys.executable, "-c", NO_PYTEST, *words], env=environment, cwd=str(home), capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_scipion_lists_our_tests_and_nothing_broken(tmp_path):
    status, text = scipion_tests(tmp_path, "--grep", "flexalign")
    assert "flexalign_plugin.tests.scipion_tests" in text and "TestFlexAlign" in text and "TestSwiftAlign" in text, text
    assert "Error loading the test" not in "".join(line for line in text.splitlines() if "flexalign" in line)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TestFlexAlign", "TestSwiftAlign"])
def test_scipion_runs_it(tmp_path, name):
    status, text = scipion_tests(tmp_path, "--run", f"flexalign_plugin.tests.scipion_tests.{name}")
    print(text)
    assert "PASSED" in text and "FAILED" not in text, text
