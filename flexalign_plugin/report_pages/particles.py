"""The report of a run of particles: one HTML file with pictures, which loads nothing else and needs no scripts."""

from __future__ import annotations

import base64
import io
import time
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import List, Mapping, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from .. import __version__
from ..files import atomic_path, output_error
from ..inputs import printable
from ..output import particle_plots as plots
from ..particles.results import matrices_of

SURE = 0.9
SHOWN_FAILURES = 20
REFRESH_S = 60
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class ParticleRun:
    """What the report shows.

    Attributes
    ----------
    title : of the page. found : (n,) `results.DTYPE`; particles that were not aligned are left out.
    pixel_A : pixel size of the images. diameter_A : of the particle. volumes : their names.
    scales : {optics group: factor from the volumes to its images}. group : (g, 3, 3) symmetry, None: none.
    failures : (image, reason) of particles that could not be aligned. settings : of the run.
    examples : picture of the best and the worst particles. running : whether the run goes on.
    """

    title: str
    found: np.ndarray
    pixel_A: float
    diameter_A: float
    volumes: Sequence[str]
    scales: Mapping[str, float]
    group: Optional[np.ndarray] = None
    failures: Sequence[Tuple[str, str]] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    examples: Optional[np.ndarray] = None
    running: bool = False


def write_particle_report(path: str, run: ParticleRun) -> None:
    """Write the report. Raises OutputError."""
    page = (_HERE / "particle_page.html").read_text(encoding="utf-8")
    parts = {
        "style.css": (_HERE / "style.css").read_text(encoding="utf-8"),
        "refresh": f'<meta http-equiv="refresh" content="{REFRESH_S}">\n' if run.running else "",
        "version": __version__,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "title": escape(printable(run.title)),
        "body": _body(run),
    }
    for name, text in parts.items():
        page = page.replace(f"@{name}@", text)
    try:
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(page)
    except OSError as error:
        raise output_error(path, error) from error


def _body(run: ParticleRun) -> str:
    good = run.found[run.found["aligned"]]
    parts = ['<p class="soft">This run is going on: the page reloads every minute.</p>'] if run.running else []
    parts.append(_tiles(run, good))
    if len(good):
        score, posterior = good["score"].astype(float), good["posterior"].astype(float)
        errors = plots.histograms(score, good["angle_sd"], good["shift_sd"], run.pixel_A)
        cards = [
            _card("Directions of view", _picture(plots.pixels(plots.directions(matrices_of(good), run.group))), "wide"),
            _card("Scores and predicted errors", _picture(plots.pixels(errors)), "wide"),
            _card(
                "How sure the orientations are", _picture(plots.pixels(plots.posterior_against_score(score, posterior)))
            ),
        ]
        facts = [_facts(run)]
        if len(run.volumes) > 1:
            facts.insert(0, _volumes(run, good))
        cards.append(f'<div class="stack">{"".join(facts)}</div>')
        if run.examples is not None:
            cards.append(_card("Particles above their projections", _picture(run.examples), "wide"))
        parts.append(f'<div class="grid">{"".join(cards)}</div>')
    parts.append(_failures(run))
    return "\n".join(parts)


def _tiles(run: ParticleRun, good: np.ndarray) -> str:
    tiles: List[Tuple[str, str, str]] = [(f"{len(good):,}", "particles aligned", "")]
    if run.failures:
        tiles.append((f"{len(run.failures):,}", "failed", "alarm"))
    if len(good):
        shift_A = float(np.median(good["shift_sd"])) * run.pixel_A
        sure = 100 * float((good["posterior"] >= SURE).mean())
        tiles += [
            (f"{np.median(good['angle_sd']):.1f}°", "predicted error of the angle (median)", ""),
            (f"{shift_A:.2f} Å", "predicted error of the shift (median)", ""),
            (
                f"{sure:.0f} %",
                f"have an orientation of probability {SURE} or more",
                "",
            ),
        ]
    shown = "".join(
        f'<div class="tile {kind}"><b>{value}</b><span>{label}</span></div>' for value, label, kind in tiles
    )
    return f'<div class="tiles">{shown}</div>'


def _facts(run: ParticleRun) -> str:
    rows = [("diameter of the particle", f"{run.diameter_A:.0f} Å"), ("pixel size", f"{run.pixel_A:.4g} Å")]
    if len(run.volumes) == 1:
        rows.append(("volume", run.volumes[0]))
    for name, scale in run.scales.items():
        inverted = ", contrast inverted" if scale < 0 else ""
        rows.append((f"scale of {name}", f"{abs(scale):.3g}{inverted}"))
    rows += [(name.replace("_", " "), str(value)) for name, value in run.settings.items()]
    return _card("The run", _table([], rows))


def _volumes(run: ParticleRun, good: np.ndarray) -> str:
    rows = []
    for number, name in enumerate(run.volumes, 1):
        own = good[good["volume"] == number]
        sure = f"{own['class_posterior'].mean():.2f}" if len(own) else ""
        rows.append((name, f"{len(own):,}", f"{100 * len(own) / len(good):.1f} %", sure))
    return _card("Volumes", _table(["volume", "particles", "share", "mean probability"], rows))


def _failures(run: ParticleRun) -> str:
    if not run.failures:
        return ""
    rows = list(run.failures[:SHOWN_FAILURES])
    left = len(run.failures) - len(rows)
    more = f'<p class="soft">and {left:,} more, all in failed.tsv</p>' if left else ""
    card = _card(f"{len(run.failures):,} particles failed", _table(["image", "reason"], rows) + more, "wide")
    return f'<div class="grid">{card}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join(
        f"<tr>{''.join(f'<td class=reason>{escape(printable(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="scroll"><table>{f"<tr>{first}</tr>" if head else ""}{lines}</table></div>'


def _card(title: str, content: str, kind: str = "") -> str:
    return f'<section class="card {kind}"><h2>{title}</h2>{content}</section>'


def _picture(pixels: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    url = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")
    return f'<div class="chart"><img alt="" src="{url}"></div>'
