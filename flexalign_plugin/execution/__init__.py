"""Runs the alignment of single movies: in this process, in one worker process per device, or in queue jobs."""
