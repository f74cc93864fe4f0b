"""The search and whole alignments of simulated particles, whose poses are known."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_info

from flexalign_plugin.particles import align, poses, simulate, sphere, symmetry
from flexalign_plugin.particles.band import Band
from flexalign_plugin.particles.ctf import Optics, ctf
from flexalign_plugin.particles.gallery import Gallery, shift_grid, shift_phases
from flexalign_plugin.particles.search import APART, Search
from flexalign_plugin.particles.slices import Spectrum

BOX, PIXEL_A, DIAMETER_A, RESOLUTION_A = 48, 4.0, 130.0, 15.0
OPTICS = Optics(PIXEL_A, 300.0, 2.7, 0.1)
MAX_SHIFT_PX = 4.0


@pytest.fixture(scope="module")
def volume():
    return simulate.chains(BOX, PIXEL_A, DIAMETER_A, 2500, seed=11)


def particles_of(simulated, **changed):
    n = len(simulated.images)
    values = dict(
        box=BOX,
        pixel_A=PIXEL_A,
        optics=[OPTICS],
        group=np.zeros(n, int),
        defocus=simulated.defocus,
        read=lambda rows: simulated.images[rows],
    )
    return align.Particles(**{**values, **changed})


def options(**changed):
    values = dict(max_resolution_A=RESOLUTION_A, diameter_A=DIAMETER_A, max_shift_A=MAX_SHIFT_PX * PIXEL_A)
    return align.Options(**{**values, **changed})


def simulated(volume, n, snr_dB, seed, **more):
    return simulate.simulate(
        np.atleast_1d(volume) if volume.ndim == 4 else volume[None],
        n,
        OPTICS,
        10 ** (snr_dB / 10),
        1.5,
        seed,
        max_shift_px=MAX_SHIFT_PX,
        **more,
    )


def test_one_product_is_the_likelihood(volume):
    """q . a - 1/2 b . P equals the double sum over coefficients, but for the CTF's spread within a ring."""
    band = Band.of(BOX, BOX * PIXEL_A / 24)
    spectrum = Spectrum.of(volume, band.radius)
    data = simulated(volume, 6, -10, seed=1, astigmatism_A=0.0)
    f, c = band.coefficients(data.images), ctf(band.kx, band.ky, BOX, OPTICS, data.defocus)
    inverse = np.full(c.shape, 2 / (data.noise_sd**2 * BOX**2), np.float32)
    gallery = Gallery.of([spectrum], band, np.radians(25), (c**2 * inverse).mean(axis=0), n_axes=2 * len(band))
    shifts = shift_grid(3.0, 1.5)
    scores = Search(gallery, shifts).scores(f * c * inverse, c**2 * inverse)
    assert scores.shape == (6, len(shifts), len(gallery.poses))
    slices = spectrum.slices(gallery.poses, band.kx, band.ky)
    for i in range(6):
        for s in (0, len(shifts) // 2, len(shifts) - 1):
            g = slices * (c[i] * shift_phases(band, -shifts[s : s + 1])[0])
            exact = ((np.real(f[i] * g.conj()) - np.abs(g) ** 2 / 2) * inverse[i]).sum(axis=1)
            # Nats, from the spread of the CTF within rings of half a pixel; the scores themselves spread by tens.
            assert (scores[i, s] - exact).std() < 1.0


def test_candidates_are_apart_and_hold_the_truth(volume):
    data = simulated(volume, 40, -6, seed=2)
    found = align.Alignment(particles_of(data), [volume], options())
    f = found._band.coefficients(data.images)
    c, inverse = (array[:, : found._counts[0]] for array in found._ctf_and_weight(np.arange(40)))
    candidates = found._search.candidates(f[:, : found._counts[0]] * c * inverse, c**2 * inverse, np.arange(40))
    step_deg = np.degrees(found.gallery.step_rad)
    near = 0
    for i in range(40):
        chosen = found.gallery.poses[candidates.reference[i, : candidates.count[i]]]
        assert (np.diff(candidates.score[i, : candidates.count[i]]) <= 0).all()
        for k in range(1, len(chosen)):
            assert poses.distances(chosen[:k], chosen[k]).min() > APART * step_deg - 1e-3
        near += poses.distances(chosen, data.poses[i]).min() < 2 * step_deg
    assert near >= 39


def test_poses_are_found_as_well_as_predicted(volume):
    data = simulated(volume, 160, -10, seed=3)
    found = align.Alignment(particles_of(data), [volume], options())
    assert found.scales[0] == pytest.approx(1.0, abs=0.15)
    best = found.align(np.arange(160))
    errors = poses.distances(best.poses, data.poses)
    off = np.linalg.norm(best.positions - data.positions, axis=1)
    good = errors < 13.4
    assert good.mean() >= 0.96
    assert 0.75 < np.sqrt((errors[good] ** 2).mean() / (best.angle_sd_deg[good] ** 2).mean()) < 1.25
    assert 0.75 < np.sqrt((off[good] ** 2).mean() / (best.shift_sd_px[good] ** 2).mean()) < 1.25
    assert errors[good].mean() < 3.5 and off[good].mean() < 0.3
    assert np.median(best.posterior[good]) > 0.95 and (best.score > 0).all()


def test_results_do_not_depend_on_threads_or_batches(volume):
    data = simulated(volume, 70, -8, seed=4)
    one = align.Alignment(particles_of(data), [volume], options()).align(np.arange(70))
    two = align.Alignment(particles_of(data), [volume], options(threads=3))
    shuffled = np.random.default_rng(0).permutation(70)
    for rows in (np.arange(70), np.arange(13, 41), np.array([69]), shuffled):
        part = two.align(rows)
        for field in fields(part):
            np.testing.assert_array_equal(getattr(part, field.name), getattr(one, field.name)[rows])


def test_matrix_products_use_one_thread(volume, monkeypatch):
    """Threads of BLAS beside ours would be cores times cores."""
    data, seen = simulated(volume, 40, -8, seed=4), []
    found = align.Alignment(particles_of(data), [volume], options(threads=2))
    scores = Search.scores

    def counted(*arguments):
        # Those of FAISS, which OpenMP counts for each thread, are its own matter.
        own = (each for each in threadpool_info() if each["user_api"] == "blas" and each["threading_layer"] != "openmp")
        seen.extend(each["num_threads"] for each in own)
        return scores(*arguments)

    monkeypatch.setattr(Search, "scores", counted)
    found.align(np.arange(40))
    assert set(seen) == {1}


def test_a_previous_alignment_is_refined_where_it_is(volume):
    """From 8 degrees and 1 px away, most get as far as with the whole search (89 % here); from the wrong side, none."""
    data = simulated(volume, 60, -8, seed=8)
    rng = np.random.default_rng(9)
    axes = rng.normal(size=(60, 3))
    axes *= np.radians(8) / np.linalg.norm(axes, axis=1, keepdims=True)
    near = poses.turned(data.poses, axes)
    near[:5] = near[:5] @ Rotation.from_euler("x", 90, degrees=True).as_matrix()
    start = align.Start(near, data.positions + rng.normal(scale=0.7, size=(60, 2)))
    local = align.Alignment(particles_of(data), [volume], options(start=start))
    assert local.gallery is None and local.scales[0] == pytest.approx(1.0, abs=0.15)
    best = local.align(np.arange(60))
    whole = align.Alignment(particles_of(data), [volume], options()).align(np.arange(60))
    same = poses.distances(best.poses, whole.poses) < 0.5
    assert same[5:].mean() > 0.8 and not same[:5].any()


def test_the_in_plane_angle_can_be_limited(volume):
    data = simulated(volume, 80, -6, seed=10)
    _, tilt, psi = poses.euler_angles(data.poses)
    psi[np.abs(tilt - 90) > 60] = 70.0  # near the poles only the sum with the other angle counts
    limited = align.Alignment(particles_of(data), [volume], options(max_psi_deg=60.0))
    whole = align.Alignment(particles_of(data), [volume], options())
    assert 0.3 < len(limited.gallery.poses) / len(whole.gallery.poses) < 0.45
    assert np.abs(poses.euler_angles(limited.gallery.poses)[2]).max() < 60.1
    best = limited.align(np.arange(80))
    errors = poses.distances(best.poses, data.poses)
    assert (errors[np.abs(psi) < 55] < 13.4).mean() > 0.93
    assert (errors[np.abs(psi) > 90] > 13.4).mean() > 0.8  # the local search reaches a few


def test_repetitions_turn_the_grid_and_agree(volume):
    data = simulated(volume, 40, -6, seed=12)
    runs = [align.Alignment(particles_of(data), [volume], options(seed=seed)) for seed in (1, 2)]
    assert poses.distances(runs[0].gallery.poses[:1], runs[1].gallery.poses[:1])[0] > 1.0
    found = [run.align(np.arange(40)).poses for run in runs]
    apart = poses.distances(*found)
    assert (apart < 0.5).mean() > 0.9  # the same maximum, from different grids


def test_a_bad_image_spoils_no_other(volume):
    """Compiled code reads anywhere in memory if a position is NaN."""
    data = simulated(volume, 40, -8, seed=4)
    good = align.Alignment(particles_of(data), [volume], options()).align(np.arange(40))
    data.images[3], data.images[17, 5, 5], data.images[21] = np.nan, np.inf, 0.0
    found = align.Alignment(particles_of(data), [volume], options())
    best, others = found.align(np.arange(40)), np.delete(np.arange(40), [3, 17, 21])
    assert np.isnan(best.score[[3, 17]]).all() and (best.posterior[[3, 17]] == 0).all()
    assert np.isfinite(best.poses).all() and np.isfinite(best.score[others]).all()
    # Noise and scale are measured on the 37 others.
    assert (poses.distances(best.poses[others], good.poses[others]) < 0.5).mean() > 0.9


def test_contrast_and_scale_of_the_volume_are_fitted(volume):
    data = simulated(volume, 60, -8, seed=5)
    found = align.Alignment(particles_of(data), [-2.5 * volume], options())
    assert found.scales[0] == pytest.approx(-0.4, abs=0.08)
    errors = poses.distances(found.align(np.arange(60)).poses, data.poses)
    assert (errors < 13.4).mean() > 0.93


@pytest.mark.parametrize("snr_dB, most", [(-10, 0.015), (-16, 0.03), (-18, 0.05)])
def test_the_scale_is_right_where_poses_are_not_sure(volume, snr_dB, most):
    """With known poses its sd would be 0.005, 0.009 and 0.012. At -18 dB, 4 of 10 poses are wrong; where the right one
    is not among the candidates, the scale becomes a little too large."""
    data = simulated(volume, 200, snr_dB, seed=14)
    scale = align.Alignment(particles_of(data), [volume], options()).scales[0]
    assert scale == pytest.approx(1.0, abs=most)


def test_two_volumes_and_optics_groups(volume):
    other = volume.copy()
    other[:, :, : BOX // 2 - 6] = 0
    data = simulated(np.stack([volume, other]), 80, -8, seed=6)
    groups = np.arange(80) % 2
    # The third group has no particles, as after a selection.
    particles = particles_of(data, optics=[OPTICS, OPTICS, OPTICS], group=groups)
    # The second volume comes with another scale, as from another program.
    best = align.Alignment(particles, [volume, 3.0 * other], options()).align(np.arange(80))
    assert (best.volume == data.volume).mean() > 0.93
    assert best.class_posterior[best.volume == data.volume].mean() > 0.9


@pytest.mark.parametrize("name", ["C4", "D2", "T", "O", "I3"])
def test_symmetric_particles(name):
    """The gallery is one asymmetric unit, and poses are right but for the symmetry."""
    group, rng = symmetry.rotations(name), np.random.default_rng(13)
    unit = rng.normal(size=(max(1200 // len(group), 40), 3))
    unit *= 60 * rng.uniform(0.3, 1, (len(unit), 1)) ** (1 / 3) / np.linalg.norm(unit, axis=1, keepdims=True)
    symmetric = simulate.beads(np.concatenate([unit @ g.T for g in group]), BOX, PIXEL_A)
    data = simulated(symmetric, 60, -6, seed=7)
    found = align.Alignment(particles_of(data), [symmetric], options(symmetry=group))
    whole = len(sphere.pose_grid(found.gallery.step_rad))
    assert len(found.gallery.poses) <= 1.1 / len(group) * whole
    best = found.align(np.arange(60))
    errors = poses.distances(best.poses, data.poses, group)
    assert (errors < 13.4).mean() > 0.93 and np.median(errors) < 3.5
    assert np.median(best.posterior) > 0.95  # mates are one pose, and share nothing
    start = align.Start(data.poses, data.positions)
    local = align.Alignment(particles_of(data), [symmetric], options(symmetry=group, start=start)).align(np.arange(60))
    stayed = poses.distances(local.poses, data.poses, group) < 13.4
    assert stayed.all()  # a particle of high symmetry looks round at low resolution, where the search must not begin
