"""MRC files: header fields against known values and mrcfile's own validator."""

from __future__ import annotations

import io

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.output.mrc import write_mrc


@pytest.fixture
def image():
    return np.random.default_rng(3).normal(5.0, 2.0, (48, 64)).astype(np.float32)


@pytest.mark.parametrize(("dtype", "mode", "tolerance"), [(np.float32, 2, 0.0), (np.float16, 12, 2.0**-11)])
def test_image(tmp_path, image, dtype, mode, tolerance):
    path = str(tmp_path / "a.mrc")
    write_mrc(path, image, 1.25, ["mean of 30 frames, FlexAlign 9.9", "second \u00c5 label"], dtype)
    report = io.StringIO()
    assert mrcfile.validate(path, report), report.getvalue()
    with mrcfile.open(path) as mrc:
        assert mrc.header.mode == mode
        assert mrc.data.dtype == dtype
        assert mrc.data.shape == image.shape
        np.testing.assert_allclose(mrc.data.astype(np.float32), image, rtol=tolerance)
        assert mrc.voxel_size.x == mrc.voxel_size.y == np.float32(1.25)
        assert mrc.header.dmin == mrc.data.min()
        assert mrc.header.dmax == mrc.data.max()
        np.testing.assert_allclose(mrc.header.dmean, image.mean(), rtol=1e-4)
        np.testing.assert_allclose(mrc.header.rms, image.std(), rtol=1e-4)
        assert [label.strip() for label in mrc.get_labels()] == ["mean of 30 frames, FlexAlign 9.9", "second ? label"]
        assert mrc.is_single_image()


def test_stack(tmp_path, image):
    stack = np.stack([image, image * 2 + 1, -image])
    path = str(tmp_path / "a.mrcs")
    write_mrc(path, stack, 0.5)
    report = io.StringIO()
    assert mrcfile.validate(path, report), report.getvalue()
    with mrcfile.open(path) as mrc:
        assert mrc.is_image_stack()
        np.testing.assert_array_equal(mrc.data, stack)
        np.testing.assert_allclose(mrc.header.dmean, stack.mean(), rtol=1e-5)
        np.testing.assert_allclose(mrc.header.rms, stack.std(), rtol=1e-5)
        assert mrc.voxel_size.x == mrc.voxel_size.z == np.float32(0.5)


def test_same_data_same_bytes_whatever_its_memory_layout(tmp_path, image):
    layouts = [image, np.asfortranarray(image), np.pad(image, 5)[5:-5, 5:-5], image.astype(">f4")]
    files = []
    for i, data in enumerate(layouts):
        write_mrc(str(tmp_path / str(i)), data, 1.0, ["x"])
        files.append((tmp_path / str(i)).read_bytes())
    assert len(set(files)) == 1


def test_values_that_do_not_fit_float16_are_refused(tmp_path):
    with pytest.raises(OSError, match="65504"):
        write_mrc(str(tmp_path / "a.mrc"), np.full((4, 4), 7e4, np.float32), 1.0, dtype=np.float16)
