"""The coarse search: every reference at every shift, scored by matrix products, and the best few of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..jit import njit
from .gallery import Gallery, shift_phases

FEWEST, MOST = 4, 48  # candidates of a particle
GAP_NATS, GAP_SHARE = 10.0, 0.4  # a candidate may be this much, and this share of the best score, below the best one
APART = 1.05  # steps of the grid between two candidates
BINS = 512  # that the scores are sorted into
BLOCK = 8  # particles scored at once: the products of this many have a size that BLAS is fast for

_jit = njit(nogil=True, error_model="numpy")


@dataclass(frozen=True)
class Candidates:
    """The best references of n particles, best first.

    Attributes
    ----------
    count : (n,) int32 candidates of each particle. reference : (n, MOST) int32. shift : (n, MOST) int32 number of the
    shift. score : (n, MOST) float32, in nats.
    """

    count: np.ndarray
    reference: np.ndarray
    shift: np.ndarray
    score: np.ndarray

    @classmethod
    def none(cls, n: int) -> Candidates:
        """Of n particles, none yet."""
        shape = n, MOST
        numbers = np.zeros(n, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        return cls(*numbers, np.full(shape, -np.inf, np.float32))


class Search:
    """Scores images against a gallery, at a set of shifts."""

    def __init__(self, gallery: Gallery, shifts_px: np.ndarray) -> None:
        """
        Parameters
        ----------
        shifts_px : (S, 2) positions (x, y) at which the particle is looked for.
        """
        self.gallery, self.shifts_px = gallery, shifts_px
        self._phases = shift_phases(gallery.band, shifts_px)
        self._transposed = np.ascontiguousarray(gallery.vectors.T)
        self._poses = np.ascontiguousarray(gallery.poses, np.float32)
        self._least_trace = np.float32(1 + 2 * np.cos(APART * gallery.step_rad))

    def scores(self, products: np.ndarray, c2_over_sigma2: np.ndarray) -> np.ndarray:
        """All scores of n images.

        Parameters
        ----------
        products : (n, m) complex64 C F / sigma2. c2_over_sigma2 : (n, m) float32.

        Returns
        -------
        (n, S, M) float32, in nats.
        """
        queries = self.gallery.queries(products[:, None, :] * self._phases[None], c2_over_sigma2)
        n, s, d = queries.shape
        return (queries.reshape(n * s, d) @ self._transposed).reshape(n, s, -1)

    def candidates(self, products: np.ndarray, c2_over_sigma2: np.ndarray, places: np.ndarray) -> Candidates:
        """The best references of n images; arguments as for `scores`.

        The images are scored in blocks, each at a fixed place in its block: the rounding of a matrix product depends on
        the row. So the candidates of an image never depend on the other images.

        Parameters
        ----------
        places : (n,) number of each image among all of the particles, ascending.
        """
        n, m = products.shape
        found = Candidates.none(n)
        for block in np.split(np.arange(n), np.flatnonzero(np.diff(places // BLOCK)) + 1):
            q, b = np.zeros((BLOCK, m), np.complex64), np.zeros((BLOCK, m), np.float32)
            q[places[block] % BLOCK], b[places[block] % BLOCK] = products[block], c2_over_sigma2[block]
            scores = self.scores(q, b)
            for i in block:
                found.count[i] = _best(
                    scores[places[i] % BLOCK],
                    self._poses,
                    self.gallery.volume,
                    self._least_trace,
                    np.float32(GAP_NATS),
                    np.float32(GAP_SHARE),
                    FEWEST,
                    found.reference[i],
                    found.shift[i],
                    found.score[i],
                )
        return found

    def best_of_list(
        self, reference: np.ndarray, shift: np.ndarray, score: np.ndarray, found: Candidates, i: int
    ) -> None:
        """Choose the candidates of image `i` from a list of references with their shifts and scores."""
        order = np.argsort(-score, kind="stable")
        chosen = reference[order].astype(np.int32), shift[order].astype(np.int32), score[order].astype(np.float32)
        rules = self._least_trace, np.float32(GAP_NATS), np.float32(GAP_SHARE), FEWEST
        places = found.reference[i], found.shift[i], found.score[i]
        found.count[i] = _best_of_list(*chosen, self._poses, self.gallery.volume, *rules, *places)


@_jit
def _near(r, poses, volume, least_trace, reference, found):
    """Whether a reference is near one of those that were chosen."""
    for k in range(found):
        other = reference[k]
        if volume[other] == volume[r]:
            trace = np.float32(0)
            for p in range(3):
                for q in range(3):
                    trace += poses[r, p, q] * poses[other, p, q]
            if trace >= least_trace:
                return True
    return False


@_jit
def _best(scores, poses, volume, least_trace, gap, gap_share, fewest, reference, shift, score):
    """Greedy choice of the best references, none near a better one of the same volume; returns their number."""
    n_shifts, n_references = scores.shape
    best = scores[0].copy()
    for s in range(1, n_shifts):
        for r in range(n_references):
            best[r] = scores[s, r] if scores[s, r] > best[r] else best[r]
    top, bottom = best.max(), best.min()
    lowest = top - (gap + gap_share * max(top, np.float32(0)))
    # Sorted into bins, of which only the first few are then sorted themselves.
    per_nat = np.float32(BINS - 1) / max(top - bottom, np.float32(1e-6))
    ends, order = np.zeros(BINS + 1, np.int32), np.empty(n_references, np.int32)
    for r in range(n_references):
        ends[int((top - best[r]) * per_nat) + 1] += 1
    for i in range(BINS):
        ends[i + 1] += ends[i]
    for r in range(n_references):
        i = int((top - best[r]) * per_nat)
        order[ends[i]] = r
        ends[i] += 1  # from the start of the bin to its end
    found = start = 0
    for i in range(BINS):
        members = order[start : ends[i]]
        start = ends[i]
        for r in members[np.argsort(-best[members], kind="mergesort")]:
            value = best[r]
            if found == len(reference) or (found >= fewest and value < lowest):
                return found
            if not _near(r, poses, volume, least_trace, reference, found):
                reference[found], score[found] = r, value
                for s in range(n_shifts):
                    if scores[s, r] == value:
                        shift[found] = s
                        break
                found += 1
    return found


@_jit
def _best_of_list(
    references, shifts, scores, poses, volume, least_trace, gap, gap_share, fewest, reference, shift, score
):
    """As `_best`, from references that are sorted by score, best first."""
    found = 0
    for i in range(len(references)):
        lowest = scores[0] - (gap + gap_share * max(scores[0], np.float32(0)))
        if found == len(reference) or (found >= fewest and scores[i] < lowest):
            break
        if not _near(references[i], poses, volume, least_trace, reference, found):
            reference[found], shift[found], score[found] = references[i], shifts[i], scores[i]
            found += 1
    return found
