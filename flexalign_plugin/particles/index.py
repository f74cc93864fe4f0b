"""The coarse search through a FAISS index, for galleries that are too large for scoring every reference.

The index proposes references whose vector has the direction of the query's (cosine); these are then scored like in
`search`. What would go wrong otherwise, and is avoided here:

- FAISS centres the data before a principal component analysis of its own, which spoils scalar products: it gets the
  gallery's shortened vectors, and no analysis is left to it.
- Cells of an inverted file are poor for scalar products of vectors of unequal length: all have length 1 here.
- Half precision overflows on the rings' power: the rings are not in the index.
- Only one cell is searched by default: their number is set here.
- FAISS uses all cores: it gets one thread; the threads are ours.
"""

from __future__ import annotations

import faiss
import numpy as np

from .gallery import Gallery
from .search import Candidates, Search

CELLS_PER_ROOT = 4  # cells of the index, in units of the square root of the number of references
CELLS_SEARCHED = 8
PROPOSED = 24  # references for each particle and shift
VECTORS_PER_CELL = 40  # at least, to train the cells with
MOST_TRAINED = 256_000
SEED = 1234  # of the training: FAISS's own


class Index(Search):
    """As `Search`, with the same results where the index proposes the best references."""

    def __init__(self, gallery: Gallery, shifts_px: np.ndarray) -> None:
        super().__init__(gallery, shifts_px)
        self._d = gallery.axes.shape[1]
        vectors = _directions(gallery.vectors[:, : self._d])
        cells = max(min(round(CELLS_PER_ROOT * len(vectors) ** 0.5), len(vectors) // VECTORS_PER_CELL), 1)
        faiss.omp_set_num_threads(1)
        self.index = faiss.IndexIVFFlat(faiss.IndexFlatIP(self._d), self._d, cells, faiss.METRIC_INNER_PRODUCT)
        self.index.cp.seed = SEED
        step = -(-len(vectors) // MOST_TRAINED)
        self.index.train(vectors[::step])
        self.index.add(vectors)
        self.index.nprobe = min(CELLS_SEARCHED, cells)

    def candidates(self, products: np.ndarray, c2_over_sigma2: np.ndarray, places: np.ndarray) -> Candidates:
        """The best of the references that the index proposes; as `Search.candidates`."""
        faiss.omp_set_num_threads(1)  # counts for the thread that calls
        found = Candidates.none(len(products))
        for i in range(len(products)):
            queries = self.gallery.queries(products[i] * self._phases[None], c2_over_sigma2[i : i + 1])[0]
            _, proposed = self.index.search(_directions(queries[:, : self._d]), PROPOSED)
            shift, reference = np.repeat(np.arange(len(queries)), PROPOSED), proposed.ravel()
            exists = reference >= 0
            shift, reference = shift[exists], reference[exists]
            score = np.einsum("nd,nd->n", queries[shift], self.gallery.vectors[reference])
            self.best_of_list(reference, shift, score, found, i)
        return found


def _directions(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(length, 1e-20), np.float32)
