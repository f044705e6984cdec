"""Sprites in color: the shapes of `sprites`, each in one of eight hues on black.

8 colors x 3 shapes x 6 scales x 40 orientations x 32 x 32 positions = 5,898,240 images. The color is the first factor,
as it is in dSprites, where it has one value. Saturation and value are the same in all colors and no channel is 0, so
that every shape can be seen in every channel.
"""

from __future__ import annotations

from types import ModuleType

import jax.numpy as jnp
import numpy as np

from vae_jax.data import sprites
from vae_jax.data.config import DataConfig
from vae_jax.data.source import Source
from vae_jax.data.sprites import Form, Numbers

# Hues of 0, 45, ... 315 degrees at saturation 3/4 and value 1. Stored as they are: data that runs were trained on.
COLORS = (
    (255, 64, 64),
    (255, 207, 64),
    (159, 255, 64),
    (64, 255, 112),
    (64, 255, 255),
    (64, 112, 255),
    (159, 64, 255),
    (255, 64, 207),
)
FACTOR_NAMES = ("color", *sprites.FACTOR_NAMES)
FACTOR_SIZES = (len(COLORS), *sprites.FACTOR_SIZES)
_COLORS = np.array(COLORS, np.uint8)


def render(factors: Numbers, image_size: int = 64, xp: ModuleType = jnp) -> Numbers:
    """Returns the images of factors; pure, and jittable with `xp` = jax.numpy.

    Args:
      factors: int32 [B, 6] in the order of `FACTOR_NAMES`, each in [0, FACTOR_SIZES).
      image_size: S, 32 or 64.
      xp: jax.numpy, or numpy for the host.

    Returns:
      uint8 [B, S, S, 3].
    """
    factors = xp.asarray(factors, dtype=np.int32)
    # A sprite is 255 or 0 everywhere: all bits of the color, or none.
    color = xp.asarray(_COLORS)[factors[:, 0]][:, None, None, :]
    return sprites.render(factors[:, 1:], image_size, xp) & color


FORM = Form("color_sprites", FACTOR_NAMES, FACTOR_SIZES, render, channels=3, image_size=64, values="grey")
PROTOCOLS = FORM.protocols


def load(config: DataConfig, split: str) -> Source:
    """Returns a split of the sprites in color; nothing is stored, `fetch` renders on the device."""
    return sprites.load(config, split, FORM)
