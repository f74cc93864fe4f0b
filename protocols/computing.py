"""What the protocols have in common: the devices or the queue that compute, and the end of a run."""

from __future__ import annotations

from typing import Any, Dict, List

from pwem.protocols import EMProtocol

from flexalign_plugin.execution.engine import Engine
from flexalign_plugin.execution.worker_pool import WorkerPool
from flexalign_plugin.kernels.cuda_installation import device_index
from flexalign_plugin.report_pages import LiveReport

from . import devices
from .handover import HandOver
from .scipion_queue import queue_of


class ComputesMovies(EMProtocol):
    """To be named before a protocol's other base class. `_insertAllSteps` sets what is declared here."""

    _hand_over: HandOver
    _report: LiveReport

    def getGpuList(self) -> List[int]:
        # pyworkflow makes a slot for each listed GPU even when none is used, and then runs one step at a time.
        return [] if devices.steps_go_to_queue(self) else [device_index(name) for name in devices.chosen(self)]

    def getTotalThreads(self) -> int:
        # pyworkflow takes one Scipion thread as the one that only waits; here it computes.
        at_once = len(devices.chosen(self)) or max(self.getScipionThreads() - 1, 1)
        return at_once * self.getBinThreads()

    def getSubmitDict(self) -> Dict[str, Any]:
        """What a job of a queue asks for, unless the queue's own form says it; the base class counts Scipion's threads
        as cores."""
        values: Dict[str, Any] = super().getSubmitDict()
        cores = self.getTotalThreads()
        if devices.steps_go_to_queue(self):
            cores = self.getBinThreads() * max(len(devices.chosen(self)), 1)
        asked = {"JOB_THREADS": cores, "JOB_CORES": cores, "GPU_COUNT": len(devices.chosen(self))}
        return {**values, **asked, **self.getQueueParams()[1]}

    def _make_engine(self) -> Engine:
        if devices.steps_go_to_queue(self):
            return queue_of(self)
        return WorkerPool(devices.compute(self), log=self.info)

    def _stepsCheck(self) -> None:
        if self.isFailed():
            # The executor calls this a last time and then waits for every thread; and whoever waits for our outputs
            # must learn that no more will come.
            self._hand_over.close()
            self._closeOutputSet()
            return
        super()._stepsCheck()

    def _runSteps(self, *args: Any) -> None:
        try:
            super()._runSteps(*args)
        finally:
            self._hand_over.close()
            self._report.finish()
