"""Models with parts from outside the package, tried before anything is written: built, and traced once without numbers.

Parts of the package are tested in every combination; those of a user may raise, or give arrays of another shape, which
broadcasting would hide. Tracing takes a second and allocates nothing.
"""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from vae_jax.errors import InputError
from vae_jax.files.code import owner
from vae_jax.model import Model
from vae_jax.runs import config as configs
from vae_jax.runs.kinds import KINDS, components
from vae_jax.spec import DataSpec

if TYPE_CHECKING:
    from vae_jax.runs.config import Config

B = 3  # examples of the trial; no other axis is likely to be as long


def built(config: Config, spec: DataSpec) -> Model:
    """Returns the model of a config for these data, after a trial where a part is from outside the package.

    Raises:
      InputError: the parts do not fit together or with the data; or one from outside raises, or gives something of
        another type or shape than the model needs.
    """
    own = {o: c for o, c in components(config).items() if type(c) not in KINDS[o].classes.values()}
    if not own:
        return config.build(spec)
    try:
        model = config.build(spec)
        if not isinstance(model, Model):
            name = configs.kind("model", config.model)
            raise InputError(f"model: {name}.build returned {_kind(model)}; return a vae_jax.model.Model")
        _trial(model, spec, ", ".join(own))
    except InputError:
        raise
    except Exception as error:
        parts = ", ".join(configs.kind(option, component) for option, component in own.items())
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InputError(
            f"{', '.join(own)}: {parts} cannot be used ({text}{_line(error, own)}); correct the file"
        ) from error
    return model


def _trial(model: Model, spec: DataSpec, parts: str) -> None:
    """Traces initialization, a training loss, encoding and decoding, and checks the shapes that they give."""
    batch = jax.tree.map(lambda x: jnp.repeat(x, B, axis=0), spec.blank())
    key = jax.random.key(0)

    def run() -> Any:
        params, state = model.init(key, spec.blank())
        value, _ = model.loss(params, state, key, batch, model.context(batch))
        z = model.encode(params, state, None, batch).z
        wanted = jax.tree.map(lambda space: (B, *space.shape), model.about.latents)
        _check(parts, f"the latent of {B} examples", jax.tree.map(jnp.shape, z), wanted)
        cond = None if model.condition is None else model.condition.features(params, state, batch)
        p_x = model.decode(params, state, z, cond=cond)
        return value, p_x.mean()

    value, mean = jax.eval_shape(run)
    _check(parts, "the loss of a batch", value.shape, ())
    _check(parts, f"the mean of {B} decoded latents", mean.shape, (B, *spec.x.shape))


def _check(parts: str, what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise InputError(f"{parts}: {what} has the shape {found}, but it must be {wanted}; correct the class")


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
