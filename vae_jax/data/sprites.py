"""Binary shapes on the factor grid of dSprites, rendered from their factors by a pure function.

3 shapes x 6 scales x 40 orientations x 32 x 32 positions = 737,280 images, each fixed by its factors. The grid and
the order of the factors are those of dSprites (https://github.com/google-deepmind/dsprites-dataset); the images are
our own and not equal to its. Everything is int32 arithmetic, so numpy, every device and every compiler option agree
on every pixel.

Lengths are in half pixels of the 64 x 64 image. A pixel is on when its center is inside the shape (no anti-aliasing).
At 32 x 32 the same scene is sampled at half the density, so one position step is half a pixel there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data.config import DataConfig
from vae_jax.data.shuffle import permute, permute_host
from vae_jax.data.source import Arrays, Batch, Info, Source
from vae_jax.errors import InputError

FACTOR_NAMES = ("shape", "scale", "orientation", "x", "y")
FACTOR_SIZES = (3, 6, 40, 32, 32)
SHAPES = ("square", "ellipse", "heart")
SIZE = math.prod(FACTOR_SIZES)
# Integers of numpy (on the host) or of jax: what goes in comes out.
Numbers = TypeVar("Numbers", np.ndarray, jax.Array)
HELD_OUT = 7_373  # 1 % of the grid, for each of validation and test
UPRIGHT_HELD_OUT = 1_843  # 10 %

_UNIT = 512  # fixed point of sines and of lengths in the shape's frame
_REACH = 31  # half pixels: pixels beyond are outside every shape; keeps u*u + 4*v*v under 2**31
_SIDE = 36  # side of the square at scale 1; the other shapes have its area
_AREA = _SIDE**2


def _tables() -> dict[str, np.ndarray]:
    """Returns int32 tables: sine and cosine [40], and lengths by scale [6] in units of half pixel / 512."""
    # Half a step is added to the angle so that no edge lies along the rows: an upright square that moves by half a
    # pixel at 32 x 32 would often cross no pixel center, and then two positions would look the same.
    angle = (np.arange(40) + 0.5) * (2 * np.pi / 40)
    scale = np.linspace(0.5, 1.0, 6) * _UNIT
    # A heart is a square that stands on its tip, with a half disc on each of its two upper sides.
    heart = math.sqrt(_AREA / (1 + np.pi / 4))
    diagonal = heart * math.sqrt(2)
    centroid = 0.9286435352515321 * heart  # from the tip, along the axis
    lengths = {
        "half": _SIDE / 2,
        "long": math.sqrt(2 * _AREA / np.pi),  # the ellipse's axes are 2 : 1
        "tip": centroid,
        "notch": diagonal,
        "disc_along": 0.75 * diagonal - centroid,
        "disc_aside": 0.25 * diagonal,
        "disc_radius": heart / 2,
    }
    tables = {"cos": np.cos(angle) * _UNIT, "sin": np.sin(angle) * _UNIT}
    tables |= {name: scale * length for name, length in lengths.items()}
    return {name: np.rint(value).astype(np.int32) for name, value in tables.items()}


_TABLES = _tables()


def factors_of(index: Numbers, xp: ModuleType = jnp, sizes: tuple[int, ...] = FACTOR_SIZES) -> Numbers:
    """Returns the factors int32 [..., F] of flat indices [...] of a grid; the last factor, y, varies fastest."""
    index = xp.asarray(index, dtype=np.int32)
    digits = []
    for size in reversed(sizes):
        digits.append(index % np.int32(size))
        index = index // np.int32(size)
    return xp.stack(digits[::-1], axis=-1)


def index_of(factors: Numbers, xp: ModuleType = jnp, sizes: tuple[int, ...] = FACTOR_SIZES) -> Numbers:
    """Returns the flat indices int32 [...] of factors [..., F]; the inverse of `factors_of`."""
    factors = xp.asarray(factors, dtype=np.int32)
    index = factors[..., 0]
    for i in range(1, len(sizes)):
        index = index * np.int32(sizes[i]) + factors[..., i]
    return index


def render(factors: Numbers, image_size: int = 32, xp: ModuleType = jnp) -> Numbers:
    """Returns the images of factors; pure, and jittable with `xp` = jax.numpy.

    Position x is the column of the shape's center, from left to right, and y its row, from top to bottom: in the
    64 x 64 image the center is at pixel 16.5 + x, 16.5 + y, and every shape is wholly inside the image.

    Args:
      factors: int32 [B, 5] in the order of `FACTOR_NAMES`, each in [0, FACTOR_SIZES).
      image_size: S, 32 or 64.
      xp: jax.numpy, or numpy for the host.

    Returns:
      uint8 [B, S, S, 1], 0 or 255.
    """
    shape, scale, orientation, x, y = (xp.asarray(factors, dtype=np.int32)[:, i, None, None] for i in range(5))
    table = {name: xp.asarray(value) for name, value in _TABLES.items()}
    length = {name: table[name][scale] for name in table if name not in ("cos", "sin")}
    cos, sin = table["cos"][orientation], table["sin"][orientation]

    pixel = xp.asarray((128 // image_size) * np.arange(image_size, dtype=np.int32) + 64 // image_size)
    dx = xp.clip(pixel[None, None, :] - (33 + 2 * x), -_REACH, _REACH)  # [B, 1, S]
    dy = xp.clip(pixel[None, :, None] - (33 + 2 * y), -_REACH, _REACH)  # [B, S, 1]
    u, v = cos * dx + sin * dy, cos * dy - sin * dx  # in the shape's frame, [B, S, S]
    aside = abs(u)

    # Not max(|u|, |v|) <= half: the fused program that XLA:GPU of jax 0.11.2 makes of it is wrong, and a third of the
    # squares of a compiled step were other pictures than those of the host.
    square = (u * u <= length["half"] ** 2) & (v * v <= length["half"] ** 2)
    ellipse = u * u + 4 * v * v <= length["long"] ** 2
    from_tip = length["tip"] - v
    diamond = (aside <= from_tip) & (aside + from_tip <= length["notch"])
    disc = (v + length["disc_along"]) ** 2 + (aside - length["disc_aside"]) ** 2 <= length["disc_radius"] ** 2
    inside = xp.where(shape == 0, square, xp.where(shape == 1, ellipse, diamond | disc))
    return (inside[..., None] * np.uint8(255)).astype(np.uint8)


class Form(NamedTuple):
    """A data set of sprites: the gray ones of this module, or others with more factors.

    Attributes:
      name: of the registry.
      names: of its factors, the slowest first; `shape` among them is the label too.
      sizes: number of values of each factor.
      render: `(factors int32 [B, F], image_size, xp) -> uint8 [B, S, S, C]`, pure.
      channels: C.
      image_size: S where none is chosen.
      values: of the pixels, as `Info.values` has it.
    """

    name: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    render: Callable[..., Any]
    channels: int = 1
    image_size: int = 32
    values: Literal["grey", "binary"] = "binary"

    @property
    def upright(self) -> tuple[int, ...]:
        """The same grid with the first orientation alone."""
        return tuple(1 if name == "orientation" else size for name, size in zip(self.names, self.sizes, strict=True))

    @property
    def protocols(self) -> dict[str, str]:
        """One sentence for each protocol."""
        size, upright = math.prod(self.sizes), math.prod(self.upright)
        return {
            "standard": f"a fixed pseudo-random split of the {size:,} images: {size - 2 * HELD_OUT:,} train, "
            f"{HELD_OUT:,} validation, {HELD_OUT:,} test",
            "full": f"all {size:,} images for training, and the same images as the test split (no validation split), "
            "as the disentanglement literature does",
            "upright": f"the {upright:,} images of the first orientation, which is no factor then, in a fixed "
            f"pseudo-random split: {upright - 2 * UPRIGHT_HELD_OUT:,} train, {UPRIGHT_HELD_OUT:,} validation, "
            f"{UPRIGHT_HELD_OUT:,} test",
        }


FORM = Form("sprites", FACTOR_NAMES, FACTOR_SIZES, render)
PROTOCOLS = FORM.protocols

# The split is the permutation of the grid under this key: its last positions are the test set. Never change it.
_SPLIT_WORDS = np.array([0x1804, 0x03599], np.uint32)


@dataclass(frozen=True)
class _Part:
    """The images of one split: those at positions `first` and after of the permuted grid; None is no permutation."""

    form: Form
    sizes: tuple[int, ...]
    first: int | None
    image_size: int

    @property
    def names(self) -> tuple[str, ...]:
        """The factors that vary."""
        return tuple(name for name, size in zip(self.form.names, self.sizes, strict=True) if size > 1)

    def grid_index(self, position: Any, xp: ModuleType = jnp) -> Any:
        """Returns flat indices int32 [B] of positions [B] in the split."""
        position = xp.asarray(position, dtype=np.int32)
        if self.first is None:
            return position
        size = math.prod(self.sizes)
        if xp is np:
            return permute_host(_SPLIT_WORDS, position + self.first, size, np.zeros_like(position))
        return permute(jax.random.wrap_key_data(jnp.asarray(_SPLIT_WORDS)), position + self.first, size)

    def examples(self, position: Any, xp: ModuleType = jnp) -> dict[str, Any]:
        """Returns images, labels and the factors that vary, of positions [B] in the split."""
        factors, names = factors_of(self.grid_index(position, xp), xp, self.sizes), self.form.names
        vary = np.array([names.index(name) for name in self.names])
        image = self.form.render(factors, self.image_size, xp)
        return {"image": image, "label": factors[:, names.index("shape")], "factors": factors[:, vary]}


@dataclass(frozen=True)
class _Records:
    """The images of one split by random access, in numpy for grain's readers."""

    part: _Part
    size: int

    def __len__(self) -> int:
        return self.size

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        return self.part.examples(index, np)


def load(config: DataConfig, split: str, form: Form = FORM) -> Source:
    """Returns a split of the sprites of a form; nothing is stored, `fetch` renders on the device."""
    image_size = config.image_size or form.image_size
    if not isinstance(image_size, int) or image_size not in (32, 64):
        shown = image_size if isinstance(image_size, int) else "x".join(map(str, image_size))
        raise InputError(f"data.image_size: {form.name!r} cannot be rendered at {shown}; use 32 or 64")
    grid, held_out = (form.upright, UPRIGHT_HELD_OUT) if config.protocol == "upright" else (form.sizes, HELD_OUT)
    size = math.prod(grid)
    sizes = {"train": size - 2 * held_out, "validation": held_out, "test": held_out}
    first: int | None = {"train": 0, "validation": size - 2 * held_out, "test": size - held_out}[split]
    if config.protocol == "full":
        sizes, first = {"train": size, "test": size}, None
    part = _Part(form, grid, first, image_size)
    info = Info(
        form.name,
        (image_size, image_size, form.channels),
        sizes,
        config.protocol,
        form.protocols[config.protocol],
        num_classes=3,
        label_names=SHAPES,
        factor_names=part.names,
        factor_sizes=tuple(size for size in grid if size > 1),
        values=form.values,
        where="computed",
    )
    pipeline = "grain" if config.pipeline == "grain" else "device"
    return Source(info, split, sizes[split], {}, _fetch(part), _Records(part, sizes[split]), pipeline)


@functools.cache
def _fetch(part: _Part) -> Callable[[Arrays, jax.Array], Batch]:
    """Returns `Source.fetch` of a split, the same function for the same split."""

    def fetch(arrays: Arrays, index: jax.Array) -> Batch:
        index = jnp.asarray(index, jnp.int32)
        return {"index": index, **part.examples(index)}

    return fetch
