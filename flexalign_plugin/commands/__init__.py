"""The commands of `flexalign`, one module each: `add(commands)` gives it its parser and the function that runs it.

Nothing heavy is imported before it is known what to do, so that `--help` answers at once.
"""

from . import align, batch, gain, info, phantom, report, tilt_series, trace, tune

COMMANDS = (align, tilt_series, report, trace, gain, phantom, tune, batch, info)
