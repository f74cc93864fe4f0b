"""What people look at in Scipion."""

# Scipion takes viewers in the order of these names; pwem's AMDViewer would come first.
from .tables import AlignedSetViewer as AAlignedSetViewer
from .viewer_flexalign import FlexAlignViewer

__all__ = ["AAlignedSetViewer", "FlexAlignViewer"]
