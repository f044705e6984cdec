"""log p(x) of a trained model between two bounds: AIS on data, and both directions on data that it made itself."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from vae_jax import prng
from vae_jax.errors import InputError
from vae_jax.evaluation.ais import Annealed, ais, sigmoid_temperatures, tune
from vae_jax.evaluation.likelihood import Estimate, bits_per_dim, model_inputs
from vae_jax.evaluation.subject import Subject
from vae_jax.model import Joint, Model
from vae_jax.settings import Settings
from vae_jax.train.state import TrainState

# Codes decoded at a time, and their pixels together: the gradient needs every layer of 4000 images of 28 x 28.
ROWS, PIXELS = 4000, 4000 * 28 * 28


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
        return logsumexp(self.log_weight, 1) - math.log(self.log_weight.shape[1])

    @property
    def spread(self) -> float | None:
        """Standard deviation of log w over the chains of an example, mean over examples; None of one chain."""
        return float(self.log_weight.std(1, ddof=1).mean()) if self.log_weight.shape[1] > 1 else None

    @property
    def chain_stderr(self) -> float | None:
        """Standard error that the chains alone leave on the mean over examples of `log_mean` (delta method), nats."""
        n, chains = self.log_weight.shape
        if chains == 1:
            return None
        weight = np.exp(self.log_weight - self.log_mean[:, None])  # of mean 1
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
    """
    forward, reverse = _run("both", model, state, batches, key, settings, report)
    return forward, reverse


def chunks(batches: Iterable[Mapping[str, Any]], samples: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yields (examples, how many of them count), cut anew; the last are filled up to a power of two with the last one.

    As many are taken as bound the memory with `samples` codes each. Where an example lies in its program does not
    depend on the batches: rounding, which chains amplify, is the same.

    Raises:
      InputError: no example.
    """
    held: dict[str, np.ndarray] = {}
    seen, size = 0, 1
    for raw in batches:
        n = len(raw["image"])
        size = at_once(raw["image"].shape[1:], samples)
        index = np.asarray(raw.get("index", np.arange(seen, seen + n)), np.int32)
        seen += n
        new = {name: np.asarray(value) for name, value in {**model_inputs(raw), "index": index}.items()}
        held = {name: np.concatenate([held[name], value]) for name, value in new.items()} if held else new
        while len(held["index"]) >= size:
            yield {name: value[:size] for name, value in held.items()}, size
            held = {name: value[size:] for name, value in held.items()}
    if not seen:
        raise InputError("nothing to evaluate: the split is empty")
    if left := len(held["index"]):
        padding = min(size, 1 << (left - 1).bit_length()) - left
        yield {n: np.concatenate([v, np.repeat(v[-1:], padding, 0)]) for n, v in held.items()}, left


def at_once(image_shape: tuple[int, ...], samples: int) -> int:
    """Returns how many images [H, W, C] are done at a time with so many codes each, to bound memory."""
    return max(1, min(ROWS, PIXELS // math.prod(image_shape)) // samples)


def require_density(model: Model, metric: str, *, moves: bool = True) -> None:
    """Raises InputError for a model without densities of codes and pixels, or, if it `moves`, of codes not in R^D."""
    if model.joint is None:
        raise InputError(
            f"{metric}: this model has no densities p(z) and p(x|z) (a point code, or a loss that is no likelihood); "
            "take a VAE with a normalised likelihood"
        )
    if moves and model.space != "real":
        raise InputError(
            f"{metric}: Hamiltonian moves need codes on all of R^D, and this model's are {model.space}; use iwae"
        )


def _run(what, model, state, batches, key, settings, report) -> list[Chains]:
    require_density(model, "ais")
    settings.check()
    found: list[list[Annealed]] = []
    seen = 0
    shape = (settings.chains, settings.temperatures, settings.leapfrog, settings.anneal_from)
    program = _program(model.joint, model.encode, what, *shape)
    for batch, n in chunks(batches, settings.chains):
        index = jnp.asarray(batch.pop("index"))
        out = jax.device_get(program(state, key, batch, index))
        found.append([Annealed(a.log_weight[:, :n], a.acceptance[:n]) for a in out])
        seen += n
        report(seen)
    directions = []
    for parts in zip(*found, strict=True):
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
        return q.log_prob, lambda z: joint.prior.log_prob(z) + joint.log_likelihood(z) - q.log_prob(z), q.sample

    def run(state: TrainState, key: jax.Array, batch: dict[str, jax.Array], index: jax.Array) -> list[Annealed]:
        params, model_state = state.eval_params, state.model_state

        def keys(site: str) -> jax.Array:
            return prng.example_keys(prng.site_key(key, site), index)

        def each(site: str) -> jax.Array:
            """Returns keys [C, B]: a chain's noise does not depend on how many there are."""
            return prng.sample_keys(keys(site), jnp.arange(chains))

        truth = None
        if what == "both":
            joint = joint_of(params, model_state, batch)
            truth = joint.sample_prior(keys("truth"))
            batch = batch | joint.sample_data(keys("data"), truth)
        joint = joint_of(params, model_state, batch)
        q = encode(params, model_state, None, batch).posterior if anneal_from == "posterior" else None
        first, ratio, draw = ends(joint, q)
        start, trial = (jax.vmap(draw)(each(site)) for site in ("start", "trial"))
        steps = tune(first, ratio, trial, betas, each("tune"), leapfrog=leapfrog)
        out = [ais(first, ratio, start, betas, each("forward"), steps, leapfrog=leapfrog)]
        if truth is not None:
            backwards = jnp.broadcast_to(truth, (chains, *truth.shape))
            out.append(ais(first, ratio, backwards, betas[::-1], each("reverse"), steps, leapfrog=leapfrog))
        return out

    return jax.jit(run)


def measure_ais(subject: Subject) -> dict[str, Estimate]:
    """Returns the metrics `ais`, the AIS estimate of log p(x) in nats, and in bits per dimension where they mean it."""
    found = chains_of(subject, "ais")
    subject.protocol["ais"] = _protocol(subject, found)
    return _with_bits(subject, {"ais": found.log_mean})


def chains_of(subject: Subject, metric: str) -> Chains:
    """Returns the AIS chains of the images that are measured, run once however many metrics ask.

    Raises:
      InputError: the model has no densities, or codes that Hamiltonian moves cannot walk among.
    """
    _check(subject, metric)
    return subject.once("ais", lambda: annealed(*_arguments(subject, "ais")))


def measure_bdmc(subject: Subject) -> dict[str, Estimate]:
    """Returns `bdmc_lower`, `bdmc_upper` and `bdmc_gap`: AIS both ways on as many simulated images, nats.

    E[lower] <= E[log p(x)] <= E[upper]. The gap bounds what AIS under these settings misses on such data.
    """
    _check(subject, "bdmc")
    forward, reverse = subject.once("bdmc", lambda: sandwiched(*_arguments(subject, "bdmc")))
    lower, upper = forward.log_mean, -reverse.log_mean
    subject.protocol["bdmc"] = {
        "data": "simulated by the model, z* ~ p(z), x ~ p(x|z*); reverse chains start at z*",
        **_protocol(subject, forward),
        "reverse_chain_spread": reverse.spread,
        "reverse_chain_stderr": reverse.chain_stderr,
    }
    found = _with_bits(subject, {"bdmc_lower": lower, "bdmc_upper": upper})
    return found | {"bdmc_gap": Estimate.of(upper - lower)}


def _arguments(subject: Subject, site: str) -> tuple:
    total = subject.size
    key = prng.site_key(subject.key, site)
    return (
        subject.run.model,
        subject.state,
        subject.batches(),
        key,
        subject.settings,
        lambda seen: subject.report(seen, total),
    )


def _check(subject: Subject, metric: str) -> None:
    require_density(subject.run.model, metric)
    posterior = getattr(subject.run.config.model, "posterior", None)
    if subject.settings.anneal_from == "prior" or posterior is None:
        return
    if posterior.deterministic or not posterior.has_log_prob:
        raise InputError(
            f"{metric}: q(z|x) of this model has no density of a given z to anneal from; use --anneal-from prior"
        )


def _protocol(subject: Subject, found: Chains) -> dict[str, Any]:
    s = subject.settings
    return {
        "images": len(found.acceptance),
        "split": subject.split,
        "chains": s.chains,
        "temperatures": s.temperatures,
        "schedule": "sigmoid, sharpness 4",
        "leapfrog": s.leapfrog,
        "anneal_from": s.anneal_from,
        "seed": subject.seed,
        "acceptance": float(found.acceptance.mean()),
        "chain_spread": found.spread,
        "chain_stderr": found.chain_stderr,
    }


def _with_bits(subject: Subject, values: dict[str, np.ndarray]) -> dict[str, Estimate]:
    """Returns the estimates in nats, and in bits per dimension where the data have a cell width."""
    found = {name: Estimate.of(nats) for name, nats in values.items()}
    width = subject.cell_width
    if width is not None:
        dims = math.prod(subject.run.image_shape)
        for name, nats in values.items():
            found[f"{name}_bits_per_dim"] = Estimate.of(bits_per_dim(nats, dims, width))
    return found
