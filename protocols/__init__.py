"""The protocols for Scipion. The one for tilt series is available if scipion-em-tomo is installed."""

import logging

from .protocol_flexalign import ProtFlexAlign
from .protocol_swift_align import ProtSwiftAlign
from .protocol_swift_consensus import ProtSwiftConsensus

__all__ = ["ProtFlexAlign", "ProtSwiftAlign", "ProtSwiftConsensus"]

try:
    from .protocol_tilt_series import ProtFlexAlignTiltSeries

    __all__ += ["ProtFlexAlignTiltSeries"]
except ImportError as error:
    if error.name != "tomo":  # tomo is installed, but can't be imported
        logging.getLogger(__name__).warning("There is no protocol FlexAlign tilt series: %s", error)
