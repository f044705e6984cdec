"""Where a bound is lost: to the family of q, or to the encoder that has to serve all images (arXiv:1801.03558).

    log p(x) - ELBO[q(z|x)]   =   (log p(x) - ELBO[q*])   +   (ELBO[q*] - ELBO[q(z|x)])
       inference gap          =      approximation gap    +        amortization gap

q* is the best diagonal Gaussian of each image alone, found by Adam from the encoder's q(z|x).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vae_jax import distributions as dist
from vae_jax import prng, spaces
from vae_jax.errors import InputError
from vae_jax.evaluation.chunks import chunks
from vae_jax.evaluation.ladder import chains_of
from vae_jax.evaluation.needs import has_bound, require
from vae_jax.evaluation.spread import posterior_type
from vae_jax.evaluation.subject import Subject
from vae_jax.metrics.estimate import Estimate
from vae_jax.model import Context, Joint, Model
from vae_jax.train.state import TrainState

RATE = 0.02  # of Adam at the start; a cosine leads it to 0
DRAWS = 256  # samples of the ELBOs that are compared, the same noise for both
K = 1000  # importance samples of log p(x) where --k gives none


class Local(NamedTuple):
    """ELBOs of each image in nats [N], float64: of the encoder's q(z|x), and of the best q* of the image alone."""

    amortized: np.ndarray
    optimized: np.ndarray | None


def local_bounds(
    model: Model,
    state: TrainState,
    batches: Iterable[Mapping[str, Any]],
    key: jax.Array,
    *,
    steps: int,
    samples: int,
    report: Callable[[int], None] = lambda seen: None,
) -> Local:
    """Returns the ELBO of the encoder's q, and of the diagonal Gaussian that Adam makes of it for each image.

    max over mean, log variance of E_q[log p(x|z)] - KL(q || p): reparameterized, KL in closed form where there is one.
    Both ELBOs are means over fresh draws, the same for both; those of the optimization are not used again.

    Args:
      model: with `joint`.
      state: a trained state.
      batches: as for `evaluate`; how they are cut does not matter.
      key: of all noise, consumed; the noise of an example is keyed by its index.
      steps: of Adam; 0 for the encoder's ELBO alone (any posterior).
      samples: posterior samples per step.
      report: called with the number of examples done.

    Returns:
      both ELBOs in nats [N], in the order of the batches; the second is None for 0 steps.

    Raises:
      InputError: no example.
    """
    assert model.density is not None
    program = _program(model.density.joint, model.encode, steps, samples)
    parts, seen = [], 0
    # The gradient holds `samples` decoded codes per image, by which the chunks are cut.
    for batch, n in chunks(batches, samples):
        index = jnp.asarray(batch.pop("index"))
        # Without the examples that only fill the chunk.
        parts.append([np.asarray(v, np.float64)[:n] for v in program(state, key, batch, index)])
        seen += n
        report(seen)
    whole = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return Local(whole[0], whole[1] if steps else None)


@functools.lru_cache(maxsize=32)
def _program(joint_of: Any, encode: Any, steps: int, samples: int) -> Callable[..., list[jax.Array]]:
    """Returns the jitted ELBOs of a chunk."""
    tx = optax.adam(optax.cosine_decay_schedule(RATE, max(steps, 1)))

    def draws(joint: Joint, q: Any, keys: jax.Array) -> jax.Array:
        """Returns log p(x|z) - KL, or log p(x, z) - log q(z) without closed form, [S, B] of keys [S, B]."""
        # With the KL in closed form only the likelihood term is noisy.
        closed = dist.closed_kl(q, joint.prior)
        if closed is not None:
            z = jax.vmap(q.sample)(keys)
            return jax.vmap(joint.log_likelihood)(z) - jnp.sum(closed, -1)[None]
        z, log_q = jax.vmap(q.sample_and_log_prob)(keys)
        return jax.vmap(joint.log_likelihood)(z) + jax.vmap(joint.prior.log_prob)(z) - log_q

    def bound(joint: Joint, q: Any, keys: jax.Array) -> jax.Array:
        """Returns the mean over DRAWS draws (or a few more), `samples` at a time, [B]."""
        # Rounded up, so that all blocks are equal; a draw's key is that of its number.
        blocks = -(-DRAWS // samples)

        def body(total: jax.Array, block: jax.Array) -> tuple[jax.Array, None]:
            each = prng.sample_keys(keys, block * samples + jnp.arange(samples))
            return total + jnp.mean(draws(joint, q, each), 0), None

        total, _ = jax.lax.scan(body, jnp.zeros(keys.shape[0]), jnp.arange(blocks))
        return total / blocks

    def run(state: TrainState, key: jax.Array, batch: dict[str, jax.Array], index: jax.Array) -> list[jax.Array]:
        joint = joint_of(state.eval_params, state.model_state, batch)
        q = encode(state.eval_params, state.model_state, None, batch).posterior
        # Two sites: q* is judged by draws that had no part in finding it.
        fit, test = (prng.example_keys(prng.site_key(key, site), index) for site in ("fit", "test"))
        out = [bound(joint, q, test)]
        if not steps:
            return out

        def update(carry: tuple, step: jax.Array) -> tuple[tuple, None]:
            own, moments = carry
            # New noise at each step: keys [S, B].
            each = prng.sample_keys(prng.numbered_keys(fit, step), jnp.arange(samples))
            # A sum over images: Adam works entry by entry, so that each is optimized as if it were alone.
            grads = jax.grad(lambda own: -jnp.sum(jnp.mean(draws(joint, own, each), 0)))(own)
            updates, moments = tx.update(grads, moments, own)
            return (optax.apply_updates(own, updates), moments), None

        # Without ties: a variance that all images share becomes one of each.
        own = dist.DiagGaussian(*(jnp.broadcast_to(leaf, q.mean.shape) for leaf in q))
        (own, _), _ = jax.lax.scan(update, (own, tx.init(own)), jnp.arange(steps))
        # The draws of the encoder's ELBO again, so that most of their noise cancels in the gap.
        return [*out, bound(joint, own, test)]

    return jax.jit(run)


def amortisation_gap(subject: Subject) -> dict[str, Estimate]:
    """Returns `amortisation_gap`, ELBO[q*] - ELBO[q(z|x)] in nats."""
    local = _local(subject, "amortisation_gap", optimize=True)
    assert local.optimized is not None
    subject.protocol["amortisation_gap"] = _protocol(subject, local)
    return {"amortisation_gap": Estimate.of(local.optimized - local.amortized)}


def inference_gap(subject: Subject) -> dict[str, Estimate]:
    """Returns `inference_gap`, log p(x) - ELBO[q(z|x)] in nats, log p(x) the higher of its estimates (AIS, IW-k).

    These are lower bounds, so the gap is one.
    """
    local = _local(subject, "inference_gap", optimize=False)
    log_p, by = _log_p(subject)
    about = _protocol(subject, local)
    subject.protocol["inference_gap"] = {"log p(x)": by, "mean log p(x)": float(log_p.mean()), **about}
    return {"inference_gap": Estimate.of(log_p - local.amortized)}


def approximation_gap(subject: Subject) -> dict[str, Estimate]:
    """Returns `approximation_gap`, log p(x) - ELBO[q*] in nats; see `inference_gap`."""
    local = _local(subject, "approximation_gap", optimize=True)
    assert local.optimized is not None
    log_p, by = _log_p(subject)
    about = _protocol(subject, local)
    subject.protocol["approximation_gap"] = {"log p(x)": by, "mean log p(x)": float(log_p.mean()), **about}
    return {"approximation_gap": Estimate.of(log_p - local.optimized)}


def _local(subject: Subject, metric: str, *, optimize: bool) -> Local:
    """Returns both ELBOs; the optimized one is None where nothing optimizes it.

    Raises:
      InputError: no densities, no posterior, or one that is no diagonal Gaussian where q* is requested.
    """
    model, s = subject.run.model, subject.settings
    require(metric, ("joint", "one level"), model)
    kind = posterior_type(subject)
    # The code of an autoencoder is a point without a density.
    if kind is type(None):
        raise InputError(f"{metric}: this model's codes are points, so there is no q(z|x) to lose anything")
    gaussian = kind is dist.DiagGaussian and spaces.is_euclidean(model.about.latents)
    if optimize and not gaussian:
        raise InputError(
            f"{metric}: q* is the best diagonal Gaussian, but this model's q(z|x) is none; ask for inference_gap"
        )
    total = subject.size
    # With a Gaussian one run serves all three gaps, so that they add up.
    steps = s.local_steps if gaussian and (optimize or "local" in subject.made) else 0
    return subject.once(
        "local" if steps else "amortised",
        lambda: local_bounds(
            model,
            subject.state,
            subject.batches(),
            prng.site_key(subject.key, "local"),
            steps=steps,
            samples=s.local_samples,
            report=lambda seen: subject.report(seen, total),
        ),
    )


def _log_p(subject: Subject) -> tuple[np.ndarray, str]:
    """Returns the best estimate of log p(x) [N], and what made it.

    It is chosen by its mean: a choice for each image alone would favor noise.
    """
    model, s = subject.run.model, subject.settings
    found: dict[str, np.ndarray] = {}
    if has_bound(model):
        # The bound rises with k on average, so the largest one is the tightest.
        k = max(s.k or (K,))
        found[f"IW-{k}"] = subject.once(f"iw_{k}", lambda: _importance(subject, k))
    # Hamiltonian moves need codes on all of R^n.
    if spaces.is_euclidean(model.about.latents):
        # The chains of the metric `ais` where they were run already.
        found["AIS"] = chains_of(subject, "inference_gap").log_mean
    best = max(found, key=lambda name: found[name].mean())
    return found[best], best


def _importance(subject: Subject, k: int) -> np.ndarray:
    """Returns the IW-k bound of each image [N], with the noise of `evaluate`."""
    density = subject.run.model.density
    assert density is not None
    program = _bound_program(density.bound, k)
    key = prng.site_key(subject.key, "iw")
    parts = []
    for batch, n in chunks(subject.batches(), 64):  # samples are drawn as memory allows, whatever this is
        index = jnp.asarray(batch.pop("index"))
        parts.append(np.asarray(program(subject.state, key, batch, index), np.float64)[:n])
    return np.concatenate(parts)


@functools.lru_cache(maxsize=32)
def _bound_program(bound: Any, k: int) -> Callable[..., jax.Array]:
    def run(state: TrainState, key: jax.Array, batch: dict[str, jax.Array], index: jax.Array) -> jax.Array:
        ctx = Context(state.step, index, state.hyper, train=False)
        return bound(state.eval_params, state.model_state, key, batch, ctx, k)

    return jax.jit(run)


def _protocol(subject: Subject, local: Local) -> dict[str, Any]:
    s = subject.settings
    about: dict[str, Any] = {subject.examples: subject.size, "split": subject.split, "draws of an ELBO": DRAWS}
    about["mean ELBO"] = float(local.amortized.mean())
    if local.optimized is not None:
        about |= {"mean optimised ELBO": float(local.optimized.mean()), "local_steps": s.local_steps}
        about |= {"local_samples": s.local_samples, "local_rate": RATE}
    return about | {"seed": subject.seed}
