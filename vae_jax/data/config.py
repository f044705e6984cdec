"""The options of a data set: one frozen dataclass that the command line is generated from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from vae_jax.data.augment import Augment
from vae_jax.data.table_options import Table
from vae_jax.errors import InputError, option
from vae_jax.files.bounded import DEFAULT_BYTES
from vae_jax.options.ranges import AtLeast, Each
from vae_jax.options.registry import external

_COLORS = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128)}
MOST_RANGE, LEAST_RANGE = 1e38, 1e-30  # float32 ends at 3.4e38 and 1.2e-38
# Options that mean something for one data set, the user's folder of images (`image_size` also for sprites).
OF_PICTURES = {"image_size": None, "channels": "auto", "fit": "crop", "background": "white", "skip_broken": False}
OF_ARRAYS = {"range": "auto"}  # the same of arrays of images


@dataclass(frozen=True)
class Color:
    """The range of a color: one of the names, or red, green and blue from 0 to 255."""

    words: str = f"{', '.join(_COLORS)}, or three numbers R G B from 0 to 255"

    def holds(self, value: str | tuple[int, int, int]) -> bool:
        return value in _COLORS if isinstance(value, str) else all(0 <= level <= 255 for level in value)


@dataclass(frozen=True)
class Weights:
    """The range of class weights: one of the names, or numbers that are not negative."""

    words: str = "none, balanced, or a number of 0 or more for each class"

    def holds(self, value: str | tuple[float, ...]) -> bool:
        if isinstance(value, str):
            return value in ("none", "balanced")
        return bool(value) and all(0 <= weight < math.inf for weight in value)


@dataclass(frozen=True)
class Ends:
    """The range of a range: two numbers, the lower one first, whose distance float32 holds."""

    words: str = "auto, or two numbers LOW HIGH with LOW < HIGH, within 1e38 of 0"

    def holds(self, value: str | tuple[float, float]) -> bool:
        if isinstance(value, str):
            return value == "auto"
        low, high = value
        return low < high and max(abs(low), abs(high)) <= MOST_RANGE and high - low > LEAST_RANGE


@dataclass(frozen=True)
class DataConfig:
    """Which data, which split protocol, and what is done to a pixel before the model sees it."""

    name: str = "sprites"
    """Data set: sprites, color_sprites, digits, counts, wine (embedded), mnist, fashion_mnist, cifar10, npz,
    image_folder, table, series, vectors (see `vae-jax data list`), or a class of your own, package.module:Class."""
    source: str | None = None
    """Folder or file with the data of `name`; `--data PATH` sets both by what the path is."""
    batch_size: Annotated[int, AtLeast(1)] = 64
    """Examples a training step, over all devices."""
    protocol: str = "standard"
    """Named train/validation/test split of the data set; see `vae-jax data list`. `--data` of your own files chooses
    held-out, which has a validation split."""
    splits: str | None = None
    """Your own files: .npz or .json with lists train, validation and test, or .csv path,split; row numbers or names."""
    groups: str | None = None
    """image_folder: .csv path,group, or `folder` for the folder below the class folder; table: a column. A group is in
    one split. An .npz has an array groups."""
    stratify: bool = False
    """Your own files: hold out a tenth of each class, not of all examples; of data with groups, whole groups that
    together have nearly that."""
    binarize: Literal["none", "dynamic", "static", "threshold"] = "none"
    """Gray to binary: none; dynamic = a fresh draw each visit; static = one draw per image; threshold = above 0.5."""
    dequantize: bool = False
    """Add uniform noise of one gray level, x = (v + u) / 256: for densities over real pixels."""
    augment: Augment = field(default_factory=Augment)
    """Random changes of training images."""
    image_size: Annotated[int | tuple[int, int] | None, Each(AtLeast(1), "one side, or H W, of 1 pixel or more")] = None
    """Side in pixels, or height and width: sprites 32 (default) or 64, color_sprites 64 (default) or 32; images of a
    folder are resized as `fit` says."""
    channels: Literal["auto", "grey", "rgb"] = "auto"
    """image_folder: what all images are converted to; auto = as they are stored, and a mixture is refused."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """image_folder, with `image_size`: crop = the center; pad = the whole image on the background; stretch."""
    background: Annotated[Literal["white", "black", "grey"] | tuple[int, int, int], Color()] = "white"
    """image_folder: color behind transparent pixels and beside padded images."""
    skip_broken: bool = False
    """image_folder: pass over files that are damaged or not readable, and count them; all are decoded once more."""
    range: Annotated[Literal["auto"] | tuple[float, float], Ends()] = "auto"
    """npz: LOW HIGH of the numbers, which are 0 and 1 to the model, and LOW and HIGH again in what is written; auto =
    integers 0 255; floats 0 1, or where they go beyond it -1 1 or 0 255."""
    table: Table = field(default_factory=Table)
    """Kinds of the columns of a table."""
    limit: int | None = None
    """Keep only N training examples: the first, or evenly spread ones of folders and sorted arrays; None keeps all."""
    labels: int | None = None
    """Labeled training examples, as many of each class: semi-supervised training; None: every label is known."""
    label_seed: int = 0
    """Seed that chooses the labeled examples; `seed` does not change them."""
    balance: Literal["none", "draws"] = "none"
    """draws = training draws each class equally often; evaluation does not."""
    class_weights: Annotated[Literal["none", "balanced"] | tuple[float, ...], Weights()] = "none"
    """Weights of training losses by class, of mean 1: balanced = 1 / examples of the class; or a number per class."""
    pipeline: Literal["auto", "device", "grain"] = "auto"
    """device = whole split in device memory; grain = read by the host with prefetch; auto = device up to 1 GiB."""
    workers: int = 0
    """Reader processes of the grain pipeline; 0 reads with threads of this process."""
    max_bytes: int = DEFAULT_BYTES
    """Most bytes that one file or prepared split may take in memory; a file that claims more is refused, but not an
    .npy of images, which is read row by row above 1 GiB."""

    @property
    def shown(self) -> str:
        """The name as messages and results have it: `experiment:Class` for a class of an experiment file."""
        return external(self.name)

    @property
    def size(self) -> tuple[int, int] | None:
        """`image_size` as height and width."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def color(self) -> tuple[int, int, int]:
        """The background as red, green and blue."""
        return _COLORS[self.background] if isinstance(self.background, str) else self.background


def check(config: DataConfig) -> None:
    """Raises `InputError` for values that are wrong whatever the data set."""
    if config.batch_size < 1:
        raise InputError(f"data.batch_size: {config.batch_size} is not positive; use 1 or more")
    if config.limit is not None and config.limit < 1:
        raise InputError(f"data.limit: {config.limit} is not positive; use 1 or more, or none for all examples")
    if config.labels is not None and config.labels < 1:
        raise InputError(f"data.labels: {config.labels} is not positive; use 1 or more, or none for all labels")
    if not 0 <= config.label_seed < 2**32:
        raise InputError(f"data.label_seed: {config.label_seed} is out of range; it must be in [0, 2^32)")
    if config.max_bytes < 1:
        raise InputError(f"data.max_bytes: {config.max_bytes} is not positive; use a number of bytes, 1 or more")
    if config.workers < 0:
        raise InputError(f"data.workers: {config.workers} is negative; use 0 (threads of this process) or more")
    if config.size is not None and min(config.size) < 1:
        shown = config.image_size if isinstance(config.image_size, int) else " ".join(map(str, config.size))
        raise InputError(f"data.image_size: {shown} is not positive; use the side in pixels, or height and width")
    if not Color().holds(config.background):
        raise InputError(f"data.background: {config.background} is unknown; it must be {Color().words}")
    if not Ends().holds(config.range):
        given = config.range if isinstance(config.range, str) else " ".join(f"{end:g}" for end in config.range)
        raise InputError(f"data.range: {given} is out of range; it must be {Ends().words}")
    for name, known in (
        ("binarize", ("none", "dynamic", "static", "threshold")),
        ("pipeline", ("auto", "device", "grain")),
        ("balance", ("none", "draws")),
        ("channels", ("auto", "grey", "rgb")),
        ("fit", ("crop", "pad", "stretch")),
    ):
        if getattr(config, name) not in known:  # a config built in Python is not checked by tyro
            raise InputError(f"data.{name}: {getattr(config, name)!r} is unknown; use one of {', '.join(known)}")
    if not Weights().holds(config.class_weights):
        raise InputError(f"data.class_weights: {config.class_weights} is out of range; it must be {Weights().words}")
    if config.balance != "none" and config.class_weights != "none":
        raise InputError(
            "data.class_weights: data.balance makes classes count equally already; use "
            f"{option('data.class_weights', 'none')}, or {option('data.balance', 'none')}"
        )
    if config.dequantize and config.binarize != "none":
        raise InputError(
            f"data.dequantize: it adds noise to gray levels, but data.binarize is {config.binarize!r}; use one of them"
        )
