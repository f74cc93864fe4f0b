"""The plugins that these tests need load beside ours, and Scipion finds all of them."""

from __future__ import annotations

import importlib

import pytest
from pyworkflow.plugin import Domain

PLUGINS = ("relion", "motioncorr", "cistem", "xmipp3", "cryosparc2", "tomo")


@pytest.mark.parametrize("name", PLUGINS)
def test_the_plugin_loads_beside_ours(name):
    pytest.importorskip(name)
    plugins = Domain.getPlugins()
    assert name in plugins and "flexalign_plugin" in plugins
    assert importlib.import_module(name) is plugins[name]
