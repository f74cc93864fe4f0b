"""What computes, and how: choices of a run that are no `Settings`, because they do not belong to its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from ..errors import SettingsError
from ..kernels import check_device, check_usable


@dataclass(frozen=True)
class Compute:
    """Devices of a run and what may be done with them.

    Attributes
    ----------
    devices : "auto", "cpu", or GPUs as "cuda:0"; each works on movies of its own.
    threads : CPU threads of all devices together; all that this process may use when None.
    gpu_memory_gb : most memory of each GPU that may be used; all of it when None.
    tune_fft : whether fast sizes of Fourier transforms may be searched for.
    cpu_instead : movies that a GPU can't align go to the CPU, with a warning; else they fail.
    """

    devices: Tuple[str, ...] = ("auto",)
    threads: Optional[int] = None
    gpu_memory_gb: Optional[float] = None
    tune_fft: bool = True
    cpu_instead: bool = False

    @property
    def on_gpus(self) -> bool:
        return any(is_gpu(device) for device in self.devices)

    def check(self) -> None:
        """SettingsError unless every device can be used here; says which part is missing and how to get it."""
        for device in self.devices:
            check_usable(device)


def is_gpu(device: str) -> bool:
    return device not in ("auto", "cpu")


def device_names(text: str) -> Tuple[str, ...]:
    """Devices as named on the command line: "auto", "cpu", "cuda", "cuda:0,cuda:1", or "all" (visible GPUs).

    Raises
    ------
    SettingsError : a name is no device's.
    """
    if text == "all":
        from ..kernels.cuda_installation import visible_gpus

        # Without any, the check of the first one says what is missing.
        return tuple(f"cuda:{gpu.index}" for gpu in visible_gpus()) or ("cuda:0",)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        check_device(name)
    distinct = tuple(dict.fromkeys("cuda:0" if name == "cuda" else name for name in names))
    if len(distinct) > 1 and not all(map(is_gpu, distinct)):
        raise SettingsError(f"Devices {text}: several devices must all be GPUs, as cuda:0,cuda:1.")
    return distinct
