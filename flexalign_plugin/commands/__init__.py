"""The subcommands of `flexalign`, one module each: `add(commands)` adds its parser and the function that runs it.

Large modules are imported only when a command runs, so that `--help` is fast.
"""

from . import align, batch, gain, info, particles, phantom, report, sum, tilt_series, trace, tune, watch, xmipp_workflow

COMMANDS = (align, watch, sum, tilt_series, particles, report, trace, gain, phantom, tune, xmipp_workflow, batch, info)
