"""Bounds on log p(x), rate and distortion, and what the code uses of its dimensions, over a whole split."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng, spaces
from vae_jax.distributions.categorical import expected_code
from vae_jax.errors import InputError
from vae_jax.evaluation.code_usage import CodeCounts, by_level
from vae_jax.evaluation.needs import require
from vae_jax.metrics.estimate import Estimate, bits_per_dim
from vae_jax.metrics.moments import Moments
from vae_jax.model import Context, Model
from vae_jax.options.ranges import SAMPLES
from vae_jax.spec import DataSpec
from vae_jax.train.metrics import ACTIVE_VARIANCE
from vae_jax.train.state import TrainState

# name -> (meaning with unit, reference). `iw_<k>` stands for one bound for each k, `kl/<level>` for one rate per level.
METRICS: dict[str, tuple[str, str]] = {
    "elbo": ("-(distortion + rate): lower bound on log p(x), one posterior sample, nats", "arXiv:1312.6114"),
    "distortion": ("-log p(x|z), z ~ q(z|x), summed over pixels, nats", "arXiv:1711.00464"),
    "rate": ("KL(q(z|x) || p(z)) summed over dimensions, nats; never weighted", "arXiv:1711.00464"),
    "iw_<k>": (
        "importance-weighted bound on log p(x) with k samples, nats; with it iw_<k>_bits_per_dim (`iwae`: every --k)",
        "arXiv:1509.00519",
    ),
    "log_prob": ("log p(x) of a density that has it exactly (`vae-jax baseline`), nats", ""),
    "bits_per_dim": (
        "-ELBO (log p(x) where exact) in bits per dimension; of masses of levels or dequantized data only",
        "arXiv:1511.01844",
    ),
    "mse": (
        "squared error of the mean reconstruction of the mean code, mean over pixels; of an autoregressive decoder the "
        "error of each pixel given the true ones before it",
        "",
    ),
    "psnr": ("10 log10(1 / mse) of each image, mean over images, dB; data range 1; images only", ""),
    "accuracy": ("share of images whose label is the most probable one given the image", ""),
    "distortion_label": ("-log p(y|z) of the label, z of image and label, nats (multimodal)", "arXiv:1802.05335"),
    "coherence": ("share of labels found again in the image generated from them (multimodal)", "arXiv:1911.03393"),
    "active_units": ("dimensions with Var_x(E[z|x]) > 0.01", "arXiv:1509.00519, sec. 5"),
    "bits_per_image": ("bits that the codes of one image take: its rate / ln 2 (discrete codes)", "arXiv:1711.00937"),
    "quantization_error": ("squared distance of a vector from its code, mean over the grid (quantizers)", ""),
    "usage": ("share of the entries of a codebook that occur in the codes of the split", ""),
    "perplexity": ("exp of the entropy of the codes of the split: so many would be as informative if used alike", ""),
    "kl/<level>": ("rate of one level of a model of several, by its name or number, nats", ""),
}


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one split.

    Attributes:
      metrics: name -> Estimate; see `METRICS`. Those that the model does not have are left out
        (the rate of an autoencoder).
      n: examples evaluated.
      kl_per_dim: mean KL of each latent dimension, nats [D]; None without a posterior.
      mean_variance: Var_x(E[z|x]) of each latent dimension [D]; None without a posterior.
      unlabeled: examples whose label is unknown (-1); metrics that read it are means over the others.
    """

    metrics: dict[str, Estimate]
    n: int
    kl_per_dim: tuple[float, ...] | None = None
    mean_variance: tuple[float, ...] | None = None
    unlabeled: int = 0

    @property
    def order(self) -> tuple[int, ...]:
        """Latent dimensions by KL, largest first."""
        return tuple(int(d) for d in np.argsort(-np.asarray(self.kl_per_dim or ()), kind="stable"))


def evaluate(
    model: Model,
    state: TrainState,
    batches: Iterable[Mapping[str, Any]],
    *,
    key: jax.Array,
    k: tuple[int, ...] = (),
    limit: int = 0,
    cell_width: float | None = None,
    report: Callable[[int], None] = lambda seen: None,
) -> Evaluation:
    """Returns the metrics of a split; every example counts once, and no number depends on the batch size.

    The noise of an example is keyed by its `index` in the data set. Weights are the moving average where one is kept.

    Args:
      model: its pure functions.
      state: a trained state.
      batches: `{"x": float32 [B, *shape], "index": int32 [B]}`; B may change from batch to batch (each size
        compiles once). Without `index` examples are numbered as they come.
      key: of all noise, consumed.
      k: importance samples, one bound `iw_<k>` each.
      limit: only the first `limit` examples; 0 for all.
      cell_width: volume a dimension that one discrete value stands for, 1 for binary data, 1/256 for dequantized
        gray levels: bits_per_dim = (-ELBO - D ln cell_width) / (D ln 2). None where that means nothing.
      report: called with the number of examples done.

    Returns:
      means, standard errors, and the per-dimension numbers.

    Raises:
      InputError: no example, k or limit out of range, or an IW bound of a model that does not have one.
    """
    if not all(map(SAMPLES.holds, k)) or limit < 0:
        raise InputError(
            f"k and limit: {k} and {limit}; every k must be 1 or more and below 2^31, limit 0 (all) or more"
        )
    if k:
        require(f"iw_{k[0]}", ("bound",), model)
    bound = model.density.bound if model.density else None
    # Cached by the identity of the functions and the values of k: another split of this model compiles nothing.
    program = _program(
        model.terms,
        model.encode,
        bound,
        jax.tree.structure(model.about.latents),
        tuple(dict.fromkeys(k)),
        spaces.is_nominal(model.about.latents),
    )
    totals = _Totals(CodeCounts(model.about.latents))
    dims, seen = 0, 0
    for batch in first(batches, limit or None):
        n = len(batch["x"])
        # The noise of an example belongs to its index, or without one to its place in the stream.
        index = jnp.asarray(batch.get("index", np.arange(seen, seen + n)), jnp.int32)
        dims = math.prod(batch["x"].shape[1:])
        totals.add(program(state, key, model_inputs(batch), index), batch.get("label"))
        seen += n
        report(seen)
    if seen == 0:
        raise InputError("nothing to evaluate: the split is empty")
    return totals.result(dims, cell_width, model.about.spec.x.kind == "image")


def term_names(model: Model, spec: DataSpec) -> list[str]:
    """Returns the names of the metrics that `evaluate` gives of a model without bounds and cells; computes nothing."""

    def run(key: jax.Array) -> dict[str, jax.Array]:
        batch = model_inputs(spec.blank())
        params, state = model.init(key, spec.blank())
        return _flat(model.terms(params, state, key, batch, model.context(batch, train=False)))

    found = [name for name in jax.eval_shape(run, jax.random.key(0)) if name != "kl_per_dim"]
    return [*found, "psnr"] if spec.x.kind == "image" else found


def first(batches: Iterable[Mapping[str, Any]], limit: int | None) -> Iterator[dict[str, Any]]:
    """Yields the first `limit` examples, the last batch cut to fit; None: all. No batch more than needed is read."""
    left = math.inf if limit is None else limit
    if left <= 0:
        return
    for raw in batches:
        n = len(raw["x"])
        yield dict(raw) if n <= left else {name: value[: int(left)] for name, value in raw.items()}
        # Before the next batch is read: nothing is read that is not yielded.
        left -= n
        if left <= 0:
            return


def model_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a model may read of a batch: the image, and label, factors and condition where they are there."""
    return {name: batch[name] for name in ("x", "mask", "label", "factors", "cond") if name in batch}


@functools.lru_cache(maxsize=32)
def _program(terms, encode, bound, structure, ks: tuple[int, ...], nominal: bool) -> Callable[..., dict[str, Any]]:
    """Returns the jitted per-example numbers of a batch, compiled once a model and batch shape."""

    def run(state: TrainState, key: jax.Array, batch: dict[str, jax.Array], index: jax.Array) -> dict[str, Any]:
        # Not training: no dropout, and running state is used but not moved.
        ctx = Context(state.step, index, state.hyper, train=False)
        params, model_state = state.eval_params, state.model_state
        out: dict[str, Any] = _flat(terms(params, model_state, key, batch, ctx))
        code = encode(params, model_state, None, batch)
        if code.posterior is not None:
            # The compiler shares the encoder with `terms`.
            codes = [expected_code(q) for q in structure.flatten_up_to(code.posterior)]
            out["code"] = codes[0] if len(codes) == 1 else jnp.concatenate(codes, -1)
        if nominal:
            out["codes"] = by_level(code.z)
        if "mask" in batch:
            # How many entries of each example are observed: what is divided by dimensions is divided by these.
            out["observed"] = jnp.sum(batch["mask"], tuple(range(1, batch["mask"].ndim)))
        for n in ks:
            # One site for all k: a bound with more samples shares those of a bound with fewer.
            out[f"iw_{n}"] = bound(params, model_state, prng.site_key(key, "iw"), batch, ctx, n)
        return out

    return jax.jit(run)


def _flat(terms: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns the terms with those of several levels by name: `kl/z1`, `kl/z2`."""
    out: dict[str, jax.Array] = {}
    for name, value in terms.items():
        # A term of several levels is a tree like the latents; the path of a leaf is "" for a plain array.
        for path, inner in jax.tree_util.tree_leaves_with_path(value):
            level = jax.tree_util.keystr(path, simple=True, separator=".")
            out[f"{name}/{level}" if level else name] = inner
    return out


class _Totals:
    """Per-example numbers on the host, in float64; one batch behind the device, so that neither waits."""

    def __init__(self, counts: CodeCounts) -> None:
        self._counts = counts
        self._pending: tuple[dict[str, Any], np.ndarray | None] | None = None
        self._values: dict[str, list[np.ndarray]] = {}
        self._unknown: list[np.ndarray] = []
        self._kl, self._code = Moments(), Moments()

    def add(self, out: dict[str, Any], label: Any) -> None:
        # The new batch is under way on the device; meanwhile the one before is copied and counted.
        self._take(self._pending)
        self._pending = (out, label)

    def _take(self, pending: tuple[dict[str, Any], Any] | None) -> None:
        if pending is None:
            return
        out, label = pending
        if (codes := out.pop("codes", None)) is not None:
            self._counts.add(codes)
        # Of data without labels none is unknown: no number of theirs reads one.
        unknown = np.zeros(len(out["mse"]), bool) if label is None else np.asarray(label) < 0
        self._unknown.append(unknown)
        for name, value in out.items():
            # The copy to the host, which waits for the device.
            rows = np.asarray(value, np.float64)
            if name == "kl_per_dim":
                # [B, D] numbers are merged into moments at once; of scalars per example all N are kept.
                # Moments take no row of which nothing is known.
                if len(rows := rows[~_without(rows, unknown)]):
                    self._kl.add(rows)
            elif name == "code":
                self._code.add(rows)
            else:
                self._values.setdefault(name, []).append(rows)

    def result(self, dims: int, cell_width: float | None, of_images: bool) -> Evaluation:
        self._take(self._pending)
        values = {name: np.concatenate(parts) for name, parts in self._values.items()}
        # Every model gives a squared error, so its length is the number of examples.
        n = len(values["mse"])
        observed = values.pop("observed", None)
        # Other numbers have no peak. An image without error has an infinite PSNR.
        if of_images:
            with np.errstate(divide="ignore"):
                values["psnr"] = -10.0 * np.log10(values["mse"])
        # Every bound on log p(x) has its bits per dimension.
        if cell_width is not None:
            bounds = {name: nats for name, nats in values.items() if name == "elbo" or name.startswith("iw_")}
            for name, nats in bounds.items():
                bits = "bits_per_dim" if name == "elbo" else f"{name}_bits_per_dim"
                per = dims if observed is None else np.maximum(observed, 1)
                values[bits] = bits_per_dim(nats, per, cell_width)
        counted = self._counts.metrics(n)
        if counted and "rate" in values:
            values["bits_per_image"] = values["rate"] / math.log(2)
        # Sorted as `METRICS` is, `iw_<k>` by its prefix and terms of the model's own at the end.
        order = [name.split("<")[0] for name in METRICS]
        rank = {name: next((i for i, o in enumerate(order) if name.startswith(o)), len(order)) for name in values}
        if observed is not None and observed.any():
            # An example of which nothing is observed has no error and no bits; its terms in nats count.
            by_entry = [name for name in values if name in ("mse", "psnr") or name.endswith("bits_per_dim")]
            values |= {name: values[name][observed > 0] for name in by_entry}
        unknown = np.concatenate(self._unknown)
        if unknown.any():
            # A metric that reads the label has no value where this is unknown; one that reads none of it keeps all.
            values = {name: rows[~_without(rows, unknown)] if len(rows) == n else rows for name, rows in values.items()}
            values = {name: rows for name, rows in values.items() if len(rows)}
        metrics = {name: Estimate.of(values[name]) for name in sorted(values, key=rank.__getitem__)}
        metrics |= counted
        kl = tuple(self._kl.mean.tolist()) if self._kl.count else None
        variance = None
        if self._code.count:
            # A one-hot variable is one dimension: the sum over its entries.
            spread = self._code.variance
            variance = tuple(spread.reshape(len(spread), -1).sum(-1).tolist())
            metrics["active_units"] = Estimate(float(sum(v > ACTIVE_VARIANCE for v in variance)), None, n)
        return Evaluation(metrics, n, kl, variance, int(unknown.sum()))


def _without(rows: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Returns bool [B], which numbers [B] or [B, D] are NaN because the label is unknown; any other NaN is one."""
    # A model that diverged gives NaN of other examples too, and these stay in the mean.
    return unknown & np.isnan(rows).reshape(len(rows), -1).all(-1)
