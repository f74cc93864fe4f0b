"""From a list of movies, or a tilt series, to a folder of results."""
