"""NumPy instead of cuFFT, on the test driver's memory and streams: replaces `kernels.cufft.call`."""

from __future__ import annotations

import ctypes
from typing import Any, Dict, List

import numpy as np

from flexalign_plugin.kernels.cufft import INTERNAL_ERROR, KINDS, CufftError

UNALIGNED_DATA, NO_WORKSPACE = 9, 13
HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class NumpyCufft:
    """Computes the transforms of the plans of `kernels.cufft`, queued on the plan's stream.

    Like cuFFT it needs a work area, and leaves anything there.
    """

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._queued: Dict[int, Any] = {}  # plans and functions, until they have run
        self._finished: List[int] = []
        self.plans: Dict[int, Dict[str, Any]] = {}
        self.made = self.number = 0

    def __call__(self, function: str, *arguments: Any) -> None:
        values = [getattr(a, "value", a) for a in arguments]
        if function == "cufftCreate":
            self.made += 1
            self.plans[self.made] = {}
            arguments[0]._obj.value = self.made
        elif function == "cufftGetVersion":
            arguments[0]._obj.value = 12345
        elif function in ("cufftMakePlanMany64", "cufftGetSizeMany64"):
            handle, _, size, source, _, _, target, _, _, kind, batch, _ = values
            ny, nx = size
            self.plans[handle] = dict(batch=batch, size=(ny, nx), source=tuple(source), target=tuple(target), kind=kind)
            arguments[-1]._obj.value = 8 * batch * ny * (nx // 2 + 1)
        elif function == "cufftSetStream":
            self.plans[values[0]]["stream"] = values[1]
        elif function == "cufftSetWorkArea":
            self.plans[values[0]]["work"] = values[1]
        elif function == "cufftDestroy":
            self._forget_finished()
            if any(plan is self.plans[values[0]] for plan, _ in self._queued.values()):
                raise CufftError(function, INTERNAL_ERROR)  # the plan's tables are still needed
            del self.plans[values[0]]
        elif function in ("cufftExecR2C", "cufftExecC2R"):
            plan = self.plans[values[0]]
            if not plan.get("work"):
                raise CufftError(function, NO_WORKSPACE)
            if any(address % 8 for address in values[1:]):
                raise CufftError(function, UNALIGNED_DATA)
            self._queue(plan, *values[1:])

    def _queue(self, plan: Dict[str, Any], source: int, target: int) -> None:
        self._forget_finished()
        self.number += 1
        number, now = self.number, dict(plan)

        def run(_: Any) -> None:
            self._execute(now, source, target)
            self._finished.append(number)

        self._queued[number] = plan, HostFunction(run)
        self._driver.cuLaunchHostFunc(ctypes.c_void_p(plan["stream"]), self._queued[number][1], None)

    def _forget_finished(self) -> None:
        while self._finished:
            del self._queued[self._finished.pop()]

    def _execute(self, plan: Dict[str, Any], source: int, target: int) -> None:
        forward = plan["kind"] == KINDS["r2c"]
        types = (np.float32, np.complex64) if forward else (np.complex64, np.float32)
        images = _at(source, (plan["batch"], *plan["source"]), types[0])
        out = _at(target, (plan["batch"], *plan["target"]), types[1])
        _at(plan["work"], (plan["batch"], *plan["size"][:1], plan["size"][1] // 2 + 1), np.complex64)[...] = np.nan
        if forward:
            out[...] = np.fft.rfft2(images)
        else:
            out[...] = np.fft.irfft2(images, plan["size"], norm="forward")
            images[...] = np.nan  # cuFFT may leave anything there


def _at(address: int, shape: Any, dtype: Any) -> np.ndarray:
    count = int(np.prod(shape))
    memory = (ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(memory, dtype, count).reshape(shape)
