"""The output sets of the FlexAlign protocol, made from the records: their items and properties.

Runs in the executor's main thread. A movie is appended only to sets that do not contain it yet, because a run may be
killed between two sets.
"""

from __future__ import annotations

import itertools
import os
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import mrcfile
import pwem.objects as emobj
import pyworkflow.object as pwobj
from pwem.protocols import ProtAlignMovies
from pwem.protocols.protocol_align_movies import OUT_MICS, OUT_MICS_DW, OUT_MICS_EVEN, OUT_MICS_ODD, OUT_MOVIES

from flexalign_plugin.execution.job import JobResult
from flexalign_plugin.output.failures import write_failures
from flexalign_plugin.quality.figures import Figures
from flexalign_plugin.result_files import FAILED_MOVIES, unique_root

from . import checks, form_values, relion_handover, summaries
from .records import load_record, numbers_in_set

OUT_FAILED = "outputMoviesFailed"
REASON = "reason"  # attribute and column with a failed movie's error
MOVIES_TABLE, FAILED_TABLE = "movies.sqlite", "movies_failed.sqlite"
EVEN_ODD = (OUT_MICS_EVEN, OUT_MICS_ODD)
MICROGRAPH_TABLES = {
    OUT_MICS: "micrographs.sqlite",
    OUT_MICS_DW: "micrographs_dose-weighted.sqlite",
    OUT_MICS_EVEN: "micrographs_even.sqlite",
    OUT_MICS_ODD: "micrographs_odd.sqlite",
}


class AlignedMovieSets(ProtAlignMovies):
    """The part of ProtFlexAlign that makes the output sets. ProtFlexAlign aligns the movies and saves the records."""

    _possibleOutputs = {
        OUT_MICS: emobj.SetOfMicrographs,
        OUT_MICS_DW: emobj.SetOfMicrographs,
        OUT_MICS_EVEN: emobj.SetOfMicrographs,
        OUT_MICS_ODD: emobj.SetOfMicrographs,
        OUT_MOVIES: emobj.SetOfMovies,
        OUT_FAILED: emobj.SetOfMovies,
    }
    # Filled by ProtFlexAlign: {number of the movie: root of its files}, {number of a failed movie: its record}.
    _roots: Dict[int, str]
    _failures: Dict[int, JobResult]
    # One of the aligned movies. Not an attribute itself: pyworkflow would store it with the protocol, in the place of
    # the parameter that has the number of the movie as its own.
    _examples: Sequence[emobj.Movie] = ()

    def _updateOutputSets(self, newDone: List[emobj.Movie], streamMode: int) -> None:
        records = {m.getObjId(): _loaded(self._getMovieDone(m)) for m in newDone}
        good = [m for m in newDone if records[m.getObjId()].ok]
        bad = [m for m in newDone if not records[m.getObjId()].ok]
        self._failures.update({m.getObjId(): records[m.getObjId()] for m in bad})
        if bad:
            write_failures(
                self._getExtraPath(FAILED_MOVIES), [(i, r.movie, r.message) for i, r in sorted(self._failures.items())]
            )
        if bad or self.hasAttribute(OUT_FAILED):
            self._append_movies(OUT_FAILED, FAILED_TABLE, bad, streamMode)
        if good:
            self._examples = good[:1]
        if good or self.hasAttribute(OUT_MOVIES):
            self._firstTimeOutput = False  # relations are defined by `_relate`
            self._append_movies(OUT_MOVIES, MOVIES_TABLE, good, streamMode)
            for name, file_of in self._micrograph_sets():
                items = good
                if name in EVEN_ODD:
                    items = [m for m in good if "micrograph_even" in records[m.getObjId()].files]
                if items or self.hasAttribute(name):
                    table = MICROGRAPH_TABLES[name]
                    self._updateOutputMicSet(self._missing_in(table, items), table, file_of, name, streamMode)
                    self._relate(name)

    def _micrograph_sets(self) -> List[Tuple[str, Callable[[emobj.Movie], str]]]:
        """Output sets of micrographs that this run makes, each with the function that names the file of a movie."""
        if not self.doSaveAveMic:
            return []
        sets = []
        if self._createOutputMicrographs():
            sets.append((OUT_MICS, self._getOutputMicName))
        if self._createOutputWeightedMicrographs():
            sets.append((OUT_MICS_DW, self._getOutputMicWtName))
        if self.splitEvenOdd or self.denoiserPairs:
            sets += [(OUT_MICS_EVEN, self._getOutputMicEvenName), (OUT_MICS_ODD, self._getOutputMicOddName)]
        return sets

    def _createOutputWeightedMicrographs(self) -> bool:
        movies = self.inputMovies.get()
        if movies is None or not (self.doSaveAveMic and self.doApplyDoseFilter):
            return False
        dose = movies.getAcquisition().getDosePerFrame() if self.useMovieDose else self.dosePerFrame.get()
        return dose is not None and (dose > 0 or not self.useMovieDose)

    def _createOutputMicrographs(self) -> bool:
        unweighted = self.doSaveUnweightedMic.get() or not self._createOutputWeightedMicrographs()
        return bool(self.doSaveAveMic and unweighted)

    def _is_denoiser_pair(self, movie: emobj.Movie) -> bool:
        first = itertools.islice(self._roots, self.nDenoiserPairs.get())
        return bool(self.denoiserPairs) and movie.getObjId() in first

    def _append_movies(self, name: str, file_name: str, movies: List[emobj.Movie], streamMode: int) -> None:
        aligned_files = name == OUT_MOVIES and self.doSaveMovie.get()
        movies = self._missing_in(file_name, movies)
        movie_set = self._loadOutputSet(emobj.SetOfMovies, file_name, fixSampling=aligned_files)
        movies = [self._createOutputMovie(m) if name == OUT_MOVIES else self._failed_movie(m) for m in movies]
        if movie_set.isEmpty() and movies:
            # Set here, because pwem would keep the input's values or read the first file, whose format it may not know.
            movie_set.setFramesRange(movies[0].getFramesRange())
            movie_set.setDim(movies[0].getDim() if aligned_files else self.inputMovies.get().getDim())
        if aligned_files:
            movie_set.setGain(None)
            movie_set.setDark(None)
        for movie in movies:
            movie_set.append(movie)
        self._updateOutputSet(name, movie_set, streamMode)
        self._relate(name)

    def _loadOutputSet(self, SetClass: Any, baseName: str, fixSampling: bool = True) -> Any:
        """The set with the dose that was used and what RELION reads from its acquisition, if it is new."""
        output = super()._loadOutputSet(SetClass, baseName, fixSampling)
        if output.isEmpty() and baseName != FAILED_TABLE and self._examples:
            (example,) = self._examples
            shifts, folder = self._shifts(example), self._getExtraPath()
            aligned_files = baseName == MOVIES_TABLE and self.doSaveMovie.get()
            self._set_dose(output.getAcquisition(), example, aligned_files)
            if baseName == MOVIES_TABLE and not aligned_files:
                relion_handover.share_defects(shifts, folder)
            first = self._record(example).first_frame + 1
            relion_handover.describe(output.getAcquisition(), shifts, first, folder, not aligned_files)
        return output

    def _set_dose(self, acquisition: emobj.Acquisition, movie: emobj.Movie, aligned_file: bool = False) -> None:
        """Set the dose of a frame of the imported file, for EER of a hardware frame as at the import; with
        `aligned_file` that of a frame of the written movie."""
        record = self._record(movie)
        if record.dose_per_frame is None:
            return
        dose = record.dose_per_frame / (1 if aligned_file else record.hardware_frames or 1)
        acquisition.setDosePerFrame(dose)
        if not self.useMovieDose:
            # Programs add the dose of frames that the file lacks.
            acquisition.setDoseInitial(max(self.preExposure.get() - dose * form_values.dropped_frames(movie), 0.0))

    def _missing_in(self, table: str, movies: List[emobj.Movie]) -> List[emobj.Movie]:
        known = numbers_in_set(self._getPath(table)) or set()
        return [m for m in movies if m.getObjId() not in known]

    def _relate(self, name: str) -> None:
        """Define the relation of an output to the input movies, unless it exists. A run may be killed before this."""
        output = getattr(self, name)
        if all(relation["object_child_id"] != output.getObjId() for relation in self.getRelations()):
            self._defineTransformRelation(self.inputMovies, output)

    def _createOutputMovie(self, movie: emobj.Movie) -> emobj.Movie:
        """The movie with its shifts, or the aligned movie with shifts of zero. Frame numbers are those in the file. The
        frames of an EER file are hardware frames; its shifts, and an aligned movie, have one frame for each group."""
        record, aligned_file = self._record(movie), self.doSaveMovie.get()
        first_in_file, n = record.first_frame + 1, len(record.shifts_px)
        group, dropped = record.hardware_frames or 1, form_values.dropped_frames(movie)
        output = movie.clone()
        self._set_dose(output.getAcquisition(), movie, aligned_file)
        first = first_in_file + dropped // group
        roi = [getattr(self, f"crop{name}").get() for name in ("OffsetX", "OffsetY", "DimX", "DimY")]
        shifts = {
            "xshifts": [float(s[1]) for s in record.shifts_px],
            "yshifts": [float(s[0]) for s in record.shifts_px],
        }
        if aligned_file:
            output.setFileName(self._getExtraPath(self._getOutputMovieName(movie)))
            output.setSamplingRate(movie.getSamplingRate() * self._getBinFactor())
            shifts, roi = {"xshifts": [0.0] * n, "yshifts": [0.0] * n}, [0, 0, 0, 0]
            output.setFramesRange([first, first + n - 1, 1])
        else:
            start = record.first_frame * group + 1
            output.setFramesRange([start + dropped, start + dropped + n * group - 1, start])
        if aligned_file or self._polishing_hints(movie):
            relion_handover.set_none(output)
        else:
            known = relion_handover.shared_defects(self._getExtraPath())
            relion_handover.set_motion(output, self._shifts(movie), first_in_file, known)
        alignment = emobj.MovieAlignment(first=first, last=first + n - 1, **shifts)
        alignment.setRoi(roi)
        output.setAlignment(alignment)
        return output

    def _polishing_hints(self, movie: Optional[emobj.Movie]) -> List[str]:
        if movie is None or self.doSaveMovie:
            return []
        return checks.polishing_hints(form_values.settings_values(self, movie), movie.getFileName())

    def _record(self, movie: emobj.Movie) -> JobResult:
        return _loaded(self._getMovieDone(movie))

    def _shifts(self, movie: emobj.Movie) -> relion_handover.Shifts:
        name = os.path.basename(self._record(movie).files["shifts_star"])
        return relion_handover.read_shifts(self._getExtraPath(name))

    def _failed_movie(self, movie: emobj.Movie) -> emobj.Movie:
        output, record = movie.clone(), _loaded(self._getMovieDone(movie))
        setattr(output, REASON, pwobj.String(summaries.reason(record)))
        return output

    def _getMovieShifts(self, movie: emobj.Movie) -> Any:
        shifts = _loaded(self._getMovieDone(movie)).shifts_px
        return [float(s[1]) for s in shifts], [float(s[0]) for s in shifts]

    def _getMovieRoot(self, movie: emobj.Movie) -> str:
        # Outside a run (in viewers) only names without an added number are known.
        roots = getattr(self, "_roots", {})
        return roots.get(movie.getObjId()) or unique_root(movie.getFileName(), (), movie.getObjId())

    def _preprocessOutputMicrograph(self, mic: emobj.Micrograph, movie: emobj.Movie) -> None:
        """Add figures and pictures for the set's viewer. They are table columns, so every micrograph has all of them; a
        picture may be empty."""
        record = _loaded(self._getMovieDone(movie))
        files = record.files
        figures = Figures.from_dict(record.quality)
        # Names used by other motion correction protocols.
        mic._rlnAccumMotionTotal = pwobj.Float(figures.accumulated_motion_total_A)
        mic._rlnAccumMotionEarly = pwobj.Float(figures.accumulated_motion_early_A)
        mic._rlnAccumMotionLate = pwobj.Float(figures.accumulated_motion_late_A)
        pictures = {"thumbnail": "thumbnail", "plotGlobal": "plot_global"}
        if self.doLocalAlignment:
            pictures["plotLocal"] = "plot_local"
        if self.doComputePSD:
            pictures["psdCorr"] = "psd_image"
        for column, key in pictures.items():
            path = self._getExtraPath(os.path.basename(files[key])) if key in files else None
            setattr(mic, column, emobj.Image(location=path))
        if self.doSavePs:
            mic._powerSpectra = self._power_spectra(files)  # the name that ctffind's protocol reads

    def _power_spectra(self, files: Dict[str, str]) -> emobj.Image:
        """The spectrum for CTF programs; its pixel size is that of its own header. files : of the movie's record."""
        if "amplitude_spectrum" not in files:
            return emobj.Image(location=None)  # aligned by an earlier run, which did not write it
        path = self._getExtraPath(os.path.basename(files["amplitude_spectrum"]))
        spectrum = emobj.Image(location=path)
        with mrcfile.open(path, header_only=True) as mrc:
            spectrum.setSamplingRate(float(mrc.voxel_size.x))
        return spectrum

    def _getMovieDone(self, movie: emobj.Movie) -> str:
        return self._record_path(movie.getObjId())

    def _record_path(self, number: int) -> str:
        """Record of the movie with this number."""
        return str(self._getExtraPath("DONE", f"movie_{number:06d}.json"))

    def _check_outputs(self) -> None:
        """Raise a RuntimeError if no movie could be aligned, or if an output set is incomplete."""
        if not self._roots:
            raise RuntimeError("The input is closed and has no movies: check the run that should have produced them.")
        done = len(self._roots) - len(self._failures)
        if self._failures:
            reason = next(iter(self._failures.values())).message
            if not done:
                raise RuntimeError(
                    f"None of {summaries.counted(len(self._failures))} could be aligned. The first error: {reason}"
                )
            self.warning(
                f"{len(self._failures)} of {len(self._roots)} movies failed, see {OUT_FAILED} and {FAILED_MOVIES}."
            )
        # Sets of pairs for a denoiser have fewer items on purpose.
        complete = [name for name, _ in self._micrograph_sets() if name not in EVEN_ODD or self.splitEvenOdd]
        for name in [OUT_MOVIES, *complete]:
            output = getattr(self, name, None)
            size = output.getSize() if output is not None else 0
            if size != done:
                raise RuntimeError(
                    f"{summaries.counted(done)} aligned, but {name} has {size} items: check the log of the run for "
                    "errors, then use *Continue*."
                )


def _loaded(path: str) -> JobResult:
    record = load_record(path)
    if record is None:
        raise FileNotFoundError(f"{path} is missing, although the movie was processed: restart the protocol.")
    return record
