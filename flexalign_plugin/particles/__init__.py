"""Particle images: their orientation, shift and volume, found by comparing them with projections of the volume.

Arrays in, arrays out; only `io_star` and `io_stack` read and write files. The conventions are in `poses`.
"""
