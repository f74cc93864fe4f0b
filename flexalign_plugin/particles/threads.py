"""BLAS's threads: only ours run, one for each block of particles, never cores times cores."""

from __future__ import annotations

from threadpoolctl import threadpool_limits


def one_blas_thread() -> threadpool_limits:
    """A context in which matrix products use one thread. Their rounding then does not depend on the machine's cores."""
    return threadpool_limits(limits=1, user_api="blas")
