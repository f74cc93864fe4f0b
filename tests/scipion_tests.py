"""The test that Scipion runs: `scipion tests flexalign_plugin.tests.scipion_tests.TestFlexAlign`.

It makes a small movie with a known motion, imports it, aligns it and compares the motion. No download; under a minute.
"""

from __future__ import annotations

import os
from typing import Any

from pwem.protocols import ProtImportMovies
from pyworkflow.tests import BaseTest, setupTestProject

from flexalign_plugin.motion import MotionModel
from flexalign_plugin.phantoms.files import with_detector, write_phantom
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.phantoms.truth import field_rms_error
from flexalign_plugin.protocols import ProtFlexAlign
from flexalign_plugin.result_files import MOTION

from .scipion_project import as_stored

SHAPE = (10, 512, 512)
PIXEL_A = 3.0
DRIFT_PX = 6.0
LARGEST_ERROR_PX = 0.3  # rms


class TestFlexAlign(BaseTest):
    """A movie of known motion through import and alignment."""

    @classmethod
    def setUpClass(cls) -> None:
        setupTestProject(cls)
        cls.folder = cls.getOutputPath("movies")
        cls.phantom = with_detector(
            particle_phantom(SHAPE, pixel_size_A=PIXEL_A, dose=2.0, contrast=0.3, drift_px=DRIFT_PX, local_px=1.0)
        )
        cls.files = write_phantom(cls.phantom, cls.folder, "phantom")

    def run_to_its_end(self, protocol: Any) -> Any:
        """Run a protocol as the project window does; returns it with its outputs. On a busy machine
        `BaseTest.launchProtocol` can miss the end of a run, because it takes a state that was read too early as up to
        date."""
        self.proj.launchProtocol(protocol, wait=True)
        ended = as_stored(self.proj, protocol)
        self.assertTrue(ended.isFinished(), f"{ended.getRunName()}: {ended.getStatus()}, {ended.getErrorMessage()}")
        return ended

    def test_motion_is_that_of_the_phantom(self) -> None:
        imported = self.newProtocol(
            ProtImportMovies,
            filesPath=self.folder,
            filesPattern=os.path.basename(self.files["movie"]),
            gainFile=self.files["gain"],
            samplingRate=PIXEL_A,
            voltage=300,
            dosePerFrame=2.0 / PIXEL_A**2,
        )
        self.run_to_its_end(imported)
        protocol = self.newProtocol(ProtFlexAlign)
        protocol.inputMovies.set(imported)
        protocol.inputMovies.setExtended("outputMovies")
        protocol = self.run_to_its_end(protocol)

        for name in ("outputMicrographs", "outputMicrographsDoseWeighted", "outputMovies"):
            self.assertSetSize(getattr(protocol, name), 1, f"{name} should have one item")
        model = MotionModel.load(protocol._getExtraPath("phantom" + MOTION))
        error = field_rms_error(model, self.phantom.truth)
        self.assertGreater(error.uncorrected_px, 5 * LARGEST_ERROR_PX)
        self.assertLess(error.rms_px, LARGEST_ERROR_PX)
