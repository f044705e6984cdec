"""Models with parts from outside the package, tried before anything is written: built, and traced once without numbers.

Parts of the package are tested in every combination; those of a user may raise, or give arrays of another shape, which
broadcasting would hide. Tracing takes a second or two and reads shapes alone.
"""

from __future__ import annotations

import itertools
import sys
import traceback
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import prng, spaces
from vae_jax.errors import InputError
from vae_jax.files.code import owner
from vae_jax.model import Batch, Model, Params, State
from vae_jax.runs import config as configs
from vae_jax.runs.kinds import PLACES, components
from vae_jax.spec import DataSpec

TAKEN = ("step", "split", "images_per_s", "grad_norm")  # what a line of metrics.jsonl holds besides the loss's own


def built(config: configs.Config, spec: DataSpec) -> Model:
    """Returns the model of a config for these data, after a trial where a part is from outside the package.

    Raises:
      InputError: the parts do not fit together or with the data; or one from outside raises, or gives something of
        another type or shape than the model needs.
    """
    own = {o: c for o, c in components(config).items() if type(c) not in PLACES[o].classes.values()}
    if not own:
        return _heeding(config.build(spec))
    try:
        model = config.build(spec)
        if not isinstance(model, Model):
            name = configs.kind("model", config.model)
            raise InputError(f"model: {name}.build returned {_kind(model)}; return a vae_jax.model.Model")
        _trial(_heeding(model), spec, ", ".join(own))
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a part that exits would pass for a finished training
        parts = ", ".join(configs.kind(option, component) for option, component in own.items())
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InputError(
            f"{', '.join(own)}: {parts} cannot be used ({text}{_line(error, own)}); correct the file"
        ) from error
    return model


def _heeding(model: Model) -> Model:
    """Returns the model; raises InputError where its data have missing values, and it would score these as well."""
    if not model.about.takes_mask:
        model.about.spec.refuse_mask()
    return model


class _Trial(NamedTuple):
    """What the steps of a trial share: the model, its state, B examples with what it is conditioned on, one key each.

    `parts` names the options of the parts from outside, for messages.
    """

    parts: str
    model: Model
    params: Params
    state: State
    key: jax.Array
    keys: jax.Array
    batch: Batch
    cond: Any

    @property
    def b(self) -> int:
        """Number of examples."""
        return self.keys.shape[0]

    @property
    def latents(self) -> Any:
        """The shapes of the latents of B examples."""
        return jax.tree.map(lambda space: (self.b, *space.shape), self.model.about.latents)

    def check(self, what: str, arrays: Any, wanted: Any) -> Any:
        """Returns the arrays; raises InputError where their shapes are not the wanted ones."""
        found = jax.tree.map(jnp.shape, arrays)
        if found != wanted:
            raise InputError(f"{self.parts}: {what} has the shape {found}, but it must be {wanted}; correct the class")
        return arrays


def _trial(model: Model, spec: DataSpec, parts: str) -> None:
    """Traces a training loss and every capability, and checks the shapes that they give."""
    b = _examples(model, spec)
    # Shapes alone go in: nothing is allocated, and code that reads a value of the data fails here as it would later.
    one = jax.eval_shape(spec.blank)
    batch = {name: jax.ShapeDtypeStruct((b, *leaf.shape[1:]), leaf.dtype) for name, leaf in one.items()}

    def run(key: jax.Array, one: Batch, batch: Batch) -> None:
        params, state = model.init(key, one)
        cond = None if model.condition is None else model.condition.features(params, state, batch)
        t = _Trial(parts, model, params, state, key, prng.example_keys(key, jnp.arange(b)), batch, cond)
        _core(t)
        _capabilities(t)

    jax.eval_shape(run, jax.eval_shape(partial(jax.random.key, 0)), one, batch)


def _examples(model: Model, spec: DataSpec) -> int:
    """Returns how many examples a trial has, B: 3 or more, and the length of no other axis, which could hide it."""
    axes = {*spec.x.shape, len(spec.factors), spec.cond, spec.classes, spaces.size(model.about.latents)}
    axes |= {n for space in spaces.leaves(model.about.latents) for n in (*space.shape, space.size)}
    return next(b for b in itertools.count(3) if b not in axes)


def _core(t: _Trial) -> None:
    """Tries what every model has: a training loss, the terms of an evaluation, encoding and decoding."""
    model, b, x = t.model, t.b, (t.b, *t.model.about.spec.x.shape)
    value, aux = model.loss(t.params, t.state, t.key, t.batch, model.context(t.batch))
    t.check("the loss of a batch", value, ())
    _metrics(t, aux.metrics)
    terms = model.terms(t.params, t.state, t.key, t.batch, model.context(t.batch, train=False))
    for name in ("elbo", "distortion", "rate", "mse"):
        if name in terms:
            t.check(f"the term {name} of {b} examples", terms[name], (b,))
    # The mean first, as `reconstruct` and the figures take it; then a draw, as the scores of codes do.
    z = t.check(f"the latent of {b} examples", model.encode(t.params, t.state, None, t.batch).z, t.latents)
    t.check(f"the latent drawn for {b} examples", model.encode(t.params, t.state, t.keys, t.batch).z, t.latents)
    p_x = model.decode(t.params, t.state, z, cond=t.cond)
    t.check(f"the mean of {b} decoded latents", p_x.mean(), x)
    t.check(f"the mode of {b} decoded latents", p_x.mode(), x)
    t.check(f"the draw of {b} decoded latents", p_x.sample(t.keys), x)


def _metrics(t: _Trial, metrics: Any) -> None:
    """Checks that what a loss logs can be written beside what the log itself writes."""
    for name, value in metrics.items():
        if not isinstance(name, str) or name in TAKEN:
            raise InputError(f"{t.parts}: the metric {name!r} cannot be logged under this name; give it another")
        if jnp.shape(value)[:1] == (t.b,):
            raise InputError(f"{t.parts}: the metric {name!r} has one value per example; log its mean")


def _capabilities(t: _Trial) -> None:
    """Tries what a model may have: a prior, densities, a classifier."""
    model, b, n = t.model, t.b, spaces.size(t.model.about.latents)
    if model.prior is not None:
        z = model.prior.sample(t.params, t.state, t.key, b, cond=t.cond)
        t.check(f"the latent of {b} draws from the prior", z, t.latents)
    if model.density is not None and model.density.bound is not None:
        bound = model.density.bound(t.params, t.state, t.key, t.batch, model.context(t.batch, train=False), 2)
        t.check(f"the bound of {b} examples", bound, (b,))
    if model.density is not None and model.density.joint is not None:
        joint = model.density.joint(t.params, t.state, t.batch)
        v = t.check(f"the joint's draw of z for {b} examples", joint.sample_prior(t.keys), (b, n))
        t.check(f"the joint's log p(z) of {b} examples", joint.prior.log_prob(v), (b,))
        t.check(f"the joint's log p(x|z) of {b} examples", joint.log_likelihood(v), (b,))
        drawn = joint.sample_data(t.keys, v)
        t.check(f"the joint's draw of x for {b} examples", drawn["x"], t.batch["x"].shape)
    if model.classifier is not None:
        features = model.classifier.embed(t.params, t.state, t.batch)
        t.check(f"the features of {b} examples", features, (b, *jnp.shape(features)[-1:]))


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _line(error: BaseException, own: dict[str, Any]) -> str:
    """Returns ", line 12 of mine.py" for the last line of the parts' own files that an error came through."""
    modules = {type(component).__module__ for component in own.values()}
    modules |= {n for n in sys.modules for code in map(owner, modules) if code and n.startswith(code.module)}
    files = {getattr(sys.modules[name], "__file__", None) for name in modules if name in sys.modules}
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    return f", line {lines[-1].lineno} of {lines[-1].filename.rpartition('/')[2]}" if lines else ""
