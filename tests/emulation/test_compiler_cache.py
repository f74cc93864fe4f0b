"""The folder of compiled kernels is loaded as code: nobody else may write to it, and its name can't be guessed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from . import compiler


def test_it_is_in_the_users_own_cache_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("CUEMU_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compiler.cache()
    assert Path(tmp_path) in folder.parents and folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path, monkeypatch, mode):
    planted = tmp_path / "planted"
    planted.mkdir()
    planted.chmod(mode)
    monkeypatch.setenv("CUEMU_CACHE", str(planted))
    with pytest.raises(RuntimeError, match="can be written by others: its files are not loaded"):
        compiler.cache()


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    planted = tmp_path / "planted"
    planted.mkdir(mode=0o700)
    os.chown(planted, 12345, 12345)
    monkeypatch.setenv("CUEMU_CACHE", str(planted))
    with pytest.raises(RuntimeError, match="can be written by others"):
        compiler.cache()
