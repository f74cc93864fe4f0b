"""What people look at in Scipion."""

from .viewer_flexalign import FlexAlignViewer

__all__ = ["FlexAlignViewer"]
