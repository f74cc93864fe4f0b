"""Small sets of particles whose poses are known, and volumes, for the tests of protocols and viewers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Sequence

import mrcfile
import numpy as np
import pwem.objects as emobj
import pyworkflow.object as pwobj
from pwem.protocols import ProtImportParticles, ProtImportVolumes

from flexalign_plugin.particles import simulate
from flexalign_plugin.particles.ctf import Optics

BOX, PIXEL_A, DIAMETER_A = 48, 4.0, 130.0
OPTICS = Optics(PIXEL_A, 300.0, 2.7, 0.1)
MAX_SHIFT_PX = 4.0


@dataclass(frozen=True)
class Data:
    """Simulated particles in two stacks, and the files of the volumes."""

    truth: simulate.Simulated
    stacks: Sequence[str]
    volumes: Sequence[str]

    def stack_of(self, i: int) -> Any:
        """(index from 1, path) of the image i: every other image is in the second stack."""
        return i // 2 + 1, self.stacks[i % 2]


def write_map(path: str, values: np.ndarray, pixel_A: float = PIXEL_A) -> str:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(values.astype(np.float32))
        mrc.set_volume()
        mrc.voxel_size = pixel_A
    return path


def write_stack(path: str, images: np.ndarray) -> str:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(images.astype(np.float32))
        mrc.set_image_stack()
        mrc.voxel_size = PIXEL_A
    return path


def make(folder: str, n: int, n_volumes: int = 1, seed: int = 5, snr: float = 0.3) -> Data:
    """n particles of `n_volumes` different volumes."""
    os.makedirs(folder, exist_ok=True)
    volumes = [simulate.chains(BOX, PIXEL_A, DIAMETER_A, 2500, seed=11)]
    if n_volumes > 1:
        other = volumes[0].copy()
        other[:, :, : BOX // 2 - 4] = 0
        volumes.append(other)
    truth = simulate.simulate(np.stack(volumes), n, OPTICS, snr, 1.5, seed, max_shift_px=MAX_SHIFT_PX)
    stacks = [write_stack(f"{folder}/part_{i}.mrcs", truth.images[i::2]) for i in (0, 1)]
    maps = [write_map(f"{folder}/volume_{i}.mrc", volume) for i, volume in enumerate(volumes, 1)]
    return Data(truth, stacks, maps)


def particle(data: Data, i: int) -> emobj.Particle:
    """Particle i of the data, without id."""
    item = emobj.Particle()
    item.setLocation(*data.stack_of(i))
    item.setSamplingRate(PIXEL_A)
    ctf = emobj.CTFModel()
    d = data.truth.defocus
    ctf.setStandardDefocus(float(d.u_A[i]), float(d.v_A[i]), float(d.angle_deg[i]))
    item.setCTF(ctf)
    return item


def describe(particles: emobj.SetOfParticles) -> None:
    particles.setSamplingRate(PIXEL_A)
    particles.setHasCTF(True)
    particles.setAcquisition(
        emobj.Acquisition(
            voltage=OPTICS.voltage_kV,
            sphericalAberration=OPTICS.cs_mm,
            amplitudeContrast=OPTICS.amplitude_contrast,
            magnification=50000,
        )
    )


def fill(particles: emobj.SetOfParticles, data: Data, rows: Sequence[int]) -> None:
    """Put these rows into a set; the id of row i is i + 1."""
    describe(particles)
    for i in rows:
        item = particle(data, i)
        item.setObjId(i + 1)
        particles.append(item)


def particles_of(project: Any, data: Data, rows: Sequence[int], state: int = pwobj.Set.STREAM_CLOSED) -> Any:
    """A protocol whose `outputParticles` are these rows; the id of row i is i + 1."""

    def read(particles: emobj.SetOfParticles) -> None:
        fill(particles, data, rows)
        particles.setStreamState(state)

    return read_into_protocol(project, read)


def aligned_particles_of(
    project: Any,
    data: Data,
    rows: Sequence[int],
    poses: np.ndarray,
    positions: np.ndarray,
    classes: Any,
    first_id: int = 1,
) -> Any:
    """As `particles_of`, with poses (n, 3, 3), positions (n, 2) px and classes (n,), of all particles of the data."""
    from flexalign_plugin.protocols.particle_sets import to_scipion

    def read(particles: emobj.SetOfParticles) -> None:
        describe(particles)
        particles.setAlignmentProj()
        matrices = to_scipion(poses, -positions)
        for i in rows:
            item = particle(data, i)
            item.setObjId(i + first_id)
            item.setTransform(emobj.Transform(matrices[i]))
            if classes is not None:
                item.setClassId(int(classes[i]))
            particles.append(item)

    return read_into_protocol(project, read)


def read_into_protocol(project: Any, read: Any) -> Any:
    """A protocol whose `outputParticles` are filled by `read(particles)`."""
    protocol = project.newProtocol(ProtImportParticles)
    project.saveProtocol(protocol)
    protocol.makePathsAndClean()
    particles = protocol._createSetOfParticles()
    read(particles)
    protocol._defineOutputs(outputParticles=particles)
    protocol.setStatus("finished")
    project._storeProtocol(protocol)
    particles.close()
    return protocol


def add_pointer(pointers: Any, protocol: Any, name: str) -> None:
    pointers.append(pwobj.Pointer(protocol, extended=name))


def append(stream: emobj.SetOfParticles, data: Data, rows: Sequence[int], is_closed: bool) -> None:
    """Append particles to a set that another protocol reads."""
    stream.enableAppend()
    for i in rows:
        item = particle(data, i)
        item.setObjId(i + 1)
        stream.append(item)
    stream.setStreamState(stream.STREAM_CLOSED if is_closed else stream.STREAM_OPEN)
    stream.write()
    stream.close()


def volumes_of(project: Any, paths: Sequence[str], pixel_A: float = PIXEL_A) -> Any:
    """A protocol whose output `outputVolumes` is one volume, or a set of several."""
    protocol = project.newProtocol(ProtImportVolumes)
    project.saveProtocol(protocol)
    protocol.makePathsAndClean()
    items = []
    for path in paths:
        volume = emobj.Volume()
        volume.setFileName(path)
        volume.setSamplingRate(pixel_A)
        items.append(volume)
    output = items[0]
    if len(items) > 1:
        output = protocol._createSetOfVolumes()
        output.setSamplingRate(pixel_A)
        for volume in items:
            output.append(volume)
    protocol._defineOutputs(outputVolumes=output)
    protocol.setStatus("finished")
    project._storeProtocol(protocol)
    return protocol


def new_swift_align(project: Any, particles: Any, volumes: Any, **parameters: Any) -> Any:
    """A ProtSwiftAlign on the outputs of `particles_of` and `volumes_of`."""
    from flexalign_plugin.protocols import ProtSwiftAlign

    chosen = {
        "maximumResolution": 15.0,
        "maskDiameter": DIAMETER_A,
        "maxParticleShift": MAX_SHIFT_PX * PIXEL_A,
        "numberOfThreads": 2,
    }
    protocol = project.newProtocol(ProtSwiftAlign, **{**chosen, **parameters})
    protocol.inputParticles.set(particles)
    protocol.inputParticles.setExtended("outputParticles")
    protocol.inputVolumes.set(volumes)
    protocol.inputVolumes.setExtended("outputVolumes")
    return protocol


def poses_of(particles: emobj.SetOfParticles) -> Any:
    """ids, (n, 3, 3) matrices A, and (n, 2) positions t = -s in pixels of a set."""
    from flexalign_plugin.protocols.particle_sets import from_scipion

    items = [(p.getObjId(), p.getTransform().getMatrix().copy()) for p in particles.iterItems()]
    a, s = from_scipion(np.array([matrix for _, matrix in items]))
    return np.array([number for number, _ in items]), a, -s
