"""Devices, threads, memory and time limit of a run.

They are not part of `Settings`, because results do not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from ..errors import SettingsError
from ..kernels import check_device, check_usable


@dataclass(frozen=True)
class Compute:
    """Devices of a run and their limits.

    Attributes
    ----------
    devices : "auto", "cpu", or GPUs as "cuda:0"; several devices align different movies at the same time.
    threads : CPU threads of all movies together; None: all that this process may use.
    workers : movies that the CPU aligns at once; None: see `sharing.with_workers`. Each GPU has its own worker.
    gpu_memory_gb : maximum memory to use on each GPU; None: all of it.
    tune_fft : whether to search for fast FFT sizes.
    cpu_instead : whether movies that no GPU can align are aligned on the CPU, with a warning; else they fail.
    timeout_s : time limit per movie in seconds; None: `time_limit.DEFAULT`.
    """

    devices: Tuple[str, ...] = ("auto",)
    threads: Optional[int] = None
    gpu_memory_gb: Optional[float] = None
    tune_fft: bool = True
    cpu_instead: bool = False
    timeout_s: Optional[float] = None
    workers: Optional[int] = None

    @property
    def on_gpus(self) -> bool:
        return any(is_gpu(device) for device in self.devices)

    def check(self) -> None:
        """Raise SettingsError, which states what is missing and how to install it, unless every device is usable."""
        if self.on_gpus and self.workers is not None:
            raise SettingsError(
                f"Movies at once is {self.workers}: this number is for the CPU, while each GPU aligns one movie at a "
                "time: leave it out."
            )
        for device in self.devices:
            check_usable(device)


def is_gpu(device: str) -> bool:
    return device not in ("auto", "cpu")


def device_names(text: str) -> Tuple[str, ...]:
    """Devices from the command line: "auto", "cpu", "cuda", "cuda:0,cuda:1", or "all" (visible GPUs).

    Raises
    ------
    SettingsError : a name is not that of a device.
    """
    if text == "all":
        from ..kernels.cuda_installation import visible_gpus

        # If there is none, the check of cuda:0 reports what is missing.
        return tuple(f"cuda:{gpu.index}" for gpu in visible_gpus()) or ("cuda:0",)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        check_device(name)
    distinct = tuple(dict.fromkeys("cuda:0" if name == "cuda" else name for name in names))
    if len(distinct) > 1 and not all(map(is_gpu, distinct)):
        raise SettingsError(f"Devices {text}: several devices must all be GPUs, e.g. cuda:0,cuda:1.")
    return distinct
