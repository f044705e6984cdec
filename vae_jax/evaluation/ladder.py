"""The metrics of annealed importance sampling: log p(x) of the data, and both bounds on simulated data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vae_jax import prng
from vae_jax.errors import InputError, option
from vae_jax.evaluation.needs import lacking, require
from vae_jax.evaluation.sandwich import Chains, annealed, sandwiched
from vae_jax.evaluation.subject import Subject
from vae_jax.metrics.estimate import Estimate, bits_per_dim

# Written beside every `chain_stderr`: at the defaults it was .20 nats where keys spread by 1.48 and 16.6 were missing.
CHAIN_STDERR_NOTE = (
    "lower bound of the error: it is the spread of chains that share the bias of an unconverged path, and log mean w "
    "lies low; bdmc_gap bounds what is missing"
)


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
    # Reverse weights estimate 1 / p(x), hence the sign.
    lower, upper = forward.log_mean, -reverse.log_mean
    subject.protocol["bdmc"] = {
        "data": "simulated by the model, z* ~ p(z), x ~ p(x|z*); reverse chains start at z*",
        **_protocol(subject, forward),
        "reverse_chain_spread": reverse.spread,
        "reverse_chain_stderr": reverse.chain_stderr,
    }
    found = _with_bits(subject, {"bdmc_lower": lower, "bdmc_upper": upper})
    # Image by image, so that the standard error is free of how much log p(x) differs between images.
    return found | {"bdmc_gap": Estimate.of(upper - lower)}


def _arguments(subject: Subject, site: str) -> tuple:
    total = subject.size
    # `ais` and `bdmc` have sites of their own, so that requesting one leaves the other as it was.
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
    model = subject.run.model
    require(metric, ("joint", "euclidean"), model)
    assert model.density is not None
    # The path evaluates q at any z, not just at draws of its own.
    has_posterior = model.density.has_posterior and not lacking(metric, ("one level",), model)
    if subject.settings.anneal_from == "posterior" and not has_posterior:
        raise InputError(
            f"{metric}: q(z|x) of this model does not provide the density of a given z to anneal from; "
            f"use {option('anneal_from', 'prior')}"
        )


def _protocol(subject: Subject, found: Chains) -> dict[str, Any]:
    s = subject.settings
    return {
        subject.examples: len(found.acceptance),
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
        "chain_stderr_note": CHAIN_STDERR_NOTE,
    }


def _with_bits(subject: Subject, values: dict[str, np.ndarray]) -> dict[str, Estimate]:
    """Returns the estimates in nats, and in bits per dimension where the data have a cell width."""
    found = {name: Estimate.of(nats) for name, nats in values.items()}
    # None where bits per dimension have no meaning, as for a density of data without added noise.
    width = subject.cell_width
    # The chains do not carry how many entries of each example are observed, which the bits would be divided by.
    if width is not None and not subject.source.info.mask:
        dims = math.prod(subject.run.spec.x.shape)
        for name, nats in values.items():
            found[f"{name}_bits_per_dim"] = Estimate.of(bits_per_dim(nats, dims, width))
    return found
