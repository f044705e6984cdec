"""The metrics of what the codes of a split say of its images, from the exact aggregate posterior of that split."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.distributions.separable import SEPARABLE
from vae_jax.errors import InputError
from vae_jax.evaluation.likelihood import model_inputs
from vae_jax.evaluation.needs import require
from vae_jax.evaluation.subject import Subject
from vae_jax.metrics.estimate import Estimate
from vae_jax.metrics.information import Information, decompose


def mutual_information(subject: Subject) -> dict[str, Estimate]:
    """Returns `mutual_information`, I(x; z) in nats."""
    return {"mutual_information": information(subject, "mutual_information").mutual_information}


def aggregate_kl(subject: Subject) -> dict[str, Estimate]:
    """Returns `aggregate_kl`, KL(q(z) || p(z)) in nats."""
    return {"aggregate_kl": information(subject, "aggregate_kl").marginal_kl}


def total_correlation(subject: Subject) -> dict[str, Estimate]:
    """Returns `total_correlation`, KL(q(z) || prod_j q(z_j)) in nats."""
    return {"total_correlation": information(subject, "total_correlation").total_correlation}


def dimension_kl(subject: Subject) -> dict[str, Estimate]:
    """Returns `dimension_kl`, sum_j KL(q(z_j) || p(z_j)) in nats; its terms go into the protocol.

    Raises:
      InputError: as of `information`, or a prior whose dimensions are not independent.
    """
    found = information(subject, "dimension_kl")
    if found.dimension_kl is None or found.dimension_kl_sum is None:
        raise InputError("dimension_kl: the prior of this model is no product over dimensions; ask for aggregate_kl")
    subject.protocol["dimension_kl"] = {**subject.protocol["dimension_kl"], "nats": found.dimension_kl}
    return {"dimension_kl": found.dimension_kl_sum}


def information(subject: Subject, metric: str) -> Information:
    """Returns the parts of the rate over the examples that are measured, made once; notes the protocol of `metric`.

    Raises:
      InputError: the model has no prior, a prior that depends on a condition, or posteriors that are no diagonal
        Gaussians.
    """
    require(metric, ("joint", "one level", "one prior"), subject.run.model)
    # The densities of single dimensions are written out for Gaussians (see `information`).
    if posterior_type(subject) is not DiagGaussian:
        raise InputError(
            f"{metric}: needs a diagonal Gaussian q(z|x), which this model does not provide; request elbo,iwae instead"
        )
    # The protocol names N, because I(x; z) over N examples cannot exceed ln N: a ceiling that no training lifts.
    n = subject.size
    subject.protocol[metric] = {
        subject.examples: n,
        "split": subject.split,
        "aggregate posterior": f"exact, all {n:,} {subject.examples}, one z of each; "
        f"I(x; z) is at most ln N = {math.log(n):.4f}",
        "seed": subject.seed,
    }
    return subject.once("information", lambda: _information(subject))


def posterior_type(subject: Subject) -> type:
    """Returns the type of q(z|x)."""
    run = subject.run
    state = subject.state
    found: list[Any] = []

    # Traced and not run: the type is known while tracing, and nothing is compiled.
    def look(params: Any, model_state: Any, batch: Any) -> jax.Array:
        code = run.model.encode(params, model_state, None, batch)
        found.append(code.posterior)
        return code.z

    jax.eval_shape(look, state.eval_params, state.model_state, run.example_batch())
    return type(found[0])


def _information(subject: Subject) -> Information:
    density = subject.run.model.density
    assert density is not None
    program = _program(subject.run.model.encode, density.joint)
    key = prng.site_key(prng.site_key(subject.key, "codes"), "posterior")
    parts: list[dict[str, np.ndarray]] = []
    for batch in subject.batches():
        index = jnp.asarray(batch["index"], jnp.int32)
        parts.append(jax.device_get(program(subject.state, key, model_inputs(batch), index)))
    # Back to the device as one array: each code meets the posterior of every example.
    whole = {name: jnp.asarray(np.concatenate([part[name] for part in parts])) for name in parts[0]}
    bad = ~np.isfinite(whole["z"])
    if bad.any():
        row, dim = np.argwhere(bad)[0]
        raise InputError(f"{subject.run.path}: code {dim} of example {row} is not finite; lower the learning rate")
    # The posteriors of all N examples, [N, D].
    q = DiagGaussian(whole["mean"], whole["log_var"])
    return decompose(q, whole["z"], whole["log_p"], whole.get("log_p_per_dim"))


@functools.lru_cache(maxsize=32)
def _program(encode: Callable[..., Any], joint: Callable[..., Any]) -> Callable[..., dict[str, jax.Array]]:
    def run(state: Any, key: jax.Array, batch: dict[str, jax.Array], index: jax.Array) -> dict[str, jax.Array]:
        q = encode(state.eval_params, state.model_state, None, batch).posterior
        p = joint(state.eval_params, state.model_state, batch).prior
        # One draw per example, keyed by its row, so that the batch size changes nothing.
        z = q.sample(prng.example_keys(key, index))
        out = {"mean": q.mean, "log_var": q.log_var, "z": z, "log_p": p.log_prob(z)}
        # Only a prior that is a product has densities of single dimensions.
        if type(p) in SEPARABLE:
            out["log_p_per_dim"] = SEPARABLE[type(p)](p, z)
        return out

    return jax.jit(run)
