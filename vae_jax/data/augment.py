"""Augmentation of training images: flip, shift and crop, drawn anew at each visit of an example.

Each example has a key of its own for each visit, as all noise has: the same run draws the same changes on any number of
devices, from memory or from disk, and after a resume. Evaluation never changes an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.data.source import Info
from vae_jax.errors import InputError, option
from vae_jax.options.ranges import AtLeast, Between


@dataclass(frozen=True)
class Augment:
    """Random changes of training images; evaluation sees the images as they are."""

    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    """Mirror half of the images: left and right (horizontal), top and bottom (vertical), or each in turn (both)."""
    shift: Annotated[int, AtLeast(0)] = 0
    """Move an image by up to so many pixels along each axis; what comes in repeats the edge."""
    crop: Annotated[float, Between(0.1, 1)] = 1.0
    """Least side of the window that is cut out and resized to the whole image (bilinear), as a share of its side."""

    @property
    def changes(self) -> bool:
        """Whether anything is changed."""
        return self != Augment()


def check(config: Augment, info: Info) -> None:
    """Raises InputError for data whose examples cannot be changed in these ways.

    Args:
      config: the changes.
      info: facts of the data.
    """
    if not config.changes:
        return
    changed = next(name for name, default in vars(Augment()).items() if getattr(config, name) != default)
    where, off = f"data.augment.{changed}", option(f"data.augment.{changed}", getattr(Augment(), changed))
    if info.kind != "image":
        raise InputError(f"{where}: it changes images, but these data are of kind {info.kind}; use {off}")
    if info.factor_names:
        names = ", ".join(info.factor_names[:5])
        raise InputError(
            f"{where}: a changed image no longer has the factors of {info.name!r} ({names}); use {off}, or data "
            "without factors"
        )
    if config.shift >= min(info.shape[:2]):
        side = min(info.shape[:2])
        raise InputError(
            f"data.augment.shift: {config.shift} moves images of side {side} out of sight; use "
            f"{option('data.augment.shift', side - 1)} or less"
        )


def augmented(config: Augment, keys: jax.Array, image: jax.Array) -> jax.Array:
    """Returns changed images, in the order crop, shift, flip.

    Args:
      config: the changes.
      keys: one per example and visit [B], consumed.
      image: stored pixels [B, H, W, C], uint8 or float32 in [0, 1].

    Returns:
      [B, H, W, C] of the type of `image`; gray levels stay gray levels, rounded where a crop interpolates.
    """
    # A number per change: switching one on or off leaves the draws of the others as they were.
    if config.crop < 1:
        image = _crop(prng.numbered_keys(keys, 0), image, config.crop)
    if config.shift:
        image = _shift(prng.numbered_keys(keys, 1), image, config.shift)
    if config.flip != "none":
        image = _flip(prng.numbered_keys(keys, 2), image, config.flip)
    return image


def moved(config: Augment, keys: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns what is observed of changed images, bool [B, H, W, C].

    Args:
      config: the changes.
      keys: those of the images, so that the same is drawn.
      mask: what is observed of the images as they were, bool [B, H, W, C].
    """
    # An interpolated pixel is observed where all that it is made of is, to a thousandth: for rounding.
    return augmented(config, keys, mask.astype(jnp.float32)) > 0.999


def _flip(keys: jax.Array, image: jax.Array, axes: str) -> jax.Array:
    mirrored = prng.uniform(keys, (2,)) < 0.5
    for number, (name, axis) in enumerate((("vertical", 1), ("horizontal", 2))):
        if axes in (name, "both"):
            image = jnp.where(mirrored[:, number, None, None, None], jnp.flip(image, axis), image)
    return image


def _shift(keys: jax.Array, image: jax.Array, most: int) -> jax.Array:
    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        # The whole numbers from -most to most, all equally often.
        down, right = jax.random.randint(key, (2,), -most, most + 1)
        height, width, _ = image.shape
        rows = jnp.clip(jnp.arange(height) - down, 0, height - 1)
        columns = jnp.clip(jnp.arange(width) - right, 0, width - 1)
        return image[rows][:, columns]

    return jax.vmap(one)(keys, image)


def _crop(keys: jax.Array, image: jax.Array, least: float) -> jax.Array:
    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        # The window's side and place, all in shares of the image: side in [least, 1], and then anywhere that fits.
        share, *place = jax.random.uniform(key, (3,))
        side = least + (1 - least) * share
        size = jnp.asarray(image.shape[:2], jnp.float32)
        start = jnp.stack(place) * (1 - side) * size
        scale = jnp.full((2,), 1.0 / side)
        return jax.image.scale_and_translate(
            image.astype(jnp.float32), image.shape, (0, 1), scale, -start / side, "linear", antialias=False
        )

    made = jax.vmap(one)(keys, image)
    # Interpolated values lie between those of their neighbors, but for rounding.
    if image.dtype == jnp.uint8:
        return jnp.clip(jnp.rint(made), 0, 255).astype(jnp.uint8)
    return jnp.clip(made, 0.0, 1.0)
