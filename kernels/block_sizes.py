"""Block sizes of the CUDA kernels: the numbers that a launch in Python and its kernel must agree on.

This is the only place where they are defined. Python computes grids with them; every compiler of the kernels gets them
as macros of the same names (`compiler_options`), so that the `*.cu` files contain no such number.
"""

from __future__ import annotations

from typing import Tuple

THREADS = 128  # per block, for kernels that are not listed below
PIXEL_THREADS = 256  # per block, for kernels that process the pixels of an image: correct.cu, sum_raw.cu, taper
LANES = 32  # threads along x of two-dimensional blocks
# sum_raw.cu
SUM_PIXELS = 4096  # per block
# warp.cu: blocks of (LANES, WARP_ROWS) threads
WARP_ROWS = 8  # per block
WARP_SUMS = 4  # most sums in one launch
# correlate.cu, transform_rows: blocks of (LANES, OFFSET_THREADS) threads
OFFSET_THREADS = 8  # each handles 1, 2 or 4 offsets of 1 or 2 columns
# correlate.cu, transform_columns: blocks of (LANES, WINDOW_ROW_THREADS) threads and LANES offsets
WINDOW_ROWS = 16  # per block
WINDOW_ROW_THREADS = 4
# peaks.cu, refine_peaks; few, because each needs 200 bytes of shared memory
REFINE_THREADS = 64
# aligned.cu
SLOPE_ROWS = 64  # of a spectrum, per block
PRODUCT_FRAMES = 16  # along both sides of a block of pairs; also the coefficients between two barriers
# objective.cu, sum_terms
TERM_THREADS = 64


def compiler_options() -> Tuple[str, ...]:
    """All constants of this module as options -DNAME=value, in alphabetical order."""
    return tuple(f"-D{name}={value}" for name, value in sorted(globals().items()) if name.isupper())
