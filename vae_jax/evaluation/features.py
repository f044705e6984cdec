"""Real and generated images as features: raw pixels, of a classifier or Inception, or the user's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.errors import InputError, option
from vae_jax.evaluation.codes import draw
from vae_jax.evaluation.needs import require
from vae_jax.files import bounded

if TYPE_CHECKING:
    from vae_jax.evaluation.subject import Subject

PIXELS = "pixels"
CHUNK = 500  # images drawn, or looked at, at a time


class Pair(NamedTuple):
    """Features of both sets and what they are.

    Attributes:
      real: of the split, [N, F].
      generated: of samples of the prior, [M, F].
      text: of the protocol: how many, of what, seen by which extractor.
      frechet: of the protocol: what the Frechet distance of these features is called, and what it compares with.
    """

    real: np.ndarray
    generated: np.ndarray
    text: str
    frechet: str = ""


class Extractor(NamedTuple):
    """A function of images and what it is.

    Attributes:
      extract: images [N, H, W, C] -> features [N, F].
      name: of the protocol.
      frechet: as of `Pair`.
    """

    extract: Callable[[np.ndarray], np.ndarray]
    name: str
    frechet: str = ""


def pair(subject: Subject) -> Pair:
    """Returns the features of a split and of samples of the prior, as `--features` and `--samples` select them.

    They are made once per subject: several metrics share them.

    Raises:
      InputError: no prior, an extractor that is none or takes images of another size, or features that do not match.
    """
    return subject.once("features", lambda: _pair(subject))


def _pair(subject: Subject) -> Pair:
    asked = subject.settings.features
    # Features of the user's own, for both sets: no image is drawn.
    if asked.endswith(".npz"):
        real, generated = read(Path(asked))
        return Pair(real, generated, f"{len(generated):,} against {len(real):,} rows of features in {Path(asked).name}")
    extract, name, frechet = extractor(subject)
    images, made = subject.images, generate(subject)
    # Bandwidths are of the first rows, and jackknife groups of rows that follow each other: neither may be one class.
    real, generated = extract(images)[subject.mixing], extract(made)
    # The images are finite by now, so an extractor that diverged is the cause. The scores know only arrays.
    if not (np.isfinite(real).all() and np.isfinite(generated).all()):
        raise InputError(
            f"{option('features', asked)}: its features of these images are not finite; name another classifier, or "
            f"use {option('features', PIXELS)}"
        )
    text = (
        f"{len(made):,} samples E[x|z], z ~ p(z), against {len(images):,} images of the {subject.split} split; "
        f"features: {name}, {real.shape[1]} of them"
    )
    return Pair(real, generated, text, frechet)


def generate(subject: Subject) -> np.ndarray:
    """Returns mean images E[x|z], z ~ p(z), float32 [n, H, W, C]; n is `--samples`, or as many as are measured.

    A conditional model receives the conditions of the images of the split, in the order of `Subject.mixing` and again
    from the start.

    Raises:
      InputError: the model has no prior, or samples that are not finite.
    """
    model, n = subject.run.model, subject.settings.samples or subject.size
    require("generation metrics", ("prior", "images"), model, subject.source.info)
    key = prng.site_key(subject.key, "generation")
    cond = None
    if model.condition is not None and subject.codes.cond is not None:
        # Conditions for whole chunks: `np.resize` starts over when they run out.
        cond = np.resize(subject.codes.cond[subject.mixing], (-(-n // CHUNK) * CHUNK, subject.codes.cond.shape[1]))
    parts = []
    # Always CHUNK draws, of which the last may be cut: one program, and sample j is the same whatever n is.
    for i, start in enumerate(range(0, n, CHUNK)):
        given = None if cond is None else cond[start : start + CHUNK]
        parts.append(draw(model, subject.state, jax.random.fold_in(key, i), CHUNK, cond=given)[: n - start])
    images = np.concatenate(parts)
    if not np.isfinite(images).all():
        raise InputError(f"{subject.run.path}: samples of the prior are not finite; lower the learning rate")
    return images


def extractor(subject: Subject) -> Extractor:
    """Returns the function images [N, H, W, C] -> features [N, F] that `--features` names, and its name.

    Raises:
      InputError: it is neither `pixels` nor weights of Inception-v3 nor a finished run with a classifier of images of
        this size.
    """
    asked = subject.settings.features
    if asked == PIXELS:
        return Extractor(lambda images: images.reshape(len(images), -1), "raw pixels")
    path = Path(asked)
    if not path.exists():
        raise InputError(
            f"{option('features', asked)}: "
            f"no such file or folder; use {PIXELS}, the run of a classifier, a .safetensors of "
            "Inception-v3, or an .npz of features"
        )
    # A file holds the weights of Inception-v3; arrays of features were read before.
    if path.is_file():
        from vae_jax.evaluation import inception_weights as inception

        extract, frechet = inception.extractor(path, subject.run.spec.x.shape, subject.size)
        return Extractor(extract, f"inception:{path.name}", frechet)
    # A folder is the run of a classifier, which must be finished and take images of this shape.
    run = subject.run.load(asked)
    if run.model.classifier is None:
        raise InputError(
            f"{option('features', asked)}: its model does not provide a classifier; train one with "
            "`vae-jax train features_mnist`"
        )
    embed = run.model.classifier.embed
    if tuple(run.spec.x.shape) != tuple(subject.run.spec.x.shape):
        seen, wanted = ("x".join(map(str, shape)) for shape in (run.spec.x.shape, subject.run.spec.x.shape))
        raise InputError(
            f"{option('features', asked)}: "
            f"a classifier of {seen} images cannot look at {wanted} ones; train one on this run's "
            "data"
        )
    state = run.restore()
    if int(state.step) < run.last_step:
        raise InputError(
            f"{option('features', asked)}: unfinished, at step {int(state.step)} of {run.last_step}; train on"
        )

    def hidden(images: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(images), CHUNK):
            part = images[start : start + CHUNK]
            # The last chunk is filled up with black images, so that one program serves all.
            padded = np.pad(part, ((0, CHUNK - len(part)), *((0, 0),) * 3))
            found.append(np.asarray(_program(embed)(state, padded))[: len(part)])
        return np.concatenate(found)

    # The step is part of the name: features of two states of a classifier do not compare.
    return Extractor(hidden, f"classifier:{run.experiment}@{int(state.step)}")


@functools.lru_cache(maxsize=8)
def _program(embed: Callable[..., Any]) -> Callable[..., jax.Array]:
    # The weights are an argument; as a closure they would be constants of the program.
    return jax.jit(lambda state, x: embed(state.eval_params, state.model_state, {"x": jnp.asarray(x)}))


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the arrays `real` [N, F] and `generated` [M, F] of an .npz, the features of an extractor of one's own.

    Raises:
      InputError: no such file, or not these arrays in it.
    """
    held = bounded.arrays(path, option=option("features"))
    missing = [name for name in ("real", "generated") if name not in held]
    if missing:
        raise InputError(f"{option('features', path)}: no array {missing[0]!r} in it; it needs real and generated")
    real, generated = held["real"], held["generated"]
    # Strings, objects and truth values are refused here, before arithmetic fails on them.
    if real.dtype.kind not in "fiu" or generated.dtype.kind not in "fiu":
        raise InputError(f"{option('features', path)}: real and generated must be numbers")
    return real, generated
