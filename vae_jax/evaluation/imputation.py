"""Missing values given the observed ones, by self-normalized importance sampling from q(z|x_obs).

With z_k ~ q(z|x_obs) and w_k = p(x_obs|z_k) p(z_k) / q(z_k|x_obs), normalized to sum to 1 over K samples,

* E[x_mis | x_obs] is estimated by sum_k w_k E[x_mis | z_k];
* a draw of p(x_mis | x_obs) is one of p(x_mis | z_k), k drawn by the weights (sampling importance resampling);
* log 1/K sum_k w_k, before the weights are normalized, is at most log p(x_obs) on average and tends to it.

Mattei and Frellsen call that bound MIWAE, for *missing data* importance-weighted autoencoder. The objective `miwae` of
this package is another one, the *multiply* importance-weighted bound of Rainforth et al.; so here it is the observed
bound.

Reference: arXiv:1812.02633, eqs. 6, 11 and sec. 3.3.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.errors import InputError
from vae_jax.evaluation.likelihood import model_inputs
from vae_jax.evaluation.needs import require
from vae_jax.model import Model, features_of
from vae_jax.train.state import TrainState


class Imputations(NamedTuple):
    """What is estimated for N examples, on the host, whether an entry is missing or not.

    Attributes:
      mean: E[x | x_obs], float32 [N, *x.shape].
      draws: S draws of p(x | x_obs), float32 [S, N, *x.shape].
      bound: log 1/K sum_k w_k, at most log p(x_obs) on average, nats float32 [N].
    """

    mean: np.ndarray
    draws: np.ndarray
    bound: np.ndarray


def impute_all(
    model: Model,
    state: TrainState,
    batches: Iterable[Mapping[str, Any]],
    *,
    key: jax.Array,
    k: int,
    draws: int = 0,
    report: Callable[[int], None] = lambda seen: None,
) -> Imputations:
    """Returns the estimates of every example; no number depends on the batch size.

    Args:
      model: its pure functions; densities of one level of latents are needed.
      state: a trained state.
      batches: as for `evaluate`, with `mask`.
      key: of all noise, which belongs to each example's index.
      k: importance samples per example, K.
      draws: of each example, S.
      report: called with the number of examples done.

    Returns:
      means, draws and bounds, in the order of the batches.

    Raises:
      InputError: the model lacks what is needed, or there is no example.
    """
    require("impute", ("bound", "joint", "one level"), model)
    assert model.density is not None
    program = _program(model.encode, model.decode, model.density.joint, features_of(model), k, draws)
    parts: list[Imputations] = []
    seen = 0
    for batch in batches:
        n = len(batch["x"])
        index = jnp.asarray(batch.get("index", np.arange(seen, seen + n)), jnp.int32)
        parts.append(Imputations(*map(np.asarray, program(state, key, model_inputs(batch), index))))
        seen += n
        report(seen)
    if not seen:
        raise InputError("impute: there are no examples; give one or more")
    mean, drawn, bound = zip(*parts)
    return Imputations(np.concatenate(mean), np.concatenate(drawn, 1), np.concatenate(bound))


class _Sums(NamedTuple):
    """What is carried from sample to sample, so that memory does not grow with K.

    Attributes:
      top: the greatest log w so far [B], by which the sums are scaled.
      total: sum of w / e^top [B].
      mean: sum of w E[x|z] / e^top [B, *x.shape].
      score: the greatest log w + Gumbel noise of each draw so far [S, B].
      z: the sample that has it, [S, B, n].
    """

    top: jax.Array
    total: jax.Array
    mean: jax.Array
    score: jax.Array
    z: jax.Array


@functools.lru_cache(maxsize=16)
def _program(
    encode: Callable, decode: Callable, joint_of: Any, features: Callable | None, k: int, draws: int
) -> Callable[..., Imputations]:
    """Returns the compiled estimates of a batch; its arguments are what can be hashed of a model."""

    def run(state: TrainState, key: jax.Array, batch: dict[str, jax.Array], index: jax.Array) -> Any:
        params, model_state = state.eval_params, state.model_state
        # 1. q(z|x_obs), and p(x_obs, z) as a function of z [B, n].
        code = encode(params, model_state, None, batch)
        joint = joint_of(params, model_state, batch)
        cond = None if features is None else features(params, model_state, batch)
        keys = {name: prng.example_keys(prng.site_key(key, name), index) for name in ("posterior", "choice", "pixels")}

        def decoded(z: jax.Array) -> Any:
            return decode(params, model_state, z.reshape(code.z.shape), cond=cond)

        # 2. One sample after the other, whose noise depends on its number alone.
        def body(sums: _Sums, number: jax.Array) -> tuple[_Sums, None]:
            z, log_q = code.posterior.sample_and_log_prob(prng.numbered_keys(keys["posterior"], number))
            log_w = joint.log_likelihood(z) + joint.prior.log_prob(z) - log_q
            gumbel = _gumbel(prng.numbered_keys(keys["choice"], number), draws)
            return _added(sums, log_w, z, decoded(z).mean(), gumbel), None

        b, n = index.shape[0], code.z.reshape(index.shape[0], -1).shape[1]
        start = _Sums(
            jnp.full(b, -jnp.inf),
            jnp.zeros(b),
            jnp.zeros(batch["x"].shape),
            jnp.full((draws, b), -jnp.inf),
            jnp.zeros((draws, b, n)),
        )
        sums, _ = jax.lax.scan(body, start, jnp.arange(k))
        # 3. The mean, the bound in nats, and one x of each chosen z.
        mean = sums.mean / _spread(sums.total, sums.mean)
        drawn = jnp.zeros((0, *batch["x"].shape))
        if draws:  # one after the other, in one program however many there are
            drawn = jax.lax.map(
                lambda each: decoded(each[1]).sample(prng.numbered_keys(keys["pixels"], each[0])),
                (jnp.arange(draws), sums.z),
            )
        return mean, drawn, sums.top + jnp.log(sums.total) - jnp.log(k)

    return jax.jit(run)


def _added(sums: _Sums, log_w: jax.Array, z: jax.Array, x: jax.Array, gumbel: jax.Array) -> _Sums:
    """Returns the sums with one more sample of each example: log w [B], z [B, n], E[x|z], noise [S, B]."""
    # Weights of many entries overflow; relative to the greatest one none does.
    top = jnp.maximum(sums.top, log_w)
    old, new = jnp.exp(sums.top - top), jnp.exp(log_w - top)
    # The index of the greatest log w + Gumbel noise is drawn by the normalized weights: no weight need be kept.
    score = log_w[None] + gumbel
    is_better = score > sums.score
    return _Sums(
        top,
        old * sums.total + new,
        _spread(old, x) * sums.mean + _spread(new, x) * x,
        jnp.where(is_better, score, sums.score),
        jnp.where(is_better[..., None], z[None], sums.z),
    )


def _spread(of_each: jax.Array, x: jax.Array) -> jax.Array:
    """Returns numbers [B] as [B, 1, ..., 1], to multiply x."""
    return of_each.reshape(-1, *(1,) * (x.ndim - 1))


def _gumbel(keys: jax.Array, draws: int) -> jax.Array:
    """Returns standard Gumbel noise [S, B] from one key per example."""
    if not draws:
        return jnp.zeros((0, keys.shape[0]))
    u = jnp.maximum(prng.uniform(keys, (draws,)), 2.0**-25)  # u = 0 would be minus infinity
    return -jnp.log(-jnp.log(u)).T
