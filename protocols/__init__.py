"""What Scipion runs. The protocol for tilt series is there where scipion-em-tomo is."""

import logging

from .protocol_flexalign import ProtFlexAlign

__all__ = ["ProtFlexAlign"]

try:
    from .protocol_tilt_series import ProtFlexAlignTiltSeries

    __all__ += ["ProtFlexAlignTiltSeries"]
except ImportError as error:
    if error.name != "tomo":  # it is installed, yet can't be used
        logging.getLogger(__name__).warning("There is no protocol FlexAlign tilt series: %s", error)
