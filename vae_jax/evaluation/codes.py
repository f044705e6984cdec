"""Whole splits to codes, and codes to images, a batch at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng, spaces
from vae_jax.errors import InputError, option
from vae_jax.evaluation.likelihood import model_inputs
from vae_jax.model import Model, features_of
from vae_jax.spaces import Space
from vae_jax.train.state import TrainState

Pixels = Literal["mean", "mode", "sample"]
CHUNK = 256  # codes decoded at a time


class Codes(NamedTuple):
    """The codes of N examples, on the host, in the order of the batches.

    Attributes:
      mean: E[z|x], or the code of a deterministic model, float32 [N, D]; int32 where codes are indices.
      log_var: log variance of q(z|x), float32 [N, D]; None for a deterministic model.
      z: one posterior sample per example, float32 [N, D]; None if none was requested.
      index: position in the data set, int32 [N].
      extra: whatever else the batches held for each example (`label` [N], `factors` [N, F]).
      cond: the features that the codes must be decoded with, float32 [N, F]; None for a model without a condition.
      paths: the file of each example, relative to the folder that was given; () where they have none.
      label_names: one name per class, by its number; () where classes have none.
    """

    mean: np.ndarray
    log_var: np.ndarray | None
    z: np.ndarray | None
    index: np.ndarray
    extra: dict[str, np.ndarray]
    cond: np.ndarray | None = None
    paths: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()


def encode_all(
    model: Model,
    state: TrainState,
    batches: Iterable[Mapping[str, Any]],
    *,
    key: jax.Array | None = None,
    report: Callable[[int], None] = lambda seen: None,
) -> Codes:
    """Returns the codes of every example.

    Args:
      model: its pure functions.
      state: a trained state.
      batches: as for `evaluate`; entries besides `x` and `index` are passed on in `extra`.
      key: if given, also draws z ~ q(z|x), keyed by each example's index.
      report: called with the number of examples done.

    Returns:
      codes in the order of the batches, on the host; `z` is None without a key.

    Raises:
      InputError: no example.
    """
    # Cached by the identity of the model's functions: a second split of the same batch shape compiles nothing.
    program = _encode_program(model, key is not None)
    parts: dict[str, list[np.ndarray]] = {}
    seen = 0
    for batch in batches:
        n = len(batch["x"])
        index = jnp.asarray(batch.get("index", np.arange(seen, seen + n)), jnp.int32)
        out = program(state, key, model_inputs(batch), index)
        # Latents of any shape and number of levels become vectors here, and latents again in `decode_all`.
        out |= {name: spaces.vector(model.about.latents, out[name]) for name in ("mean", "z") if name in out}
        # The prefix keeps entries of the batch apart from those of the model.
        rest = {f"extra/{name}": value for name, value in batch.items() if name not in ("x", "mask", "index")}
        for name, value in {**out, **rest, "index": index}.items():
            parts.setdefault(name, []).append(np.asarray(value))
        seen += n
        report(seen)
    if seen == 0:
        raise InputError("nothing to encode: there are no examples")
    whole = {name: np.concatenate(value) for name, value in parts.items()}
    extra = {name.removeprefix("extra/"): value for name, value in whole.items() if name.startswith("extra/")}
    return Codes(whole["mean"], whole.get("log_var"), whole.get("z"), whole["index"], extra, whole.get("cond"))


def decode_all(
    model: Model,
    state: TrainState,
    z: np.ndarray,
    *,
    cond: np.ndarray | None = None,
    pixels: Pixels = "mean",
    key: jax.Array | None = None,
    scaled_by: tuple[str, float] | None = None,
) -> np.ndarray:
    """Returns data float32 [..., *x.shape] for latents as vectors [..., n].

    Args:
      model: its pure functions.
      state: a trained state.
      z: latents as vectors; any leading axes.
      cond: features of the codes of a conditional model (`Codes.cond`), [..., F] with the leading axes of z, or axes
        that broadcast to them.
      pixels: "mean" is E[x|z], "mode" the most probable x, "sample" a draw from p(x|z).
      key: of the draw; needed for "sample" only.
      scaled_by: the option that scales the latents and its value, which a latent beyond float32 is blamed on.

    Returns:
      on the host, in the units of the data (pixels in [0, 1]).

    Raises:
      InputError: a conditional model without `cond`, or latents that `scaled_by` makes infinite or NaN.
    """
    with np.errstate(over="ignore"):  # what overflows here is refused next
        # Indices stay whole: float32 would round those of more than 2^24 codes.
        z = np.asarray(z, np.int32 if np.asarray(z).dtype.kind in "iu" else np.float32)
    if scaled_by is not None and not np.isfinite(z).all():
        raise _not_finite(*scaled_by)
    # All leading axes in one: [M, n].
    flat = z.reshape(-1, z.shape[-1])
    features = None
    if cond is not None:
        # One row of features per latent, also where one row serves a whole walk.
        features = np.broadcast_to(np.asarray(cond, np.float32), (*z.shape[:-1], cond.shape[-1]))
        features = features.reshape(-1, cond.shape[-1])
    program = _decode_program(model.decode, pixels)
    size = min(CHUNK, 1 << max(len(flat) - 1, 0).bit_length())  # few sizes, so few compilations
    base = jax.random.key(0) if key is None else key
    images = []
    for start in range(0, len(flat), size):
        part = flat[start : start + size]
        # A key belongs to the place among all latents, so that the size of a chunk changes no draw.
        index = jnp.arange(start, start + size, dtype=jnp.int32)
        # The last chunk is filled up with zeros, so that one program serves all.
        padding = ((0, size - len(part)), (0, 0))
        given = None if features is None else np.pad(features[start : start + size], padding)
        z_shaped = spaces.shaped(model.about.latents, np.pad(part, padding))
        made = program(state, prng.example_keys(base, index), z_shaped, given)
        images.append(np.asarray(made)[: len(part)])
    x = np.concatenate(images)
    return x.reshape(*z.shape[:-1], *x.shape[1:])


def _not_finite(name: str, value: float) -> InputError:
    return InputError(
        f"{option(name)}: {value:g} is out of range; it makes codes that are not finite in float32; "
        f"{'lower it' if value > 0 else 'raise it'}"
    )


def draw(
    model: Model,
    state: TrainState,
    key: jax.Array,
    n: int,
    *,
    cond: np.ndarray | None = None,
    temperature: float = 1.0,
    pixels: Pixels = "mean",
    choices: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Returns n examples float32 [n, *x.shape] from the prior, with the features `cond` [n, F] of a conditional model.

    Without `cond` a conditional model takes the values of its first variable in turn. The noise does not depend on it.

    Args:
      model: its pure functions; `prior` is needed.
      state: a trained state.
      key: of the draw of z and of pixels.
      n: how many.
      cond: features [n, F] of a conditional model, or None.
      temperature: scales the standard deviation of the prior where that has a meaning.
      pixels: "mean" is E[x|z], "mode" the most probable x, "sample" a draw from p(x|z).
      choices: further ones of those that `PriorFns.takes` lists; a `prompt` is an array [n, P], the others are numbers.

    Returns:
      on the host, in the units of the data (pixels in [0, 1]).

    Raises:
      InputError: the model has no prior, nothing stands for the features that it needs, or the temperature makes
        latents that are not finite.
    """
    prior, features = model.drawn_from(n, cond)
    arrays = {name: value for name, value in (choices or {}).items() if isinstance(value, np.ndarray)}
    numbers = tuple(sorted((name, value) for name, value in (choices or {}).items() if name not in arrays))
    program = _sample_program(prior.sample, model.decode, n, pixels, numbers)
    # The temperature is an array, so that a new value does not recompile.
    with np.errstate(over="ignore"):
        images, finite = program(state, key, np.asarray(temperature, np.float32), features, arrays)
    # At 1 or less, weights that diverged are the cause.
    if temperature > 1 and not finite:
        raise _not_finite("temperature", temperature)
    return np.asarray(images)


def label_features(model: Model, state: TrainState, label: np.ndarray) -> np.ndarray:
    """Returns the features [n, F] of labels int [n].

    Raises:
      InputError: this model does not take labels, or not this one.
    """
    classes = 0 if model.condition is None else model.condition.classes
    if model.condition is None or not classes:
        fix = f"train one with {option('model.condition.on', 'label')}, or m2"
        raise InputError(f"this model does not take labels; {fix}")
    label = np.asarray(label)
    # Under jit an index out of range raises nothing: it would be clamped or dropped.
    bad = label[(label < 0) | (label >= classes)] if label.dtype.kind in "iu" else label[:1]
    if len(bad):
        raise InputError(f"label {bad[0]}: the model has {classes} labels; use 0 to {classes - 1}")
    batch = {"label": jnp.asarray(label, jnp.int32)}
    return np.asarray(model.condition.features(state.eval_params, state.model_state, batch))


def _look(p_x: Any, pixels: Pixels, keys: jax.Array) -> jax.Array:
    if pixels == "sample":
        return p_x.sample(keys)
    return p_x.mode() if pixels == "mode" else p_x.mean()


def _encode_program(model: Model, drawn: bool) -> Callable[..., dict[str, Any]]:
    latents = model.about.latents
    # `lru_cache` needs hashable arguments: the tree of latents goes in as its leaves and its structure.
    return _encoder(model.encode, features_of(model), tuple(spaces.leaves(latents)), jax.tree.structure(latents), drawn)


@functools.lru_cache(maxsize=32)
def _encoder(
    encode: Callable[..., Any],
    features: Callable[..., Any] | None,
    levels: tuple[Space, ...],
    structure: Any,
    drawn: bool,
) -> Callable[..., dict[str, Any]]:
    """Returns the compiled encoder; its arguments are what can be hashed of a model."""

    def run(state: TrainState, key: jax.Array | None, batch: dict[str, jax.Array], index: jax.Array):
        # Without keys the code is the mean of q(z|x).
        code = encode(state.eval_params, state.model_state, None, batch)
        out = {"mean": code.z}
        if features is not None:
            out["cond"] = features(state.eval_params, state.model_state, batch)
        if code.posterior is not None:
            # One posterior per level, joined along the last axis in the order of the levels.
            variances = [q.variance() for q in structure.flatten_up_to(code.posterior)]
            out["log_var"] = jnp.log(variances[0] if len(levels) == 1 else jnp.concatenate(variances, -1))
            if drawn:
                assert key is not None
                keys = prng.example_keys(prng.site_key(key, "posterior"), index)
                # The compiler shares the encoder with the mean above.
                out["z"] = encode(state.eval_params, state.model_state, keys, batch).z
        return out

    return jax.jit(run)


@functools.lru_cache(maxsize=32)
def _decode_program(decode: Callable[..., Any], pixels: Pixels) -> Callable[..., jax.Array]:
    return jax.jit(
        lambda state, keys, z, cond: _look(decode(state.eval_params, state.model_state, z, cond=cond), pixels, keys)
    )


@functools.lru_cache(maxsize=32)
def _sample_program(
    sample: Callable[..., Any], decode: Callable[..., Any], n: int, pixels: Pixels, numbers: tuple[tuple[str, Any], ...]
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Returns the compiled program of (examples [n, *x.shape], whether all latents are finite)."""

    def run(
        state: TrainState,
        key: jax.Array,
        temperature: jax.Array,
        cond: jax.Array | None,
        arrays: dict[str, jax.Array],
    ) -> Any:
        # Latents and pixels have sites of their own: "sample" decodes the same latents as "mean".
        drawn = prng.site_key(key, "prior")
        params, model_state = state.eval_params, state.model_state
        z = sample(params, model_state, drawn, n, cond=cond, temperature=temperature, **dict(numbers), **arrays)
        p_x = decode(params, model_state, z, cond=cond)
        finite = jnp.stack([jnp.isfinite(level).all() for level in jax.tree.leaves(z)]).all()
        return _look(p_x, pixels, jax.random.split(prng.site_key(key, "pixels"), n)), finite

    return jax.jit(run)
