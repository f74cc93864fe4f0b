from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.band import Band, fft_size_above, fft_size_below
from flexalign_plugin.motion.lowpass import correlation_band, lowpass, unusable


@pytest.mark.parametrize("n", [4096, 3838, 3710, 5760, 4092, 7676, 7420, 11520, 8184, 512, 97])
def test_fft_sizes_are_even_smooth_and_near(n):
    below, above = fft_size_below(n), fft_size_above(n)
    for size in (below, above):
        rest = size
        for p in (2, 3, 5, 7):
            while rest % p == 0:
                rest //= p
        assert size % 2 == 0 and (rest == 1 or size == n - n % 2)
    assert 0.9 * n < below <= n <= above < 1.25 * n


def test_band_of_the_published_example():
    """30 A at 1 A/px: the correlation image has pixels of 4.415 A, 928 for a frame of 4096, up to 10 % more."""
    band = correlation_band((4096, 4096), 1.0, 30.0)
    assert 928 <= band.size[0] <= 1.1 * 928
    np.testing.assert_allclose(band.scale * band.size, 4096)


def test_each_axis_has_its_own_exact_scale():
    band = correlation_band((3750, 3840), 1.0, 30.0)
    np.testing.assert_allclose(band.scale, [3750 / band.size[0], 3840 / band.size[1]])


def test_band_never_exceeds_the_image():
    assert correlation_band((300, 200), 5.0, 12.0).size == (300, 200)


def test_lowpass_is_half_at_its_resolution():
    band = Band((1000, 1000), (1000, 1000))
    w = lowpass(band, 1.0, 25.0)  # 25 A = 40 cycles in 1000 px, here in the direction (3, 4) / 5
    assert abs(w[24, 32] - 0.5) < 1e-6


def test_what_the_alignment_must_not_use():
    out = unusable(Band((64, 64), (32, 32)))
    assert out[0].all() and out[:, 0].all() and out[16].all() and out[:, -1].all() and out.sum() == 2 * 17 + 2 * 32 - 4
    assert unusable(Band((64, 64), (32, 32)), axes=True)[0, 1:16].sum() == 0
    assert unusable(Band((64, 64), (32, 32)), axes=True)[0, 0]
