"""log p(x) of a trained model between two bounds: AIS on data, and both directions on data that it made itself."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from vae_jax import prng
from vae_jax.evaluation.ais import Annealed, ais, sigmoid_temperatures, tune
from vae_jax.evaluation.chunks import chunks
from vae_jax.evaluation.needs import require
from vae_jax.evaluation.settings import Settings
from vae_jax.model import Joint, Model
from vae_jax.train.state import TrainState


class Chains(NamedTuple):
    """Log weights of chains over a set, float64 on the host.

    Attributes:
      log_weight: nats [N, C].
      acceptance: mean over chains and moves [N].
    """

    log_weight: np.ndarray
    acceptance: np.ndarray

    @property
    def log_mean(self) -> np.ndarray:
        """log mean_c w_c of each example, nats [N]."""
        # In logs: the weights of an example's chains may differ by many nats.
        return logsumexp(self.log_weight, 1) - math.log(self.log_weight.shape[1])

    @property
    def spread(self) -> float | None:
        """Standard deviation of log w over the chains of an example, mean over examples; None of one chain."""
        return float(self.log_weight.std(1, ddof=1).mean()) if self.log_weight.shape[1] > 1 else None

    @property
    def chain_stderr(self) -> float | None:
        """Standard error that the chains alone leave on the mean over examples of `log_mean` (delta method), nats.

        A lower bound: the delta method holds for weights that spread little, and chains that have not converged share a
        bias that their spread does not show. The gap of BDMC does.
        """
        n, chains = self.log_weight.shape
        if chains == 1:
            return None
        weight = np.exp(self.log_weight - self.log_mean[:, None])  # of mean 1
        # Var(log mean w) is about Var(w) / C for weights of mean 1; the variances of independent examples add up.
        return float(np.sqrt((weight.var(1, ddof=1) / chains).sum()) / n)


def annealed(
    model: Model,
    state: TrainState,
    batches: Iterable[Mapping[str, Any]],
    key: jax.Array,
    settings: Settings,
    report: Callable[[int], None] = lambda seen: None,
) -> Chains:
    """Returns AIS estimates: E[log mean_c w_c] <= log p(x), E[w] = p(x).

    Args:
      model: with `joint`, and codes on all of R^D.
      state: a trained state.
      batches: as for `evaluate`; how they are cut does not matter.
      key: of all noise, consumed; the noise of an example is keyed by its index.
      settings: `chains`, `temperatures`, `leapfrog`, `anneal_from`.
      report: called with the number of examples done.

    Returns:
      log weights in nats [N, C], and how often moves were accepted [N].

    Raises:
      InputError: a setting out of range, or no example.
    """
    (forward,) = _run("forward", model, state, batches, key, settings, report)
    return forward


def sandwiched(
    model: Model,
    state: TrainState,
    batches: Iterable[Mapping[str, Any]],
    key: jax.Array,
    settings: Settings,
    report: Callable[[int], None] = lambda seen: None,
) -> tuple[Chains, Chains]:
    """Returns (forward, reverse) chains on simulated z* ~ p(z), x ~ p(x|z*) (arXiv:1511.02543).

    z* is an exact sample of p(z|x), from which the reverse chains start: E[-log mean_c w_c] >= log p(x).

    Args:
      model, state, key, settings, report: as for `annealed`.
      batches: how many examples to simulate, and the condition of each.

    Returns:
      chains whose log-mean weights bound log p(x) from below, and chains whose negated ones bound it from above.
    """
    forward, reverse = _run("both", model, state, batches, key, settings, report)
    return forward, reverse


def _run(what, model, state, batches, key, settings, report) -> list[Chains]:
    require("ais", ("joint", "euclidean"), model)
    assert model.density is not None
    settings.check("chains", "temperatures", "leapfrog")
    found: list[list[Annealed]] = []
    seen = 0
    # What is static in the program; all else goes in as arrays.
    shape = (settings.chains, settings.temperatures, settings.leapfrog, settings.anneal_from)
    program = _program(model.density.joint, model.encode, what, *shape)
    # C codes per image are in memory, by which the chunks are cut.
    for batch, n in chunks(batches, settings.chains):
        index = jnp.asarray(batch.pop("index"))
        out = jax.device_get(program(state, key, batch, index))
        # Without the examples that only fill the chunk.
        found.append([Annealed(a.log_weight[:, :n], a.acceptance[:n]) for a in out])
        seen += n
        report(seen)
    directions = []
    for parts in zip(*found, strict=True):
        # Chunks [C, n] to a table [N, C], float64.
        weights = np.concatenate([np.asarray(a.log_weight, np.float64).T for a in parts])
        directions.append(Chains(weights, np.concatenate([np.asarray(a.acceptance, np.float64) for a in parts])))
    return directions


@functools.lru_cache(maxsize=32)
def _program(
    joint_of: Any, encode: Any, what: str, chains: int, temperatures: int, leapfrog: int, anneal_from: str
) -> Callable[..., list[Annealed]]:
    """Returns the jitted chains of a chunk, compiled once a model, chunk size and settings."""
    betas = sigmoid_temperatures(temperatures)

    def ends(joint: Joint, q: Any) -> tuple[Any, Any, Any]:
        """Returns the first density of the path, the log ratio of the last to it, and a draw of the first."""
        if anneal_from == "prior":
            return joint.prior.log_prob, joint.log_likelihood, joint.sample_prior
        # From q the ratio is p(x, z) / q(z|x): the path still ends at the joint, and E[w] = p(x).
        return q.log_prob, lambda z: joint.prior.log_prob(z) + joint.log_likelihood(z) - q.log_prob(z), q.sample

    def run(state: TrainState, key: jax.Array, batch: dict[str, jax.Array], index: jax.Array) -> list[Annealed]:
        params, model_state = state.eval_params, state.model_state

        def keys(site: str) -> jax.Array:
            return prng.example_keys(prng.site_key(key, site), index)

        def each(site: str) -> jax.Array:
            """Returns keys [C, B]: a chain's noise does not depend on how many there are."""
            return prng.sample_keys(keys(site), jnp.arange(chains))

        # 1. BDMC replaces the images by simulated ones, of which an exact posterior sample z* is known.
        truth = None
        if what == "both":
            joint = joint_of(params, model_state, batch)
            truth = joint.sample_prior(keys("truth"))
            batch = batch | joint.sample_data(keys("data"), truth)
        # 2. The densities for these images, and both ends of the path.
        joint = joint_of(params, model_state, batch)
        q = encode(params, model_state, None, batch).posterior if anneal_from == "posterior" else None
        first, ratio, draw = ends(joint, q)
        start, trial = (jax.vmap(draw)(each(site)) for site in ("start", "trial"))
        # 3. Step sizes from chains of their own: chains that chose their own would have biased weights.
        steps = tune(first, ratio, trial, betas, each("tune"), leapfrog=leapfrog)
        # 4. Chains forward, from draws of the first density, and for BDMC in reverse, from z*.
        out = [ais(first, ratio, start, betas, each("forward"), steps, leapfrog=leapfrog)]
        if truth is not None:
            # All reverse chains of an image start at its one z* and part by their noise.
            backwards = jnp.broadcast_to(truth, (chains, *truth.shape))
            out.append(ais(first, ratio, backwards, betas[::-1], each("reverse"), steps, leapfrog=leapfrog))
        return out

    return jax.jit(run)
