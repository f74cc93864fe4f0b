"""How sure a pose is: the share of the probability that it has among the candidates that were refined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from .local import PARAMETERS, Refined
from .poses import distances

SAME_DEG = 5.0  # candidates nearer than this have climbed the same hill


@dataclass(frozen=True)
class Best:
    """The most probable pose of each of n particles.

    Attributes
    ----------
    poses : (n, 3, 3). positions : (n, 2) px. volume : (n,). score : (n,) nats above "no particle".
    angle_sd_deg, shift_sd_px : (n,) predicted rms errors of the rotation angle and of the position.
    posterior : (n,) of the pose, class_posterior : (n,) of the volume, among the candidates: 0 to 1.
    """

    poses: np.ndarray
    positions: np.ndarray
    volume: np.ndarray
    score: np.ndarray
    angle_sd_deg: np.ndarray
    shift_sd_px: np.ndarray
    posterior: np.ndarray
    class_posterior: np.ndarray


def best_of(refined: Refined, volume: np.ndarray, group: Optional[np.ndarray] = None) -> Best:
    """The most probable candidate of each particle. Its probability is exp(score) times the volume of its hill,
    det(information)^-1/2; candidates on the same hill count once. The candidates that the coarse search missed are not
    in it, so that the posterior is an upper bound.

    Parameters
    ----------
    volume : (n, K) number of the volume that a candidate shows. group : symmetry of the volumes.
    """
    n = len(refined.score)
    log_p = _log_probability(refined)
    order = np.argsort(-log_p, axis=1, kind="stable")
    best = order[:, 0]
    rows = np.arange(n)
    for k in range(1, int(np.isfinite(log_p).sum(axis=1).max())):  # the others come last
        later = order[:, k]
        for earlier in range(k):
            other = order[:, earlier]
            both = np.isfinite(log_p[rows, later]) & np.isfinite(log_p[rows, other])
            both &= volume[rows, later] == volume[rows, other]
            if both.any():
                a, b = refined.poses[rows[both], later[both]], refined.poses[rows[both], other[both]]
                merged = rows[both][distances(a, b, group) < SAME_DEG]
                log_p[merged, later[merged]] = -np.inf
    p = np.exp(log_p - log_p[rows, best][:, None])
    total = p.sum(axis=1)
    own = np.where(volume == volume[rows, best][:, None], p, 0).sum(axis=1)
    covariance = _inverse(refined.information[rows, best])
    return Best(
        poses=refined.poses[rows, best],
        positions=refined.positions[rows, best],
        volume=volume[rows, best],
        score=refined.score[rows, best],
        angle_sd_deg=np.degrees(np.sqrt(np.trace(covariance[:, :3, :3], axis1=1, axis2=2))),
        shift_sd_px=np.sqrt(np.trace(covariance[:, 3:, 3:], axis1=1, axis2=2)),
        posterior=p[rows, best] / total,
        class_posterior=own / total,
    )


def most_probable_scale(refined: Refined, power: np.ndarray, limits: Tuple[float, float]) -> float:
    """The factor on the volumes that makes the images most probable, whatever their poses are.

    A candidate's score is x q - x^2 P / 2 with the factor x, product q of image and projection, and power P of the
    projection. The hill's height grows with x q, and so do its curvatures: its volume has a factor x^(-5/2). This is
    what keeps the noise that each pose was fitted to from counting as signal.

    Parameters
    ----------
    power : (n, K) P. limits : of the factor.
    """
    exists = np.isfinite(refined.score)
    q = np.where(exists, refined.score, 0.0) + power / 2
    log_p = _log_probability(refined) - np.where(exists, refined.score, 0.0)

    def less_probable(log_x: float) -> float:
        x = np.exp(log_x)
        return float(PARAMETERS / 2 * log_x * len(q) - logsumexp(log_p + x * q - x * x / 2 * power, axis=1).sum())

    low, high = np.log(limits)
    return float(np.exp(minimize_scalar(less_probable, bounds=(low, high), method="bounded").x))


def _log_probability(refined: Refined) -> np.ndarray:
    """(n, K) score of each candidate and logarithm of the volume of its hill; -inf if it does not exist."""
    log_p = np.full(refined.score.shape, -np.inf)
    exists = np.isfinite(refined.score)
    sign, log_det = np.linalg.slogdet(refined.information[exists])
    # A hill that is flat in some direction has no finite volume: it does not count more than the others.
    log_p[exists] = refined.score[exists] - 0.5 * np.where(sign > 0, log_det, np.inf)
    flat = np.isneginf(log_p).all(axis=1)
    log_p[flat] = refined.score[flat]
    return log_p


def _inverse(information: np.ndarray) -> np.ndarray:
    """Covariances; 180 degrees or a very large shift where the images say nothing about a parameter."""
    largest = np.diag(1 / np.array([np.pi, np.pi, np.pi, 1e3, 1e3]) ** 2)
    return np.linalg.inv(information + largest)
