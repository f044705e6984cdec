"""Whether the probabilities that a decoder gives to pixels come true."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.errors import InputError
from vae_jax.evaluation.likelihood import model_inputs
from vae_jax.evaluation.subject import Subject
from vae_jax.likelihoods.decoded import AutoregressivePixels, BernoulliPixels, GaussianPixels
from vae_jax.metrics.estimate import Estimate
from vae_jax.metrics.reliability import BINS, LEVELS, binned, bootstrap, expected_calibration_error, quantile_error
from vae_jax.model import features_of


def measure(subject: Subject) -> dict[str, Estimate]:
    """Returns the metric `calibration_error` of a run.

    Of Bernoulli pixels the expected calibration error of p(x_i = 1 | z), z ~ q(z|x); of Gaussian ones the error of the
    distribution function F(x_i | z), which is uniform where the decoder's spread is right.

    Raises:
      InputError: pixels of another distribution.
    """
    model, state = subject.run.model, subject.state
    program = _program(model.encode, model.decode, features_of(model))
    key, rows, kind = prng.site_key(subject.key, "calibration"), [], "Bernoulli"
    gray = False
    for batch in subject.batches():
        found = program(state, key, model_inputs(batch), jnp.asarray(batch["index"], jnp.int32))
        if not found:
            name = type(model.about.likelihood).__name__
            raise InputError(
                f"calibration: of {name} pixels no distribution function is at hand; it is there for Bernoulli and "
                "Gaussian likelihoods"
            )
        # One entry: the kind of the pixels, and p(x_i = 1 | z) or F(x_i | z), flattened to [B, P].
        (kind, values), *_ = found.items()
        values = np.asarray(values, np.float64).reshape(len(values), -1)
        if not np.isfinite(values).all():
            raise InputError(f"{subject.run.path}: decoded pixels are not finite; lower the learning rate")
        if kind == "Bernoulli":
            x = np.asarray(batch["x"], np.float64).reshape(values.shape)
            gray |= bool(((x > 0) & (x < 1)).any())
            rows.append(binned(values, x))
        else:
            # The pixels with F(x) <= p for all 19 levels, [B, 19], by binary search.
            each = np.sort(values, 1)
            rows.append(np.stack([np.searchsorted(row, LEVELS, side="right") for row in each]))
    if not rows:
        raise InputError("calibration: nothing to evaluate: the split is empty")
    table = np.concatenate(rows).astype(np.float64)
    pixels = int(np.prod(subject.run.spec.x.shape))

    # The statistic of counts summed over images. Images are resampled, not pixels, which depend on each other.
    def error(sums: np.ndarray) -> float:
        return expected_calibration_error(*sums) if kind == "Bernoulli" else quantile_error(sums, len(table) * pixels)

    how = f"{BINS} bins of p(x_i = 1 | z)" if kind == "Bernoulli" else "19 levels of F(x_i | z)"
    note = "; grey levels count as shares of ones, so it is the mean that is calibrated or not" if gray else ""
    subject.protocol["calibration"] = (
        f"{kind} pixels: {how}, z ~ q(z|x), so x has been seen; "
        f"standard error by bootstrap over {subject.examples}{note}"
    )
    return {"calibration_error": Estimate(error(table.sum(0)), bootstrap(table, error, subject.seed), len(table))}


@functools.lru_cache(maxsize=8)
def _program(encode: Any, decode: Any, features: Any) -> Callable[..., dict[str, jax.Array]]:
    def run(state: Any, key: jax.Array, batch: dict[str, jax.Array], index: jax.Array) -> dict[str, jax.Array]:
        params, model_state = state.eval_params, state.model_state
        # One posterior sample per image, keyed by its index.
        z = encode(params, model_state, prng.example_keys(key, index), batch).z
        cond = None if features is None else features(params, model_state, batch)
        p = decode(params, model_state, z, cond=cond)
        # Each pixel given the true ones before it.
        if isinstance(p, AutoregressivePixels):
            p = p.given(batch["x"])
        if isinstance(p, BernoulliPixels):
            return {"Bernoulli": p.mean()}
        if isinstance(p, GaussianPixels):
            # The distribution function at each pixel: uniform on [0, 1] where the spread is right.
            return {"Gaussian": jax.scipy.special.ndtr((batch["x"] - p.loc) * jnp.exp(-p.log_std))}
        # Pixels of any other distribution: the caller says that there is nothing to measure.
        return {}

    return jax.jit(run)
