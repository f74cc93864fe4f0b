"""The wheel holds what an installed plugin needs, under the names that Scipion looks for."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .test_scipion_tests import scipion_tests

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"protocols": "protocols", "viewers": "viewers", "kernels": "kernels", "tests": "tests"}

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="this is not a checkout")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("build", reason="the package `build` makes the wheel; it comes with pip install -e .[dev]")
    folder = tmp_path_factory.mktemp("wheel")
    # In a copy: what a build leaves behind would find its way into the next wheel.
    ignored = shutil.ignore_patterns(".*", "build", "dist", "demo", "*.egg-info", "__pycache__")
    shutil.copytree(str(ROOT), str(folder / "source"), ignore=ignored)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(folder / "source")],
        check=True,
        capture_output=True,
        text=True,
    )
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_every_module_and_data_file_is_in_the_wheel(wheel):
    expected = {str(p.relative_to(ROOT)) for p in (ROOT / "flexalign_plugin").rglob("*.py")}
    for room, package in ROOMS.items():
        for suffix in ("*.py", "*.cu", "*.cuh"):
            for path in (ROOT / room).rglob(suffix):
                if (path.parent / "__init__.py").exists():
                    expected.add(str(Path("flexalign_plugin", package, path.relative_to(ROOT / room))))
    for pattern in ("protocols.conf", "*.png", "templates/*.json.template", "report_pages/*.[!p]*", "docs/*.md"):
        expected |= {str(p.relative_to(ROOT)) for p in (ROOT / "flexalign_plugin").glob(pattern)}
    names = set(wheel.namelist())
    assert expected <= names, sorted(expected - names)
    assert "flexalign_plugin/protocols.conf" in names and "flexalign_plugin/flexalign_logo.png" in names


def test_scipion_and_the_shell_find_it(wheel):
    (name,) = [n for n in wheel.namelist() if n.endswith("entry_points.txt")]
    text = wheel.read(name).decode()
    assert "[pyworkflow.plugin]\nflexalign_plugin = flexalign_plugin" in text
    assert "flexalign = flexalign_plugin.cli:main" in text


def test_metadata_states_version_licence_and_pythons(wheel):
    import flexalign_plugin

    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    lines = wheel.read(name).decode().splitlines()
    assert f"Version: {flexalign_plugin.__version__}" in lines
    assert any(line.startswith("License") and line.endswith("GPL-3.0-or-later") for line in lines)
    assert any(line.startswith("Requires-Python:") and ">=3.8" in line and "<3.13" in line for line in lines)


def test_an_installed_wheel_works_away_from_the_checkout(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    code = (
        "import flexalign_plugin, flexalign_plugin.kernels, flexalign_plugin.motion, sys;"
        "from flexalign_plugin.protocols import ProtFlexAlign; from flexalign_plugin.viewers import FlexAlignViewer;"
        "from flexalign_plugin import Plugin; print(flexalign_plugin.__path__, ProtFlexAlign.getHelpText())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=str(tmp_path),
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "SCIPION_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout and str(ROOT) not in done.stdout
    assert "Maximum shift (A)" in done.stdout  # from docs/parameters.md


def test_scipion_finds_the_tests_in_an_installed_wheel(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    _, text = scipion_tests(tmp_path, "--grep", "flexalign", "--mode", "all", PYTHONPATH=str(tmp_path / "site"))
    for name in (
        "TestFlexAlign.test_motion_is_that_of_the_phantom",
        "TestSwiftAlign.test_orientations_are_those_of_the_particles",
    ):
        assert f"flexalign_plugin.tests.scipion_tests.{name}" in text, text
    assert "Error loading the test" not in "".join(line for line in text.splitlines() if "flexalign" in line)


def test_processes_of_an_installed_wheel_run_nothing_from_the_current_folder(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    (tmp_path / "movies").mkdir()
    for name in ("numpy.py", "flexalign_plugin.py"):
        (tmp_path / "movies" / name).write_text("raise SystemExit('from the folder of the movies')\n")
    launch = tmp_path / "site" / "flexalign_plugin" / "launch.py"
    done = subprocess.run(
        [sys.executable, str(launch), "flexalign_plugin", "info"],
        cwd=str(tmp_path / "movies"),
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "numpy" in done.stdout, done.stdout + done.stderr


def test_scipion_lists_the_protocol_in_its_tree_and_cites_the_paper():
    import pwem

    from flexalign_plugin.protocols import ProtFlexAlign

    assert pwem.Domain.getProtocols().get("ProtFlexAlign") is ProtFlexAlign
    plugin = pwem.Domain.getPlugins()["flexalign_plugin"]
    assert plugin is not None
    assert "Electronics" in " ".join(ProtFlexAlign().citations())
    assert Path(ProtFlexAlign().getPluginLogoPath()).is_file()
    assert ProtFlexAlign.isInstalled()
    templates = {str(template) for template in plugin._pluginInstance.getTemplates()}
    assert templates == {"SPA_movies_to_micrographs", "EER_movies_to_micrographs", "SPA_movies_to_CTF"}


def test_a_checkout_has_each_module_once():
    """As in the installed package: no second name by which another `Settings` would be imported."""
    code = (
        "import importlib.util as u, flexalign_plugin.kernels.cpu, flexalign_plugin.protocols;"
        "print([n for n in ('flexalign_plugin', 'benchmarks', 'setup') if u.find_spec('flexalign_plugin.' + n)])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=str(ROOT), capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
