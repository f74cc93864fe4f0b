"""LZW against imagecodecs' encoder, and on damaged strips, which must neither crash nor write beyond the end."""

import imagecodecs
import numpy as np
import pytest

from flexalign_plugin.movies.lzw import lzw_decode


def encoded(data):
    return np.frombuffer(imagecodecs.lzw_encode(data.tobytes()), np.uint8)


@pytest.mark.parametrize("n_values, n", [(1, 1), (1, 100_000), (2, 200_000), (4, 3000), (100, 3000), (256, 100_000)])
def test_decodes_what_was_encoded(n_values, n):
    data = np.random.default_rng(0).integers(0, n_values, n).astype("u1")
    out = np.empty(n, np.uint8)
    assert lzw_decode(encoded(data), out) == n
    np.testing.assert_array_equal(out, data)
    guarded = np.full(n + 64, 77, np.uint8)
    assert lzw_decode(encoded(data), guarded[: n + 9]) == n  # the strip ends early
    np.testing.assert_array_equal(guarded[:n], data)
    assert (guarded[n + 9 :] == 77).all()


def test_damaged_strips_give_fewer_bytes_at_worst():
    rng = np.random.default_rng(0)
    good = encoded(rng.integers(0, 50, 3000).astype("u1"))
    for _ in range(3000):
        bad = good[: rng.integers(1, len(good))].copy()
        bad[rng.integers(0, len(bad), 3)] = rng.integers(0, 256, 3)
        guarded = np.full(3000 + 64, 77, np.uint8)
        assert 0 <= lzw_decode(bad, guarded[:3000]) <= 3000
        assert (guarded[3000:] == 77).all()
