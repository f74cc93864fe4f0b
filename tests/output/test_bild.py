"""The cones of the distribution of views."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.output.bild import INNER, LONGEST, write_directions
from flexalign_plugin.particles.poses import matrices


def test_cones_point_where_the_particles_were_seen_from(tmp_path):
    rng = np.random.default_rng(0)
    poses = matrices(40 + rng.normal(0, 1, 900), 70 + rng.normal(0, 1, 900), rng.uniform(0, 360, 900))
    write_directions(str(tmp_path / "a.bild"), poses, 50.0)
    lines = (tmp_path / "a.bild").read_text().splitlines()
    cones = np.array([line.split()[1:] for line in lines if line.startswith(".cone")], float)
    assert {line.split()[0] for line in lines} == {".comment", ".color", ".cone"}
    bases, tips = cones[:, :3], cones[:, 3:6]
    np.testing.assert_allclose(np.linalg.norm(bases, axis=1), 50 * INNER, atol=0.02)
    lengths = np.linalg.norm(tips - bases, axis=1)
    assert lengths.max() == pytest.approx(50 * LONGEST, abs=0.02)
    view = matrices(40, 70, 0)[0, 2]
    angle = np.degrees(np.arccos(bases @ view / np.linalg.norm(bases, axis=1)))
    # The caps hold 25 of 900 particles if these are spread evenly, which is 19 degrees.
    assert angle.max() < 19.1 + 5 and angle[np.argmax(lengths)] < 19.1
    assert (
        np.linalg.norm(
            np.average(bases, axis=0, weights=lengths) / np.linalg.norm(np.average(bases, axis=0, weights=lengths))
            - view
        )
        < 0.03
    )
