"""The output sets of ProtFlexAlignTiltSeries, made from the records of the tilt series. Runs in the executor's main
thread.

The sets of an earlier run are made anew when a run is continued: they are small, and a series to which a tilt has come
that failed before needs another table.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Set, Tuple

from pwem.objects import Transform
from pwem.protocols import EMProtocol
from tomo.objects import SetOfTiltSeries, TiltImage, TiltSeries
from tomo.protocols.protocol_ts_correct_motion import ProtTsCorrectMotion

from flexalign_plugin.files import atomic_path

# Key of a stack, see `tilt_series.STACKS`: name of the output, ending of the set's file.
OUTPUTS = {
    "micrograph": ("TiltSeries", ""),
    "micrograph_dw": ("TiltSeriesDW", "dose-weighted"),
    "micrograph_even": ("TiltSeriesEven", "even"),
    "micrograph_odd": ("TiltSeriesOdd", "odd"),
}


@dataclass(frozen=True)
class SeriesRecord:
    """What became of a tilt series.

    Attributes
    ----------
    tilts : numbers of the tilts in the stacks, in their order.
    files : {key of `STACKS`: name of the stack without its folder}; empty if no tilt could be aligned.
    failures : [number, movie, reason] of the tilts that are not in the stacks.
    """

    tilts: List[int]
    files: Dict[str, str]
    failures: List[Tuple[int, str, str]]

    def save(self, path: str) -> None:
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as f:
            json.dump(dataclasses.asdict(self), f)

    @classmethod
    def load(cls, path: str) -> Optional[SeriesRecord]:
        """The record, or None where there is none."""
        try:
            with open(path, encoding="utf-8") as f:
                return cls(**json.load(f))
        except (FileNotFoundError, ValueError):  # empty after a power failure: as good as none
            return None


class TiltSeriesSets(ProtTsCorrectMotion):
    """The half of the protocol that makes the output sets; the other half aligns the tilts and keeps the records."""

    _possibleOutputs = {name: SetOfTiltSeries for name, _ in OUTPUTS.values()}
    _begun: Set[str]  # outputs that this run has made; kept by the other half

    def _append_series(self, ts_ids: List[str], records: Dict[str, SeriesRecord], state: int) -> None:
        """Tilt series with at least one tilt go to the output sets, which get the state of the stream."""
        for key, (name, ending) in OUTPUTS.items():
            those = [ts_id for ts_id in ts_ids if key in records[ts_id].files]
            if not those and name not in self._begun:
                continue
            output = self._opened(name, ending)
            for ts_id in those:
                self._append_one(output, ts_id, records[ts_id], key)
            self._publish(name, output, state)

    def _opened(self, name: str, ending: str) -> SetOfTiltSeries:
        if name in self._begun:
            output = getattr(self, name)
            output.enableAppend()
            return output
        output = SetOfTiltSeries.create(self._getPath(), prefix="tiltseries", suffix=ending)
        output.copyInfo(self._getInputTs())
        output.setSamplingRate(self._getOutputSampling())
        output.setDim([])  # not the movies'; the first series says it
        return output

    def _publish(self, name: str, output: SetOfTiltSeries, state: int) -> None:
        if getattr(self, name, None) is None:  # the base class has None where pyworkflow asks for no attribute at all
            output.setStreamState(state)
            self._defineOutputs(**{name: output})
        EMProtocol._updateOutputSet(self, name, output, state)  # tomo has a method of this name for something else
        if name not in self._begun:
            self._begun.add(name)
            made = getattr(self, name)
            if all(relation["object_child_id"] != made.getObjId() for relation in self.getRelations()):
                self._defineSourceRelation(self._getInputTsPointer(), made)

    def _append_one(self, output: SetOfTiltSeries, ts_id: str, record: SeriesRecord, key: str) -> None:
        source = self._tsDict.getTs(ts_id)
        tilts = [self._tsDict.getTi(ts_id, number) for number in record.tilts]
        series = TiltSeries(tsId=ts_id)
        series.copyInfo(source)
        series.setDim([])
        series.setSamplingRate(self._getOutputSampling())
        acquisition = source.getAcquisition().clone()
        acquisition.setAngleMin(min(tilt.getTiltAngle() for tilt in tilts))
        acquisition.setAngleMax(max(tilt.getTiltAngle() for tilt in tilts))
        series.setAcquisition(acquisition)
        series.setObjId([ts.getTsId() for ts in self._tsDict].index(ts_id) + 1)  # the same when it is made anew
        output.append(series)
        halves = [record.files.get(f"micrograph_{half}") for half in ("odd", "even")]  # tomo's order
        for index, tilt in enumerate(tilts, 1):
            image = TiltImage(location=(index, self._getExtraPath(record.files[key])))
            image.copyInfo(tilt)
            image.setAcquisition(tilt.getAcquisition())
            image.setSamplingRate(self._getOutputSampling())
            if all(halves):
                image.setOddEven([f"{index}@{self._getExtraPath(name)}" for name in halves])
            image.setObjId(index)
            series.append(image)
        self._centre(series)
        output.update(series)

    def _centre(self, series: TiltSeries) -> None:
        """The origin is the middle of the images as they are written, as at the import."""
        nx, ny = series.getDim()[:2]
        pixel = self._getOutputSampling()
        origin = Transform()
        origin.setShifts(-nx / 2 * pixel, -ny / 2 * pixel, 0)
        series.setOrigin(origin)

    def _remove_stale_outputs(self) -> None:
        """Outputs of an earlier run with other parameters that this one does not make."""
        for name, _ in OUTPUTS.values():
            output: Any = getattr(self, name, None)
            if output is not None and name not in self._begun:
                self.deleteOutput(output)

    def _remove_tables(self) -> None:
        for _, ending in OUTPUTS.values():
            path = self._getPath(f"tiltseries_{ending}.sqlite" if ending else "tiltseries.sqlite")
            for name in (path, path + "-journal", path + "-wal", path + "-shm"):
                if os.path.exists(name):
                    os.remove(name)

    def _getOutputName(self) -> str:
        return OUTPUTS["micrograph"][0]

    def _getOutputSet(self) -> None:
        """What tells tomo which series need no steps: none, the records tell it."""

    def _getBinFactor(self) -> float:
        return self.binFactor.get() / self.fcropFactor.get()
