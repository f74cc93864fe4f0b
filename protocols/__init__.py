"""What Scipion runs."""

from .protocol_flexalign import ProtFlexAlign

__all__ = ["ProtFlexAlign"]
