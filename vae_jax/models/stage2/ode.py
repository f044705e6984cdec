"""Ordinary differential equations between noise and data: samples by fixed steps, densities by an adaptive solver."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vae_jax.distributions.gaussian import LOG_2PI
from vae_jax.errors import InputError

# A velocity or denoiser: points [B, n] and times [B] -> [B, n].
Field = Callable[[jax.Array, jax.Array], jax.Array]
Method = Literal["euler", "midpoint", "heun"]

# An exact trace takes n backward passes of the network for each evaluation.
EXACT = 64  # dimensions up to which the divergence is computed, and not estimated
# Attempts, rejected ones included: a flow that needs more has no useful density.
_MOST_STEPS = 4096


def integrate(velocity: Field, x: jax.Array, times: jax.Array, method: Method = "heun") -> jax.Array:
    """Returns the solution of dx/dt = v(x, t) at the last of the times, one step from each to the next.

    Args:
      velocity: v.
      x: at the first time, [B, n].
      times: float32 [N + 1], in either direction.
      method: "euler", of first order with one call of v per step; "midpoint" and "heun", of second order with two.

    Returns:
      float32 [B, n].
    """
    # A scan: the network is compiled once, however many steps there are.
    return jax.lax.scan(partial(_step, velocity, method), x, (times[:-1], times[1:]))[0]


def _step(velocity: Field, method: Method, x: jax.Array, span: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    """Returns the points [B, n] at the end of a span of time, and None as `scan` wants it."""
    t, step = span[0], span[1] - span[0]
    slope = _at(velocity, x, t)
    if method == "midpoint":
        slope = _at(velocity, x + 0.5 * step * slope, t + 0.5 * step)
    elif method == "heun":
        # The mean of the slopes at both ends; the far end is found by an Euler step.
        slope = 0.5 * (slope + _at(velocity, x + step * slope, span[1]))
    return x + step * slope, None


def _at(velocity: Field, x: jax.Array, t: jax.Array) -> jax.Array:
    """Returns v of points [B, n] at one time for all of them: networks take one per example."""
    return velocity(x, jnp.broadcast_to(t, x.shape[:1]))


def ode_log_prob(
    velocity: Field,
    key: jax.Array,
    x: jax.Array,
    span: tuple[float, float],
    scale: float = 1.0,
    *,
    tolerance: float = 1e-5,
    probes: int = 1,
    exact: int = EXACT,
) -> jax.Array:
    """Returns log p(x) of what the flow of a velocity makes of noise: the probability-flow likelihood of one example.

        log p(x(t0)) = log N(x(t1); 0, scale^2 I) + int_t0^t1 tr(dv/dx)(x(t), t) dt,   dx/dt = v(x, t)

    Of `exact` dimensions or fewer the trace is computed; of more it is estimated by e' (dv/dx) e, e = +-1, with the
    same e along the whole path (arXiv:1810.01367): log p is then right on average, not in each draw.

    Args:
      velocity: v, called with points [1, n] and times [1].
      key: of the e.
      x: one example [n].
      span: (t0, t1), the times of data and noise.
      scale: standard deviation of the noise.
      tolerance: relative and absolute error of one step of Tsit5; log p is off by a small multiple of it.
      probes: how many e are averaged.
      exact: see above.

    Returns:
      float32 scalar, in nats; NaN if 4,096 steps do not suffice.

    Raises:
      InputError: diffrax is not installed.

    Reference:
      arXiv:2011.13456, appendix D.2.
    """
    diffrax, n = _diffrax(), x.shape[0]
    # 1. Directions e [P, n]: all axes, or random signs.
    if n <= exact:
        probe, weight = jnp.eye(n), 1.0
    else:
        probe, weight = jax.random.rademacher(key, (probes, n), jnp.float32), 1.0 / probes

    # 2. The point and the change of its log p move together, in steps as short as the tolerance wants.
    slopes = partial(_slopes, velocity, probe, weight)
    # Nobody differentiates densities, so no state is saved for a backward pass. No exception: under `vmap` one
    # example that fails must not stop the others.
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(slopes), diffrax.Tsit5(), *span, None, (jnp.asarray(x, jnp.float32), jnp.zeros(())),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        adjoint=diffrax.ForwardMode(), max_steps=_MOST_STEPS, throw=False,
    )  # fmt: skip
    # 3. The noise that the example came from has a known density. A solver that gave up has no answer.
    noise, change = solution.ys[0][0], solution.ys[1][0]
    log_noise = -0.5 * jnp.sum(jnp.square(noise / scale) + LOG_2PI) - n * jnp.log(scale)
    return jnp.where(solution.result == diffrax.RESULTS.successful, log_noise + change, jnp.nan)


def _slopes(
    velocity: Field, probe: jax.Array, weight: float, t: Any, held: tuple[jax.Array, jax.Array], args: Any
) -> tuple[jax.Array, jax.Array]:
    """Returns the velocity [n] of a point, and the trace of dv/dx by directions [P, n], whose terms are weighted."""
    del args
    # Reverse mode: the convolutions of this library have no forward-mode derivative.
    v, pull = jax.vjp(lambda x: velocity(x, jnp.full(1, t, jnp.float32)), held[0][None])
    # e' dv/dx for each direction, [P, n]; the Jacobian itself is formed only of few dimensions.
    rows = jax.vmap(lambda e: pull(e[None])[0][0])(probe)
    return v[0], weight * jnp.sum(rows * probe)


def _diffrax() -> Any:
    """Returns the module of the solvers, which only densities need."""
    # Imported on use: training and sampling work without the extra.
    try:
        import diffrax as module
    except ImportError:
        raise InputError(
            "model.generator: log p of this generator needs diffrax, which is not installed; "
            "run pip install 'vae_jax[ode]'"
        ) from None
    return module
