"""What CryoSPARC's plugin (cryosparc2) hands to CryoSPARC when our micrographs are its input."""

from __future__ import annotations

import glob
import json
import os
from unittest import mock

import mrcfile
import pytest

from .conftest import N_MOVIES, PIXEL_A

pytest.importorskip("cryosparc2")


def test_patch_ctf_imports_our_micrographs(aligned):
    from cryosparc2 import utils
    from cryosparc2.protocols import ProtCryoSparcPatchCTFEstimate

    run = aligned("mrc", doSavePs=True, binFactor=2.0, doLocalAlignment=False)
    protocol = run.project.newProtocol(ProtCryoSparcPatchCTFEstimate)
    protocol.inputMicrographs.set(run.protocol)
    protocol.inputMicrographs.setExtended("outputMicrographs")
    protocol.projectName = protocol.workSpaceName = mock.Mock()
    run.project._setupProtocol(protocol)
    protocol.makePathsAndClean()
    jobs = []
    # No CryoSPARC is asked; the job is looked at instead.
    with mock.patch.object(utils, "enqueueJob", lambda *job: jobs.append(job) or mock.Mock()), mock.patch.object(
        utils, "waitForCryosparc"
    ), mock.patch.object(utils, "_getProtocolPreprocessLane"):
        utils.doImportMicrographs(protocol)
    ((kind, _, _, values, *_),) = jobs
    values = json.loads(values)
    assert kind == "import_micrographs"
    assert [float(values[name]) for name in ("psize_A", "accel_kv", "cs_mm")] == pytest.approx([2 * PIXEL_A, 300, 2.7])
    paths = sorted(glob.glob(values["blob_paths"]))
    ours = sorted(os.path.realpath(m.getFileName()) for m in run.protocol.outputMicrographs)
    assert [os.path.realpath(path) for path in paths] == ours and len(ours) == N_MOVIES
    with mrcfile.open(paths[0], permissive=False) as mrc:
        assert float(mrc.voxel_size.x) == pytest.approx(float(values["psize_A"]))
