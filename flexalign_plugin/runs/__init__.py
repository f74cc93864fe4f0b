"""Aligns a list of movies, or a tilt series, and writes the results to a folder."""
