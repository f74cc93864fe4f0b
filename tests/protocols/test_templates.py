"""The workflow templates, filled in as `python -m scipion template` does it, loaded into a project and run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import flexalign_plugin

from ..scipion_project import run
from .conftest import PIXEL_A, SHAPE

TEMPLATES = Path(flexalign_plugin.__file__).parent / "templates"


def load(project, name, protocols=2, **values):
    """The protocols of a template, which are `protocols` many; values are texts for its aliases."""
    from pyworkflow.template import LocalTemplate

    template = LocalTemplate("flexalign", str(TEMPLATES / f"{name}.json.template"))
    assert template.description.startswith("Start of single particle analysis")
    template.replaceEnvVariables()
    template.parseContent()
    aliases = {param.getAlias() for param in template.getParams().values()}
    assert set(values) <= aliases and len(aliases) == len(template.getParams())
    for alias, value in values.items():
        template.setParamValue(alias, value)
    path = template.createTemplateFile()
    with open(path) as f:
        assert len(json.load(f)) == protocols
    project.loadProtocols(path)
    return list(project.getRuns())


@pytest.mark.parametrize(
    "name, pattern, more",
    [
        ("SPA_movies_to_micrographs", "*.tiff", {}),
        ("EER_movies_to_micrographs", "*.eer", {"eerDose": "1", "dose": str(SHAPE[0])}),
    ],
)
def test_a_template_runs_from_files_to_micrographs(project, movies, name, pattern, more):
    """The import ends by itself when no more movies come; both runs are those that the window would start."""
    values = dict(moviesPath=movies.folder, pattern=pattern, sampling=str(PIXEL_A), gain=f"{movies.folder}/gain.mrc")
    imported, alignment = load(project, name, timeout="3", fileTimeout="1", threads="1", **{**values, **more})
    assert imported.getClassName() == "ProtImportMovies" and alignment.getClassName() == "ProtFlexAlign"
    assert imported.dataStreaming.get()
    run(project, imported)
    assert imported.isFinished(), imported.getErrorMessage()
    assert alignment.validate() == []
    run(project, alignment)
    assert alignment.isFinished(), alignment.getErrorMessage()
    assert alignment.outputMicrographs.getSize() == alignment.outputMicrographsDoseWeighted.getSize() == 1
    with open(alignment._getExtraPath(next(iter(alignment._roots.values())) + "_motion.json")) as f:
        result = json.load(f)
    assert result["frames"]["dose_per_frame"] == pytest.approx(1.0)
    assert result["settings"]["gain"].endswith("gain.mrc")


def test_the_template_with_ctf_estimation_loads_without_the_plugin_too(project, movies):
    """tests/interop/test_cistem.py runs it with ctffind's protocol."""
    runs = load(project, "SPA_movies_to_CTF", protocols=3, moviesPath=movies.folder, sampling=str(PIXEL_A))
    assert [run.getClassName() for run in runs][:2] == ["ProtImportMovies", "ProtFlexAlign"]
    assert runs[1].doSavePs.get() and runs[1].doSaveUnweightedMic.get()
