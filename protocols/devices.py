"""Form parameters for GPUs, time limit and cluster jobs, and the devices and threads that follow from them."""

from __future__ import annotations

import math
from typing import Any, List

import pyworkflow.protocol.params as params
from pyworkflow.constants import QUEUE_FOR_JOBS
from pyworkflow.protocol.constants import GPU_LIST, LEVEL_ADVANCED, USE_GPU

from flexalign_plugin.errors import SettingsError
from flexalign_plugin.execution import time_limit
from flexalign_plugin.execution.devices import Compute
from flexalign_plugin.kernels import usable_cores
from flexalign_plugin.kernels.cuda_installation import devices_of

MOVIES_PER_JOB = 8
AUTOMATIC = 0  # movies at once
FAILURE_CHOICES = ("the movie fails", "the CPU aligns it")


def define_choice(form: Any) -> None:
    """Scipion shows these two together as *GPU IDs*, above the tabs of the form."""
    form.addHidden(
        USE_GPU,
        params.BooleanParam,
        default=False,
        label="Use GPU for execution",
        help="The default is *No*, because this version has been tested on an emulated GPU but not on real hardware. "
        "First align a few movies on both CPU and GPU: their shifts should agree within 0.02 pixels. "
        "`flexalign info` shows whether a GPU can be used on this machine, and what is missing if not.",
    )
    form.addHidden(
        GPU_LIST,
        params.StringParam,
        default="0",
        label="Choose GPU IDs",
        help="Numbers of the GPUs, separated by spaces or commas, for example *0 1*. The first GPU is 0. The GPUs "
        "share the movies: each GPU aligns one movie while the next one is read. Leave *Scipion threads* at 1.",
    )


def define_movies_at_once(group: Any) -> None:
    group.addParam(
        "moviesAtOnce",
        params.IntParam,
        default=AUTOMATIC,
        label="Movies at once",
        help="Number of movies that the CPU aligns at the same time. They share the CPU cores given as *Threads*. "
        "0: one movie for each core, or fewer if there is too little memory or there are fewer movies. This is fastest "
        "for many movies. 1 needs the least memory. The results do not depend on this value. Each GPU aligns one movie "
        "at a time, whatever this value is.",
        expertLevel=LEVEL_ADVANCED,
    )


def define_time_limit(group: Any) -> None:
    group.addParam(
        "timeout",
        params.FloatParam,
        default=0.0,
        label="Time limit per movie (s)",
        help="A movie that takes longer fails, so that a disk or a GPU that does not respond can't stop the run for "
        f"ever. 0: {time_limit.DEFAULT}.",
        expertLevel=LEVEL_ADVANCED,
    )


def define_details(form: Any) -> None:
    group = form.addGroup("Cluster", expertLevel=LEVEL_ADVANCED)
    group.addParam(
        "moviesPerJob",
        params.IntParam,
        default=MOVIES_PER_JOB,
        label="Movies per job",
        help="Largest number of movies in one job. Used only if each step, and not the whole protocol, is submitted to "
        "the queue of a cluster. The number of simultaneous jobs is *Scipion threads* minus 1. Each job takes a few "
        "seconds to start. If a job is killed, only its unfinished movies have to be aligned again.",
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
        help="If a GPU fails, the movie is first retried on another GPU or in a new process. This choice applies if "
        "the retry fails too, or if the movie is too large for the memory of the GPU. *Continue* aligns failed movies "
        "again. If the CPU aligns a movie instead, a warning in the log gives the reason.",
        expertLevel=LEVEL_ADVANCED,
    )
    group.addParam(
        "gpuMemory",
        params.FloatParam,
        default=0.0,
        label="GPU memory limit (GB)",
        help="Maximum memory to use on each GPU, to leave room for other programs. 0: all of it. The results do not "
        "depend on this value.",
        expertLevel=LEVEL_ADVANCED,
    )
    group.addParam(
        "tuneFftSizes",
        params.BooleanParam,
        default=True,
        label="Tune FFT sizes?",
        help="The speed of a Fourier transform depends on its size. With *Yes* the fastest size near the size of the "
        "frames is measured when movies of a new size are aligned on a GPU for the first time. It is stored for later "
        "runs.",
        expertLevel=LEVEL_ADVANCED,
    )


def steps_go_to_queue(protocol: Any) -> bool:
    """Whether the movies are aligned in queue jobs of their own. If not, the whole protocol is one job, or everything
    runs on this machine."""
    return bool(protocol.useQueue()) and protocol.getQueueParams()[1].get(QUEUE_FOR_JOBS) == "Y"


def chosen(protocol: Any) -> List[str]:
    """Names of the chosen GPUs (`cuda:0`), empty for the CPU.

    Raises
    ------
    SettingsError : the list is empty or contains something other than numbers.
    """
    if not protocol.useGpu:
        return []
    names = devices_of(protocol.gpuList.get() or "")
    if not names:
        raise SettingsError(
            "No GPU is chosen: enter its number in *GPU IDs* (0 for the first), or set *GPU IDs* to No."
        )
    # In a job, the GPUs that the queue has granted are numbered from 0.
    return [f"cuda:{i}" for i in range(len(names))] if protocol.useQueue() else names


def compute(protocol: Any) -> Compute:
    """Devices and CPU threads for the protocol's movies. The CPU's movies share *Threads*; each GPU has as many."""
    gpus = chosen(protocol)
    threads = protocol.getBinThreads() * max(len(gpus), 1)
    return Compute(
        tuple(gpus) or ("cpu",),
        threads if steps_go_to_queue(protocol) else min(threads, usable_cores()),
        protocol.gpuMemory.get() or None,
        tune_fft=protocol.tuneFftSizes.get(),
        cpu_instead=protocol.onGpuFailure.get() == 1,
        timeout_s=protocol.timeout.get() or None,
        workers=None if gpus else protocol.moviesAtOnce.get() or None,
    )


def hints(protocol: Any) -> List[str]:
    """A warning if GPUs are chosen."""
    if not protocol.useGpu:
        return []
    return [
        "The GPU code of this version has not been run on real hardware yet: first align a few movies on both CPU and "
        "GPU and compare their shifts, or set *GPU IDs* to No."
    ]


def problems(protocol: Any) -> List[str]:
    """One sentence for each wrong value, and for chosen GPUs that can't be used. GPUs of a queue are not checked,
    because they are on other machines."""
    errors = []
    if protocol.getBinThreads() < 1:
        errors.append(f"Threads is {protocol.getBinThreads()}: at least 1 CPU core is needed.")
    if protocol.moviesAtOnce.get() < 0:
        errors.append(f"Movies at once is {protocol.moviesAtOnce.get()}: give at least 1, or 0 for automatic.")
    if protocol.moviesPerJob.get() < 1:
        errors.append(f"Movies per job is {protocol.moviesPerJob.get()}: it must be at least 1.")
    if protocol.gpuMemory.get() < 0:
        errors.append(f"GPU memory limit is {protocol.gpuMemory.get():g} GB: it must be above 0, or 0 for all of it.")
    if not 0 <= protocol.timeout.get() < math.inf:
        errors.append(f"Time limit per movie is {protocol.timeout.get():g} s: give a number above 0, or 0.")
    try:
        devices = compute(protocol)
        if not protocol.useQueue():
            devices.check()
    except SettingsError as error:
        errors.append(str(error))
    return errors
