"""The viewers for Scipion."""

# Scipion uses the viewers in the order of these names. Without the leading A, pwem's AMDViewer would come first.
from .tables import AlignedSetViewer as AAlignedSetViewer
from .viewer_flexalign import FlexAlignViewer
from .viewer_particles import SwiftAlignViewer, SwiftConsensusViewer

__all__ = ["AAlignedSetViewer", "FlexAlignViewer", "SwiftAlignViewer", "SwiftConsensusViewer"]
