"""The FFT and cross-correlation core: one interface (`backend.Backend`), one implementation for each kind of device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Optional

from ..errors import SettingsError

if TYPE_CHECKING:
    from .backend import Backend


def select_backend(device: str = "auto", threads: Optional[int] = None) -> Backend:
    """Backend for a device name.

    Parameters
    ----------
    device : "auto" or "cpu". CUDA devices ("cuda:0") are not supported by this version and are refused.
    threads : CPU threads; all that this process may use when None.

    Raises
    ------
    SettingsError : the device does not exist.
    """
    check_device(device)
    from .cpu import CpuBackend

    return CpuBackend(threads or usable_cores())


def check_device(device: str) -> None:
    """SettingsError unless the device can be used."""
    if device not in ("auto", "cpu"):
        raise SettingsError(f"Device {device!r} can't be used: this version computes on the CPU, choose auto or cpu.")


def usable_cores() -> int:
    """Cores that this process may use (a queue may have granted it only some)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
