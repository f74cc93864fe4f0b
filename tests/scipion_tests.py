"""The tests that Scipion runs: `scipion tests flexalign_plugin.tests.scipion_tests.TestFlexAlign`, or `TestSwiftAlign`.

They make a small movie with a known motion, or particles with known orientations, import and align them, and compare
the results. No download; under a minute each.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from pwem.objects import SetOfParticles
from pwem.protocols import ProtImportMovies, ProtImportParticles, ProtImportVolumes
from pyworkflow.tests import BaseTest, setupTestProject

from flexalign_plugin.motion import MotionModel
from flexalign_plugin.particles.poses import distances
from flexalign_plugin.phantoms.files import with_detector, write_phantom
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.phantoms.truth import field_rms_error
from flexalign_plugin.protocols import ProtFlexAlign, ProtSwiftConsensus
from flexalign_plugin.result_files import MOTION

from . import particle_data
from .scipion_project import as_stored

SHAPE = (10, 512, 512)
PIXEL_A = 3.0
DRIFT_PX = 6.0
LARGEST_ERROR_PX = 0.3  # rms
N_PARTICLES = 40
LARGEST_ERROR_DEG = 4.0  # median


class _Runs:
    """Runs protocols in processes of their own."""

    def run_to_its_end(self, protocol: Any) -> Any:
        """Run a protocol as the project window does; returns it with its outputs. On a busy machine
        `BaseTest.launchProtocol` can miss the end of a run, because it takes a state that was read too early as up to
        date."""
        self.proj.launchProtocol(protocol, wait=True)
        ended = as_stored(self.proj, protocol)
        self.assertTrue(ended.isFinished(), f"{ended.getRunName()}: {ended.getStatus()}, {ended.getErrorMessage()}")
        return ended


class TestFlexAlign(_Runs, BaseTest):
    """A movie of known motion through import and alignment."""

    @classmethod
    def setUpClass(cls) -> None:
        setupTestProject(cls)
        cls.folder = cls.getOutputPath("movies")
        cls.phantom = with_detector(
            particle_phantom(SHAPE, pixel_size_A=PIXEL_A, dose=2.0, contrast=0.3, drift_px=DRIFT_PX, local_px=1.0)
        )
        cls.files = write_phantom(cls.phantom, cls.folder, "phantom")

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


class TestSwiftAlign(_Runs, BaseTest):
    """Particles of known orientations through import, two alignments and their consensus."""

    @classmethod
    def setUpClass(cls) -> None:
        setupTestProject(cls)
        cls.data = particle_data.make(cls.getOutputPath("particles"), N_PARTICLES)

    def aligned(self, **values: Any) -> Any:
        """A finished alignment of the imported particles with the imported volume."""
        protocol = particle_data.new_swift_align(self.proj, self.particles, self.volume, **values)
        protocol.inputVolumes.setExtended("outputVolume")
        return self.run_to_its_end(protocol)

    def test_orientations_are_those_of_the_particles(self) -> None:
        path = self.getOutputPath("particles.sqlite")
        written = SetOfParticles(filename=path)
        particle_data.fill(written, self.data, range(N_PARTICLES))
        written.write()
        written.close()
        self.particles = self.run_to_its_end(
            self.newProtocol(
                ProtImportParticles,
                importFrom=ProtImportParticles.IMPORT_FROM_SCIPION,
                sqliteFile=path,
                samplingRate=particle_data.PIXEL_A,
                voltage=particle_data.OPTICS.voltage_kV,
            )
        )
        self.volume = self.run_to_its_end(
            self.newProtocol(
                ProtImportVolumes, filesPath=self.data.volumes[0], samplingRate=particle_data.PIXEL_A, setHalfMaps=False
            )
        )
        runs = [self.aligned(), self.aligned(maximumResolution=20.0)]
        for run in runs:
            self.assertSetSize(run.outputParticles, N_PARTICLES)
            _, poses, _ = particle_data.poses_of(run.outputParticles)
            self.assertLess(np.median(distances(poses, self.data.truth.poses)), LARGEST_ERROR_DEG)
        consensus = self.newProtocol(ProtSwiftConsensus)
        for run in runs:
            particle_data.add_pointer(consensus.inputAlignments, run, "outputParticles")
        consensus = self.run_to_its_end(consensus)
        self.assertGreaterEqual(consensus.outputParticles.getSize(), 0.9 * N_PARTICLES)
