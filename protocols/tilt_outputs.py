"""The output sets of ProtFlexAlignTiltSeries, made from the records of the tilt series. Runs in the executor's main
thread.

When a run is continued, the sets of the earlier run are made again. They are small, and the table of a series changes
when a tilt that failed before has been aligned.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Set, Tuple

from pwem.objects import Transform
from pwem.protocols import EMProtocol
from tomo.objects import SetOfTiltSeries, TiltImage, TiltSeries
from tomo.protocols.protocol_ts_correct_motion import ProtTsCorrectMotion

from flexalign_plugin.inputs import dataclass_of

from .records import read_values, write_values

SERIES_FORMAT = "flexalign-series-record-1"
# {key of a stack, see `runs.tilt_series.STACKS`: (name of the output, suffix of the set's file)}
OUTPUTS = {
    "micrograph": ("TiltSeries", ""),
    "micrograph_dw": ("TiltSeriesDW", "dose-weighted"),
    "micrograph_even": ("TiltSeriesEven", "even"),
    "micrograph_odd": ("TiltSeriesOdd", "odd"),
}


@dataclass(frozen=True)
class SeriesRecord:
    """The result of a tilt series.

    Attributes
    ----------
    tilts : numbers of the tilts in the stacks, in the order of the stacks.
    files : {key of `STACKS`: name of the stack without folder}; empty if no tilt could be aligned.
    failures : (number, movie, reason) of each tilt that is not in the stacks.
    sizes : {key of `STACKS`: bytes of the stack}; empty in old records.
    """

    tilts: List[int]
    files: Dict[str, str]
    failures: List[Tuple[int, str, str]]
    sizes: Dict[str, int] = dataclasses.field(default_factory=dict)

    def save(self, path: str) -> None:
        write_values(path, SERIES_FORMAT, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str) -> Optional[SeriesRecord]:
        """The record, or None if there is none, or it is not one of this version or an earlier one."""
        try:
            return dataclass_of(cls, read_values(path, SERIES_FORMAT))
        except ValueError:
            return None


class TiltSeriesSets(ProtTsCorrectMotion):
    """The part of ProtFlexAlignTiltSeries that makes the output sets. ProtFlexAlignTiltSeries aligns the tilts and
    saves the records."""

    _possibleOutputs = {name: SetOfTiltSeries for name, _ in OUTPUTS.values()}
    _begun: Set[str]  # names of the outputs that this run has made

    def _append_series(self, ts_ids: List[str], records: Dict[str, SeriesRecord], state: int) -> None:
        """Add tilt series with at least one tilt to the output sets. state : stream state of the sets."""
        for key, (name, ending) in OUTPUTS.items():
            with_stack = [ts_id for ts_id in ts_ids if key in records[ts_id].files]
            if not with_stack and name not in self._begun:
                continue
            output = self._opened(name, ending)
            for ts_id in with_stack:
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
        output.setDim([])  # the first series sets it; the input has the size of the movies
        return output

    def _publish(self, name: str, output: SetOfTiltSeries, state: int) -> None:
        if getattr(self, name, None) is None:  # the base class sets None, pyworkflow expects no attribute
            output.setStreamState(state)
            self._defineOutputs(**{name: output})
        EMProtocol._updateOutputSet(self, name, output, state)  # tomo has another method of this name
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
        # The same number whenever the set is made again.
        series.setObjId([ts.getTsId() for ts in self._tsDict].index(ts_id) + 1)
        output.append(series)
        odd_even = [record.files.get(f"micrograph_{parity}") for parity in ("odd", "even")]  # tomo's order
        for index, tilt in enumerate(tilts, 1):
            image = TiltImage(location=(index, self._getExtraPath(record.files[key])))
            image.copyInfo(tilt)
            image.setAcquisition(tilt.getAcquisition())
            image.setSamplingRate(self._getOutputSampling())
            if all(odd_even):
                image.setOddEven([f"{index}@{self._getExtraPath(name)}" for name in odd_even])
            image.setObjId(index)
            series.append(image)
        self._centre(series)
        output.update(series)

    def _centre(self, series: TiltSeries) -> None:
        """Set the origin to the centre of the written images, as the import does."""
        nx, ny = series.getDim()[:2]
        pixel = self._getOutputSampling()
        origin = Transform()
        origin.setShifts(-nx / 2 * pixel, -ny / 2 * pixel, 0)
        series.setOrigin(origin)

    def _remove_stale_outputs(self) -> None:
        """Remove outputs of an earlier run that this run does not make, because parameters have changed."""
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
        """None, so that tomo skips no series. Finished series are recognised by their records."""
