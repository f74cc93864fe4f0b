"""Fast sizes of Fourier transforms, measured once on each kind of GPU (Strelak 2020, section 3.4).

The speed of a transform depends on its size in a way that can't be predicted. Therefore sizes up to 10 % smaller than a
frame, which lose a margin, are timed if they have only the prime factors 2, 3, 5 and 7. The length of the rows is
searched first, then that of the columns. The time per pixel is minimised, so that a margin is given up only if the
transform becomes faster than its smaller number of pixels explains.

The results are kept in a file that all processes share. The file is replaced as a whole under a lock. A file that is
damaged or of another kind is renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np

from ..band import MAX_FFT_SIZE_CHANGE, fft_size_below, is_fft_friendly
from ..errors import OutputError
from ..files import atomic_path
from ..inputs import read_json
from .cubins import cache_folder
from .device import Device, DeviceOutOfMemory

FORMAT, VERSION = "flexalign-fft-sizes", 2
REPEATS, ROUNDS = 4, 3
WORTH = 0.03  # a size must be faster by this fraction to be preferred to one closer to the wanted size
Size = Tuple[int, int]
Measure = Callable[[Device, int, int], float]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuned:
    """Result of one search.

    Attributes
    ----------
    size : (ny, nx) to use. default_size : used without a search, the nearest size with small factors.
    seconds, default_seconds : time of one transform of these sizes. search_seconds : duration of
        the search.
    """

    size: Size
    default_size: Size
    seconds: float
    default_seconds: float
    search_seconds: float

    def movies_to_pay_back(self, transforms_per_movie: int) -> Optional[int]:
        """Number of movies after which the search has paid for itself; None if it saves no time."""
        saved = (self.default_seconds - self.seconds) * transforms_per_movie
        return math.ceil(self.search_seconds / saved) if saved > 0 else None


def default_file() -> Path:
    """FLEXALIGN_TUNING_FILE, or fft_sizes.json in the cache folder."""
    chosen = os.environ.get("FLEXALIGN_TUNING_FILE")
    return Path(chosen).expanduser() if chosen else cache_folder() / "fft_sizes.json"


def candidates(n: int) -> List[int]:
    """Even sizes without a prime factor above 7, up to 10 % below n, closest first; the default if there is none."""
    sizes = range(n - n % 2, n - math.floor(n * MAX_FFT_SIZE_CHANGE) - 1, -2)
    return [size for size in sizes if is_fft_friendly(size)] or [fft_size_below(n)]


def time_transform(device: Device, ny: int, nx: int) -> float:
    """Seconds of the transform of one frame, which is how frames are transformed; the fastest of a few rounds.

    Raises DeviceOutOfMemory.
    """
    real = device.zeros((1, ny, nx), np.float32)
    spectrum = device.zeros((1, ny, nx // 2 + 1), np.complex64)
    device.rfft2(real, spectrum)  # the first call makes the plan
    device.synchronize()
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(REPEATS):
            device.rfft2(real, spectrum)
        device.synchronize()
        rounds.append(time.perf_counter() - start)
    return min(rounds) / REPEATS


class Tuner:
    """Sizes for the transforms of one device, searched when they are first needed.

    Parameters
    ----------
    device : where to measure. path : file of the results, `default_file()` when None.
    measure : function with the signature of `time_transform`.
    """

    def __init__(self, device: Device, path: Optional[Path] = None, measure: Measure = time_transform):
        self._device = device
        self._path = default_file() if path is None else Path(path)
        self._measure = measure
        self._known: Dict[str, Tuned] = {}

    def frame_size(self, ny: int, nx: int, frames: int) -> Size:
        """(ny, nx) of the part of a frame to transform, the same as long as this process lives.

        frames : of a movie; the search tells after how many movies it has paid off.
        """
        return self.tune(ny, nx, frames).size

    def tune(self, ny: int, nx: int, frames: int, again: bool = False) -> Tuned:
        """Fastest size for frames (ny, nx), from the file or from a search now.

        again : search even if a result is known.
        """
        key = self.key(ny, nx)
        if again or key not in self._known:
            with _locked(self._path):
                # Another process may have added the result while this one waited for the lock.
                tuned = None if again else read_file(self._path).get(key)
                if tuned is None:
                    tuned = self._search(ny, nx)
                    logger.info("%s", describe(key, tuned, frames))
                    if math.isfinite(tuned.default_seconds):
                        _add(self._path, key, tuned)
            self._known[key] = tuned
        return self._known[key]

    def key(self, ny: int, nx: int) -> str:
        """Device with its memory (or this process's limit, rounded down to a power of two), and size, as text.

        The memory that is free does not matter, because other processes change it.
        """
        model = re.sub(r" \(cuda:\d+\)$", "", self._device.name)
        gib = 2.0 ** math.floor(math.log2(self._device.total_bytes / 2**30))
        return f"{model} | {ny} x {nx} | {gib:g} GiB"

    def _search(self, ny: int, nx: int) -> Tuned:
        start = time.perf_counter()
        rows, columns = candidates(ny), candidates(nx)
        default = rows[0], columns[0]
        times: Dict[Size, float] = {}

        def cost(size: Size) -> float:
            if size not in times:
                times[size] = self._time(*size)
            return times[size] / (size[0] * size[1])

        def fastest(sizes: List[Size]) -> Size:
            limit = min(map(cost, sizes)) / (1 - WORTH)
            return next(size for size in sizes if cost(size) <= limit)

        best = fastest([(default[0], x) for x in columns])
        best = fastest([(y, best[1]) for y in rows])
        self._device.release_unused()
        if not math.isfinite(times[default]):  # it does not fit; the backend will report it
            best = default
        return Tuned(best, default, times[best], times[default], time.perf_counter() - start)

    def _time(self, ny: int, nx: int) -> float:
        """Seconds of a transform; infinite if it does not fit into memory."""
        try:
            return self._measure(self._device, ny, nx)
        except DeviceOutOfMemory:
            return math.inf


def describe(key: str, tuned: Tuned, transforms_per_movie: int) -> str:
    """Result of a search and number of movies after which it has paid for itself, in one sentence."""
    (ny, nx), (dy, dx) = tuned.size, tuned.default_size
    movies = tuned.movies_to_pay_back(transforms_per_movie)
    if movies is None:
        return f"{key}: {ny} x {nx} is the fastest size; the search took {tuned.search_seconds:.1f} s."
    return (
        f"{key}: {ny} x {nx} takes {1e3 * tuned.seconds:.3g} ms instead of {1e3 * tuned.default_seconds:.3g} ms of "
        f"{dy} x {dx}; the search took {tuned.search_seconds:.1f} s, which {movies} movies pay back."
    )


def tune(device: Device, shape: Tuple[int, int, int], path: Optional[Path] = None, again: bool = True) -> str:
    """Search the size for the frames of movies of `shape` (n, ny, nx) and describe the result (`flexalign tune`)."""
    n, ny, nx = shape
    tuner = Tuner(device, path)
    return describe(tuner.key(ny, nx), tuner.tune(ny, nx, n, again=again), n)


def read_file(path: Path) -> Dict[str, Tuned]:
    """All valid results of a file by key; none if it does not exist, is damaged or is of another kind."""
    content = _content(path)
    entries = content.get("sizes", {}) if content else {}
    results = {}
    for key, entry in entries.items() if isinstance(entries, dict) else ():
        tuned = _parse(key, entry)
        if tuned is not None:
            results[key] = tuned
    return results


def _content(path: Path) -> Dict[str, Any]:
    """A file's content; empty unless it is a file of FFT sizes."""
    try:
        content = read_json(str(path))
    except (OSError, ValueError):
        return {}
    ours = isinstance(content, dict) and (content.get("format"), content.get("version")) == (FORMAT, VERSION)
    return content if ours else {}


def _parse(key: str, entry: Any) -> Optional[Tuned]:
    """One entry of a file; None unless a search for this key can have given its size."""
    wanted = re.search(r"\| (\d+) x (\d+) \|", key)
    try:
        size, default = (tuple(int(n) for n in entry[name]) for name in ("size", "default_size"))
        times = [float(entry[name]) for name in ("seconds", "default_seconds", "search_seconds")]
    except (KeyError, TypeError, ValueError):
        return None
    if wanted is None or len(size) != 2 or len(default) != 2:
        return None
    for n, w in zip(size, wanted.groups()):
        # If there is no friendly size within 10 %, the default is only made even.
        if n % 2 or abs(n - int(w)) > MAX_FFT_SIZE_CHANGE * int(w) + 2:
            return None
    return Tuned((size[0], size[1]), (default[0], default[1]), *times)


def _add(path: Path, key: str, tuned: Tuned) -> None:
    """Add a result to the file, under the lock. If that fails, the result is lost and a warning logged."""
    entries = {**read_file(path), key: tuned}
    content = {"format": FORMAT, "version": VERSION, "sizes": {k: asdict(t) for k, t in sorted(entries.items())}}
    try:
        if path.exists() and not _content(path):
            aside = path.with_name(path.name + ".old")
            os.replace(path, aside)
            logger.warning("%s is damaged or no file of FFT sizes: it is now %s and a new one is begun.", path, aside)
        with atomic_path(str(path)) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
    except (OSError, OutputError) as error:
        logger.warning("FFT sizes are searched for again next time, since they can't be stored: %s", error)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock out other processes, also so that searches do not disturb each other's times."""
    lock: Any = contextlib.nullcontext()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_name(path.name + ".lock"), "a")
        fcntl.flock(lock, fcntl.LOCK_EX)  # free again when the file is closed or the process ends
    except OSError as error:
        logger.warning("%s can't be locked (%s): searching for FFT sizes without.", path, error)
    with lock:
        yield
