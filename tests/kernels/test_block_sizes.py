"""Block sizes are defined once and reach every kernel through the compiler's options."""

from __future__ import annotations

import re

from flexalign_plugin.kernels import block_sizes, cubins

from ..emulation.compiler import KERNELS


def test_kernels_use_all_block_sizes_and_define_none():
    options = block_sizes.compiler_options()
    assert "-DTHREADS=128" in options and set(options) <= set(cubins.OPTIONS)
    names = {option[2:].split("=")[0] for option in options}
    source = "\n".join(path.read_text() for path in sorted(KERNELS.glob("*.cu*")))
    code = re.sub(r"//.*", "", source)
    assert names <= set(re.findall(r"\w+", code))
    assert not names & set(re.findall(r"#\s*define\s+(\w+)", code))
