"""Tests, one file for each module; the tree mirrors the repository's."""
