"""The form's choice of GPUs, and what the workers are told about it."""

from __future__ import annotations

from typing import Any, List

import pyworkflow.protocol.params as params
from pyworkflow.constants import QUEUE_FOR_JOBS
from pyworkflow.protocol.constants import GPU_LIST, LEVEL_ADVANCED, USE_GPU

from flexalign_plugin.errors import SettingsError
from flexalign_plugin.execution.devices import Compute
from flexalign_plugin.kernels import usable_cores
from flexalign_plugin.kernels.cuda_installation import devices_of

MOVIES_PER_JOB = 8
FAILURE_CHOICES = ("the movie fails", "the CPU aligns it")


def define_choice(form: Any) -> None:
    """Scipion shows these two in a place of its own, above the form's tabs."""
    form.addHidden(
        USE_GPU,
        params.BooleanParam,
        default=False,
        label="Use GPU for execution",
        help="GPUs are *No* by default, because this version has been tested on an emulated GPU but has not been tried "
        "on hardware yet. Compare a few movies with the CPU's results first: they should agree to 0.02 pixels. "
        "`flexalign info` says whether a GPU can be used here, and if not, what is missing.",
    )
    form.addHidden(
        GPU_LIST,
        params.StringParam,
        default="0",
        label="Choose GPU IDs",
        help="Numbers of the GPUs, as *0 1* or *0,1*. They share the movies: each aligns one and reads the next. "
        "Nothing else needs to be set for that, *Scipion threads* stays at 1.",
    )


def define_details(form: Any) -> None:
    group = form.addGroup("Cluster", expertLevel=LEVEL_ADVANCED)
    group.addParam(
        "moviesPerJob",
        params.IntParam,
        default=MOVIES_PER_JOB,
        label="Movies per job",
        help="Only when the steps, and not the whole protocol, are jobs of a cluster's queue. So many movies make one "
        "job, fewer when there are no more; *Scipion threads* less one says how many jobs there are at once. A job "
        "needs some seconds to begin; one that is killed costs only the movies that it had not finished.",
        expertLevel=LEVEL_ADVANCED,
    )
    group = form.addGroup("GPUs", expertLevel=LEVEL_ADVANCED)
    group.addParam(
        "onGpuFailure",
        params.EnumParam,
        choices=list(FAILURE_CHOICES),
        default=0,
        display=params.EnumParam.DISPLAY_COMBO,
        label="If a GPU fails",
        help="A movie is first tried again, on another GPU or by a fresh process. This is what happens if that fails "
        "too, or when the movie is too large for the GPU's memory. Movies that fail are tried again by *Continue*; "
        "for those that the CPU aligned, a warning in the log says why.",
        expertLevel=LEVEL_ADVANCED,
    )
    group.addParam(
        "gpuMemory",
        params.FloatParam,
        default=0.0,
        label="GPU memory limit (GB)",
        help="Most memory of each GPU that may be used, to leave room for other programs. 0: all of it. The results do "
        "not depend on it.",
        expertLevel=LEVEL_ADVANCED,
    )
    group.addParam(
        "tuneFftSizes",
        params.BooleanParam,
        default=True,
        label="Tune FFT sizes?",
        help="How fast a Fourier transform is depends on its size. With *Yes* the fastest size near that of the frames "
        "is searched when a size is met for the first time, and kept for later runs.",
        expertLevel=LEVEL_ADVANCED,
    )


def steps_go_to_queue(protocol: Any) -> bool:
    """Whether each step's work is a job of a queue; else the whole protocol is one, or all is done here."""
    return bool(protocol.useQueue()) and protocol.getQueueParams()[1].get(QUEUE_FOR_JOBS) == "Y"


def chosen(protocol: Any) -> List[str]:
    """Names of the chosen GPUs, none on the CPU; SettingsError where the list is no list of numbers."""
    if not protocol.useGpu:
        return []
    names = devices_of(protocol.gpuList.get() or "")
    if not names:
        raise SettingsError("No GPU is chosen: write its number, 0 for the first, or set *Use GPU* to No.")
    # A queue numbers those that it grants from 0 on.
    return [f"cuda:{i}" for i in range(len(names))] if protocol.useQueue() else names


def compute(protocol: Any) -> Compute:
    """What computes the protocol's movies. *Threads* is for one movie, and each GPU has one."""
    gpus = chosen(protocol)
    threads = protocol.getBinThreads() * max(len(gpus), 1)
    return Compute(
        tuple(gpus) or ("cpu",),
        threads if steps_go_to_queue(protocol) else min(threads, usable_cores()),
        protocol.gpuMemory.get() or None,
        tune_fft=protocol.tuneFftSizes.get(),
        cpu_instead=protocol.onGpuFailure.get() == 1,
    )


def problems(protocol: Any) -> List[str]:
    """Why the chosen GPUs can't be used. Those of a queue are on other machines, and can't be looked at from here."""
    found = []
    if protocol.moviesPerJob.get() < 1:
        found.append(f"Movies per job is {protocol.moviesPerJob.get()}: at least 1.")
    if protocol.gpuMemory.get() < 0:
        found.append(f"GPU memory limit is {protocol.gpuMemory.get():g} GB: give a number above 0, or 0 for all of it.")
    try:
        how = compute(protocol)
        if not protocol.useQueue():
            how.check()
    except SettingsError as error:
        found.append(str(error))
    return found
