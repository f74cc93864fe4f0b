"""The form of ProtSwiftAlign, and its values as `ParticleSettings`."""

from __future__ import annotations

from typing import Any, Dict

import pyworkflow.protocol.params as params
from pyworkflow.protocol.constants import LEVEL_ADVANCED

from flexalign_plugin.particles.settings import FIELDS_OF_FORM, ParticleSettings

from .form import add_field

DEFAULT_THREADS = 4
PARTICLES, VOLUMES, MASK = "inputParticles", "inputVolumes", "inputMask"


def add(where: Any, name: str, label: str, more: str = "", **kwargs: Any) -> None:
    """Add the parameter of one field of `ParticleSettings`; see `form.add_field`."""
    add_field(where, name, ParticleSettings.__dataclass_fields__[FIELDS_OF_FORM[name]], label, more, **kwargs)


def define_form(form: Any) -> None:
    form.addSection(label="Input")
    form.addParam(
        PARTICLES,
        params.PointerParam,
        pointerClass="SetOfParticles",
        important=True,
        label="Particles",
        help="Particles with CTF, in MRC stacks. Their contrast does not matter. A set that is still growing is "
        "followed: new particles are aligned as they arrive.",
    )
    form.addParam(
        VOLUMES,
        params.PointerParam,
        pointerClass="Volume, SetOfVolumes",
        important=True,
        label="Volumes",
        help="One volume, or several if the particles show different states: each particle is then given to the "
        "volume that it fits best. A volume with another box or pixel size is rescaled. Its contrast and its scale do "
        "not matter, its hand and its errors do: they are in all results.",
    )
    form.addParam(
        MASK,
        params.PointerParam,
        pointerClass="VolumeMask",
        allowsNull=True,
        label="Mask (optional)",
        help="The volumes are multiplied by it before they are compared with the particles. Take a soft mask.",
    )
    add(form, "symmetryGroup", "Symmetry")
    add(
        form,
        "considerInputAlignment",
        "Improve the previous alignment?",
        "With *Yes* only orientations near the previous ones are tried, which is faster but can't correct a wrong "
        "one. The particles need an alignment.",
    )
    form.addSection(label="Search")
    group = form.addGroup("Particle")
    add(group, "maskDiameter", "Mask diameter (A)", "The wizard measures it and draws it over the volume.")
    add(group, "maxParticleShift", "Maximum shift (A)")
    group = form.addGroup("Comparison")
    add(
        group,
        "maximumResolution",
        "Maximum resolution (A)",
        "Coarser is faster and safer, finer is more accurate as long as particles and volume hold signal. The wizard "
        "proposes a value.",
    )
    add(group, "initialResolution", "Coarse resolution (A)", expertLevel=LEVEL_ADVANCED)
    add(
        group,
        "maxPsi",
        "Maximum in-plane angle (deg)",
        "For particles whose in-plane angle is known, such as filaments that were extracted along their axis.",
        expertLevel=LEVEL_ADVANCED,
    )
    add(group, "memory", "Memory (GB)", expertLevel=LEVEL_ADVANCED)
    form.addParallelSection(
        threads=DEFAULT_THREADS,
        mpi=0,
        binThreadsHelp="Number of CPU cores to use. The results are the same for any number.",
    )


def settings_values(protocol: Any) -> Dict[str, Any]:
    """Fields of ParticleSettings from the form's values."""
    values: Dict[str, Any] = {}
    for name, field_name in FIELDS_OF_FORM.items():
        value = getattr(protocol, name).get()
        values[field_name] = ParticleSettings.__dataclass_fields__[field_name].default if value is None else value
    return {**values, "threads": protocol.getBinThreads()}
