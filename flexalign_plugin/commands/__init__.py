"""The subcommands of `flexalign`, one module each: `add(commands)` adds its parser and the function that runs it.

Large modules are imported only when a command runs, so that `--help` is fast.
"""

from . import align, batch, gain, info, particles, phantom, report, tilt_series, trace, tune, xmipp_workflow

COMMANDS = (align, tilt_series, particles, report, trace, gain, phantom, tune, xmipp_workflow, batch, info)
