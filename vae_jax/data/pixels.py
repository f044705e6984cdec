"""From stored pixels to float32 in [0, 1]: scaling, binarization, dequantization; pure, one key per example.

Random bits come from a keyed hash of the pixel's number (two MurmurHash3 finalizers under 64 key bits), not from
threefry: 128 MNIST images cost 24 us instead of 215-510 us, which is 3-8 % of an MLP's train step. The key of each
example does come from threefry.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.data import augment
from vae_jax.data.config import DataConfig
from vae_jax.data.shuffle import mix
from vae_jax.data.source import Arrays, Batch
from vae_jax.errors import InputError, option

_STATIC_SEED = 20151106  # the key of "static": a constant, so that every run sees the same binary data set


def bits16(keys: jax.Array, count: int) -> jax.Array:
    """Returns uniform integers in [0, 2**16) as uint32 [B, count], from one key per example."""
    words = jax.vmap(jax.random.key_data)(keys)
    counter = jnp.arange(count, dtype=jnp.uint32)[None, :] * np.uint32(0x9E3779B9)
    return mix(mix(counter ^ words[:, :1]) + words[:, 1:2]) >> 16


def bernoulli(keys: jax.Array, image: jax.Array) -> jax.Array:
    """Returns a binary draw, float32 [B, H, W, C], with P(1) = v / 255 (uint8) or v (float32).

    16 random bits per pixel: P(1) is exact at 0 and 255 and elsewhere off by less than 1.6e-5.
    """
    bits = bits16(keys, image[0].size).reshape(image.shape)
    if image.dtype == jnp.uint8:
        return (bits * 255 < image.astype(jnp.uint32) << 16).astype(jnp.float32)
    return (bits.astype(jnp.float32) < image * 65536.0).astype(jnp.float32)


def scale(image: jax.Array) -> jax.Array:
    """Returns float32 in [0, 1]: uint8 v / 255; float32 as it is."""
    return image.astype(jnp.float32) / 255.0 if image.dtype == jnp.uint8 else image


def dequantize(keys: jax.Array, image: jax.Array) -> jax.Array:
    """Returns (v + u) / 256 in (0, 1), u uniform: float32 [B, H, W, C] from uint8.

    Raises:
      InputError: the images are floats, which have no gray levels to fill.
    """
    if image.dtype != jnp.uint8:
        raise InputError(
            f"data.dequantize: it fills the gaps between 256 gray levels, but the images are {image.dtype}; "
            f"store them as uint8, or use {option('data.dequantize', False)}"
        )
    noise = (bits16(keys, image[0].size).reshape(image.shape).astype(jnp.float32) + 0.5) / 65536.0
    return (image.astype(jnp.float32) + noise) / 256.0


def transform(config: DataConfig, *, train: bool = True, split: str = "train") -> Callable[[jax.Array, Arrays], Batch]:
    """Returns the pure function `(key, batch) -> batch` that turns stored pixels into the model's float32 images.

    Args:
      config: `augment`, `binarize` and `dequantize` say what is done, in this order. "dynamic" draws afresh for each
        visit; "static" is one fixed draw per image (own draw, not Larochelle's .amat files), whatever the key;
        "threshold" is v > 127.5 / 255.
      train: True augments, and keys the noise of an example by `batch["visit"]` (its number in the run), where there is
        one. False keys it by `batch["index"]`, so that evaluation does not depend on the batch size.
      split: the split's name; it keys the static draw, as indices start at 0 in every split.

    Returns:
      A function; the stored pixels `image`, uint8 or float32 [B, H, W, C], become `x`, float32 in [0, 1], which is 0
      where a `mask` says that nothing was observed; other entries pass, and so does a batch that holds `x` already
      (data that are no images).
    """

    def apply(key: jax.Array, batch: Arrays) -> Batch:
        if "image" not in batch:
            return dict(batch)
        image = jnp.asarray(batch["image"])
        if train and config.augment.changes:
            ids = batch["visit"] if "visit" in batch else batch["index"]
            keys = prng.example_keys(prng.site_key(key, "augment"), jnp.asarray(ids))
            image = augment.augmented(config.augment, keys, image)
            if "mask" in batch:
                batch = {**batch, "mask": augment.moved(config.augment, keys, jnp.asarray(batch["mask"]))}
        if config.binarize == "threshold":
            image = (image > (127 if image.dtype == jnp.uint8 else 0.5)).astype(jnp.float32)
        elif config.binarize == "static":
            fixed = prng.site_key(jax.random.key(_STATIC_SEED), f"static/{split}")
            image = bernoulli(prng.example_keys(fixed, jnp.asarray(batch["index"])), image)
        elif config.binarize == "dynamic" or config.dequantize:
            ids = batch["visit"] if train and "visit" in batch else batch["index"]
            keys = prng.example_keys(prng.site_key(key, "pixels"), jnp.asarray(ids))
            image = bernoulli(keys, image) if config.binarize == "dynamic" else dequantize(keys, image)
        else:
            image = scale(image)
        if "mask" in batch:  # whatever noise made of a value that is not there
            image = jnp.where(batch["mask"], image, 0.0)
        return {name: value for name, value in batch.items() if name != "image"} | {"x": image}

    return apply
