"""Two watchers share a folder while movies arrive and watchers are killed: is each movie aligned once and right?

    python benchmarks/watchers.py --movies 200 --kills 10      about 5 minutes

Movies appear one after the other, and now and then one of the watchers is killed with SIGKILL and started again. At the
end the number of movies that were aligned more than once, and of micrographs whose bytes differ from those of one
undisturbed `flexalign align`, must be 0.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import List

PHANTOM = "phantom --size 192 160 --frames 4 --pixel-size 4 --dose 4 --drift 4 --local 1 --name m --seed 1".split()
ALIGN = "--pixel-size 4 --no-do-plots --no-do-compute-psd --no-do-local-alignment --workers 1 --threads 1".split()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movies", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="watchers-") as name:
        home = Path(name)
        _flexalign(*PHANTOM, "--movies", str(args.movies), "--output", str(home / "made"))
        movies = sorted((home / "made").glob("m_*.mrc"))
        _flexalign("align", *map(str, movies), "--output", str(home / "alone"), "--no-report", *ALIGN)
        data, shared = home / "data", home / "shared"
        data.mkdir()
        logs = [open(home / f"log{i}", "a", encoding="utf-8") for i in range(2)]
        began = time.monotonic()
        watchers = [_start(data, shared, log) for log in logs]
        kills = sorted(chance.sample(range(1, len(movies)), args.kills))
        for number, movie in enumerate(movies):
            os.link(movie, data / movie.name)
            time.sleep(chance.uniform(0, 0.4))
            if number in kills:
                which = chance.randrange(2)
                watchers[which].send_signal(signal.SIGKILL)
                watchers[which].wait()
                watchers[which] = _start(data, shared, logs[which])
        ends = [watcher.wait() for watcher in watchers]
        seconds = time.monotonic() - began
        for log in logs:
            log.close()
        done = Counter(
            os.path.basename(line.split()[1].rstrip(":"))
            for i in range(2)
            for line in (home / f"log{i}").read_text().splitlines()
            if line.startswith("[") and "moved" in line
        )
        twice = sum(n > 1 for n in done.values())
        wrong = _hashes(home / "alone").items() ^ _hashes(shared).items()
    print(f"{len(movies)} movies, 2 watchers, {args.kills} kills, {seconds:.0f} s; exit statuses {ends}")
    print(f"reported more than once: {twice}; micrographs missing or different: {len(wrong)}")
    return 1 if twice or wrong or any(ends) else 0


def _flexalign(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "flexalign_plugin", *words], check=True, stdout=subprocess.DEVNULL)


def _start(data: Path, output: Path, log) -> subprocess.Popen:  # type: ignore[no-untyped-def, type-arg]
    words: List[str] = ["watch", str(data), "--output", str(output), "--settle", "0.5", "--idle", "0.2", "--no-report"]
    return subprocess.Popen([sys.executable, "-m", "flexalign_plugin", *words, *ALIGN], stdout=log, stderr=log)


def _hashes(folder: Path) -> dict:  # type: ignore[type-arg]
    return {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in folder.glob("*_aligned_mic.mrc")}


if __name__ == "__main__":
    sys.exit(main())
