"""Annealing and the weighting of the rate, at points worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.model import Context
from vae_jax.objectives import Beta, Elbo, Terms
from vae_jax.schedules import Constant, Cyclical, Linear


def at(schedule, *steps):
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.asarray(steps, jnp.int32)))


def test_constant():
    np.testing.assert_array_equal(at(Constant(), 0, 1, 10**6), 1.0)


def test_linear_rises_once_and_stays():
    np.testing.assert_allclose(at(Linear(100), 0, 1, 25, 50, 99, 100, 101, 10**6), [0, 0.01, 0.25, 0.5, 0.99, 1, 1, 1])
    np.testing.assert_allclose(at(Linear(10, start=0.5), 0, 5, 10, 20), [0.5, 0.75, 1, 1])
    np.testing.assert_allclose(at(Linear(10, start=3.0), 0, 5, 10, 20), [3, 2, 1, 1])


def test_cyclical_has_m_ramps_of_ratio_r():
    """M = 4, R = 0.5 over 80 steps: each period of 20 rises for 10, stays at 1 for 10 and falls to 0."""
    np.testing.assert_allclose(
        at(Cyclical(80, 4, 0.5), 0, 1, 5, 10, 15, 19, 20, 25, 30, 40, 45, 60, 79, 80, 85, 1000),
        [0, 0.1, 0.5, 1, 1, 1, 0, 0.5, 1, 0, 0.5, 0, 1, 1, 1, 1],
        rtol=1e-5,
    )
    np.testing.assert_allclose(at(Cyclical(10, 2, 1.0), 0, 1, 4, 5, 9, 10), [0, 0.2, 0.8, 0, 0.8, 1], rtol=1e-5)


@pytest.mark.parametrize("cycles", [3, 4, 7, 10])
@pytest.mark.parametrize("period", [3, 7, 1000, 4321])
def test_every_cycle_starts_at_zero(cycles, period):
    """Rounding of step / steps must not leave the end of the last ramp (1) where the next one starts (0)."""
    starts = np.arange(cycles) * period
    np.testing.assert_allclose(at(Cyclical(cycles * period, cycles), *starts), 0.0, atol=1e-5)


def terms():
    ones = jnp.ones((2, 3))
    return Terms(ones, ones, None, None, jnp.asarray([10.0, 20.0]), jnp.asarray([3.0, 5.0]), ones)


def context(step, **hyper):
    values = {name: jnp.asarray(v, jnp.float32) for name, v in hyper.items()}
    return Context(jnp.asarray(step), jnp.arange(2), values)


def test_elbo_is_distortion_plus_rate():
    loss, metrics = Elbo().loss(terms(), context(0, **Elbo().hyper()))
    np.testing.assert_allclose(loss, [13.0, 25.0])
    assert metrics["beta"] == 1.0


def test_beta_weighs_the_rate_and_is_traced():
    """The weight is the one of `hyper`, so that a sweep needs no new program; the config gives its default."""
    assert Beta(beta=6.0).hyper() == {"beta": 6.0}
    assert Elbo().hyper() == {"beta": 1.0}
    loss = jax.jit(lambda beta: Beta(beta=6.0).loss(terms(), context(0, beta=0.0)._replace(hyper={"beta": beta}))[0])
    np.testing.assert_allclose(loss(jnp.asarray(6.0)), [28.0, 50.0])
    np.testing.assert_allclose(loss(jnp.asarray(0.5)), [11.5, 22.5])
    assert loss._cache_size() == 1


def test_schedules_multiply_beta():
    objective = Beta(Linear(10), beta=4.0)
    for step, weight in ((0, 0.0), (5, 2.0), (10, 4.0), (99, 4.0)):
        loss, metrics = objective.loss(terms(), context(step, beta=4.0))
        np.testing.assert_allclose(loss, [10 + 3 * weight, 20 + 5 * weight], rtol=1e-6)
        np.testing.assert_allclose(metrics["beta"], weight)
