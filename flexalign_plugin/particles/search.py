"""The coarse search: every reference at every shift, scored by matrix products, and the best few of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..jit import njit
from .gallery import Gallery, shift_phases

FEWEST, MOST = 4, 24  # candidates of a particle
GAP_NATS = 60.0  # a candidate's score may be this much below the best one
APART = 1.05  # steps of the grid between two candidates
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

    def candidates(
        self, products: np.ndarray, c2_over_sigma2: np.ndarray, gap_nats: float = GAP_NATS, fewest: int = FEWEST
    ) -> Candidates:
        """The best references of n images; arguments as for `scores`.

        The images are scored in blocks of a fixed size, so that the scores of an image do not depend on the others.
        """
        n, m = products.shape
        count = np.zeros(n, np.int32)
        reference, shift = np.zeros((n, MOST), np.int32), np.zeros((n, MOST), np.int32)
        score = np.full((n, MOST), -np.inf, np.float32)
        least_trace = np.float32(1 + 2 * np.cos(APART * self.gallery.step_rad))
        for start in range(0, n, BLOCK):
            part = slice(start, min(start + BLOCK, n))
            own = part.stop - part.start
            q, b = np.zeros((BLOCK, m), np.complex64), np.zeros((BLOCK, m), np.float32)
            q[:own], b[:own] = products[part], c2_over_sigma2[part]
            scores = self.scores(q, b)
            for i in range(own):
                count[start + i] = _best(
                    scores[i],
                    self._poses,
                    self.gallery.volume,
                    least_trace,
                    np.float32(gap_nats),
                    fewest,
                    reference[start + i],
                    shift[start + i],
                    score[start + i],
                )
        return Candidates(count, reference, shift, score)


@_jit
def _best(scores, poses, volume, least_trace, gap, fewest, reference, shift, score):
    """Greedy choice of the best references, none near a better one of the same volume; returns their number."""
    n_shifts, n_references = scores.shape
    best = scores[0].copy()
    where = np.zeros(n_references, np.int32)
    for s in range(1, n_shifts):
        for r in range(n_references):
            if scores[s, r] > best[r]:
                best[r] = scores[s, r]
                where[r] = s
    found = 0
    while found < len(reference):
        top = 0
        for r in range(1, n_references):
            if best[r] > best[top]:
                top = r
        value = best[top]
        if value == -np.inf or (found >= fewest and value < score[0] - gap):
            break
        reference[found], shift[found], score[found] = top, where[top], value
        found += 1
        a = poses[top]
        for r in range(n_references):
            if best[r] > -np.inf and volume[r] == volume[top]:
                b = poses[r]
                trace = np.float32(0)
                for i in range(3):
                    for j in range(3):
                        trace += a[i, j] * b[i, j]
                if trace >= least_trace:
                    best[r] = -np.inf
    return found
