"""CUDA graphs: work that is recorded once and started again with one call of the driver. pycuda has none of this."""

from __future__ import annotations

import ctypes
from typing import Any, Callable, Optional

RELAXED = 2  # other calls of this process, also of other threads, are not restricted while work is recorded


class Graph:
    """Recorded work. The context must be current in the calling thread."""

    def __init__(self, driver: ctypes.CDLL, handle: ctypes.c_void_p):
        self._driver = driver
        self._handle: Optional[ctypes.c_void_p] = handle

    def launch(self, stream: Any) -> bool:
        """Queue the work on a stream of pycuda; False if the driver refuses."""
        return self._driver.cuGraphLaunch(self._handle, ctypes.c_void_p(stream.handle)) == 0

    def close(self) -> None:
        """Forget the work, which must have finished."""
        if self._handle is not None:
            self._driver.cuGraphExecDestroy(self._handle)
            self._handle = None


def record(stream: Any, work: Callable[[], None]) -> Optional[Graph]:
    """The work that a function queues on a stream of pycuda, which is recorded instead of done.

    None if the driver has no graphs (before CUDA 11.4) or can't make one of this work.
    """
    driver = ctypes.CDLL("libcuda.so.1")
    graph, ready, on = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p(stream.handle)
    if not hasattr(driver, "cuGraphInstantiateWithFlags") or driver.cuStreamBeginCapture_v2(on, RELAXED):
        return None
    try:
        work()
    finally:
        ended = driver.cuStreamEndCapture(on, ctypes.byref(graph))
    if ended:
        return None
    refused = driver.cuGraphInstantiateWithFlags(ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
    driver.cuGraphDestroy(graph)
    return None if refused else Graph(driver, ready)
