"""Whether a model can tell the images of another data set from its own: AUROC of scores of surprise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vae_jax import prng
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.errors import InputError, option
from vae_jax.evaluation.likelihood import model_inputs
from vae_jax.evaluation.needs import has_bound, require
from vae_jax.evaluation.subject import Subject
from vae_jax.metrics.estimate import Estimate
from vae_jax.metrics.outliers import auroc, waic
from vae_jax.model import Context, Model
from vae_jax.train.state import TrainState

RATE = 0.05  # of Adam on the mean and log variance of one image's q
JUDGES = 64  # samples of z that the ELBO is measured with before and after, the same for both


def bounds(
    model: Model, state: TrainState, batches: Iterable[Mapping[str, Any]], key: jax.Array, k: int
) -> dict[str, np.ndarray]:
    """Returns `elbo` (one sample) and `iw` (k samples) of each image, nats [N], and `mse` of its reconstruction.

    Args:
      model: its pure functions; `density.bound` is needed for `iw`.
      state: a trained state.
      batches: images, with their `index`.
      key: of the noise, which is keyed by each image's index.
      k: importance samples of `iw`; 0 for no `iw`.

    Returns:
      {"elbo": [N], "iw": [N], "mse": [N]}: lower bounds on log p(x) in nats, and the squared error of the mean
      reconstruction of the mean code, mean over pixels; in the order of the batches.
    """
    if k:
        require("iw", ("bound",), model)
    # Cached by the identity of the model's functions, so both data sets run the same program.
    # Without `iw` the bound stays out of the program, and any model with an ELBO has the rest.
    program = _bounds(model.terms, model.density.bound if k and model.density else None, k)
    parts: dict[str, list[np.ndarray]] = {"elbo": [], "mse": []} | ({"iw": []} if k else {})
    for batch in batches:
        found = program(state, key, model_inputs(batch), jnp.asarray(batch["index"], jnp.int32))
        for name, values in found.items():
            parts[name].append(np.asarray(values, np.float64))
    return {name: np.concatenate(values) if values else np.zeros(0) for name, values in parts.items()}


def regret(
    model: Model, state: TrainState, batches: Iterable[Mapping[str, Any]], key: jax.Array, steps: int
) -> np.ndarray:
    """Returns the likelihood regret of each image: the ELBO of its own best q less that of the encoder's, nats [N].

    LR(x) = max_q L(x; q) - L(x; q_phi(z|x)), q = N(m, diag(s^2)) begun at the encoder's and moved by Adam. Both bounds
    are means over the same 64 draws, and the best is at least the first: an image's regret is 0 or more.

    Args:
      model: its pure functions; `joint` and a diagonal Gaussian posterior are needed.
      state: a trained state.
      batches: images, with their `index`.
      key: of the noise.
      steps: of Adam.

    Returns:
      nats [N], 0 or more; larger for images that the encoder serves badly.

    Raises:
      InputError: a model without p(x, z), or with a posterior that is no diagonal Gaussian.

    References: arXiv:2003.02977, eq. 5, with the moments of q as the variables, which the encoder's weights are there.
    """
    require("likelihood regret", ("joint", "euclidean", "one level"), model)
    assert model.density is not None
    program = _regret(model.encode, model.density.joint, steps)
    found = []
    for batch in batches:
        index = jnp.asarray(batch["index"], jnp.int32)
        found.append(np.asarray(program(state, key, model_inputs(batch), index), np.float64))
    return np.concatenate(found) if found else np.zeros(0)


def measure(subject: Subject) -> dict[str, Estimate]:
    """Returns the metrics `auroc_elbo`, `auroc_iw`, `auroc_regret` and, with `--others`, `auroc_waic` of a run.

    Raises:
      InputError: no `--outliers`, images of another size, a model without a bound on log p(x), or a score that is
        not a number.
    """
    s, model = subject.settings, subject.run.model
    if not s.outliers:
        raise InputError(
            f"anomaly: it needs a data set to tell apart; name one with {option('outliers')}, fashion_mnist say"
        )
    require("anomaly", ("bound",), model)
    for other in subject.others:
        if other.spec.x.shape != subject.run.spec.x.shape or not has_bound(other.model):
            raise InputError(f"{option('others', other.path)}: not a model of the same data with a bound on log p(x)")
    key = prng.site_key(subject.key, "anomaly")
    k = s.outlier_k
    # Functions, because each score reads both data sets from the start.
    sides = [lambda: subject.batches(), lambda: subject.outliers(s.outliers)]
    scores: dict[str, list[np.ndarray]] = {}

    # 1. ELBO and IW bound. A score of surprise is a log-likelihood with the sign changed.
    first = [bounds(model, subject.state, side(), prng.site_key(key, "bounds"), k) for side in sides]
    scores["auroc_elbo"] = [-found["elbo"] for found in first]
    scores["auroc_iw"] = [-found["iw"] for found in first]
    notes = [f"{len(first[1]['iw']):,} {subject.examples} of {s.outliers} are the outliers; auroc_iw of {k} samples"]
    if subject.others:
        # 2. WAIC over this run and the others, each with noise of its own.
        ensemble = [[found["iw"]] for found in first]
        for i, other in enumerate(subject.others):
            state, own = other.restore(), jax.random.fold_in(prng.site_key(key, "ensemble"), i)
            for rows, side in zip(ensemble, sides, strict=True):
                rows.append(bounds(other.model, state, side(), own, k)["iw"])
        scores["auroc_waic"] = [-waic(np.stack(rows)) for rows in ensemble]
        notes.append(f"auroc_waic of IW-{k} of {len(subject.others) + 1} runs")
    else:
        notes.append("no auroc_waic, which needs further runs (--others)")
    # 3. Likelihood regret, the one score that not every model allows: without it the others still count.
    try:
        scores["auroc_regret"] = [
            regret(model, subject.state, side(), prng.site_key(key, "regret"), s.regret_steps) for side in sides
        ]
        notes.append(f"auroc_regret of {s.regret_steps} steps of Adam at {RATE} on the mean and log variance of q")
    except InputError as error:
        notes.append(f"no auroc_regret: {error}")
    # Named here with what the run can do about it: the scores know only arrays.
    broken = next((name for name, pair in scores.items() if any(np.isnan(side).any() for side in pair)), None)
    if broken is not None:
        raise InputError(
            f"{subject.run.path}: {broken} of some {subject.examples} is not a number; lower the learning rate"
        )
    subject.protocol["anomaly"] = "; ".join(notes)
    return {name: auroc(*pair) for name, pair in scores.items()}


@functools.lru_cache(maxsize=16)
def _bounds(terms: Any, bound: Any, k: int) -> Callable[..., dict[str, jax.Array]]:
    def run(state: TrainState, key: jax.Array, batch: dict[str, jax.Array], index: jax.Array) -> dict[str, jax.Array]:
        ctx = Context(state.step, index, state.hyper, train=False)
        args = state.eval_params, state.model_state
        # One draw of z for the terms, and others, at a site of their own, for the bound.
        found = terms(*args, prng.site_key(key, "elbo"), batch, ctx)
        out = {"elbo": found["elbo"], "mse": found["mse"]}
        return out if bound is None else out | {"iw": bound(*args, prng.site_key(key, "iw"), batch, ctx, k)}

    return jax.jit(run)


@functools.lru_cache(maxsize=16)
def _regret(encode: Any, joint: Any, steps: int) -> Callable[..., jax.Array]:
    def run(state: TrainState, key: jax.Array, batch: dict[str, jax.Array], index: jax.Array) -> jax.Array:
        args = state.eval_params, state.model_state
        q = encode(*args, None, batch).posterior
        # Raised while tracing, when the type of q is known.
        if not isinstance(q, DiagGaussian):
            raise InputError(f"likelihood regret: it optimizes a diagonal Gaussian, q(z|x) is a {type(q).__name__}")
        parts, keys = joint(*args, batch), prng.example_keys(key, index)

        def elbo(q: DiagGaussian, noise: jax.Array) -> jax.Array:
            # One reparameterized sample per image, through which the gradient reaches the moments of q.
            z = q.sample(noise)
            return parts.log_likelihood(z) + parts.prior.log_prob(z) - q.log_prob(z)

        # The noise that chose q must not judge it, so these draws have a site of their own. They are made one at a time
        # to keep the memory of a single sample per image.
        def judged(q: DiagGaussian) -> jax.Array:
            def add(total: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
                return total + elbo(q, prng.numbered_keys(judges, i)), None

            judges = jax.vmap(lambda k: prng.site_key(k, "judge"))(keys)
            total, _ = jax.lax.scan(add, jnp.zeros(len(index)), jnp.arange(JUDGES))
            return total / JUDGES

        tx = optax.adam(RATE)

        def move(carry: tuple, i: jax.Array) -> tuple[tuple, None]:
            own, moments = carry
            # Images do not share a variable, so the gradient of the sum is each one's own.
            grads = jax.grad(lambda q: -jnp.sum(elbo(q, prng.numbered_keys(keys, i))))(own)
            updates, moments = tx.update(grads, moments, own)
            return (optax.apply_updates(own, updates), moments), None

        (best, _), _ = jax.lax.scan(move, (q, tx.init(q)), jnp.arange(steps))
        # Where Adam ended below its start, the start is the better q.
        return jnp.maximum(judged(best) - judged(q), 0.0)

    return jax.jit(run)
