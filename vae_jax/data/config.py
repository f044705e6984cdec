"""The options of a data set: one frozen dataclass that the command line is generated from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from vae_jax.errors import InputError
from vae_jax.files.bounded import DEFAULT_BYTES
from vae_jax.options.ranges import AtLeast
from vae_jax.options.registry import external


@dataclass(frozen=True)
class DataConfig:
    """Which data, which split protocol, and what is done to a pixel before the model sees it."""

    name: str = "sprites"
    """Data set: sprites, digits, counts (embedded), mnist, fashion_mnist, npz, image_folder (see `vae-jax data list`),
    or a class of your own, package.module:Class."""
    source: str | None = None
    """Folder or file with the data of `name`; `--data PATH` sets both by what the path is."""
    batch_size: Annotated[int, AtLeast(1)] = 64
    """Examples a training step, over all devices."""
    protocol: str = "standard"
    """Named train/validation/test split of the data set; see `vae-jax data list`."""
    binarize: Literal["none", "dynamic", "static", "threshold"] = "none"
    """Gray to binary: none; dynamic = a fresh draw each visit; static = one draw per image; threshold = above 0.5."""
    dequantize: bool = False
    """Add uniform noise of one gray level, x = (v + u) / 256: for densities over real pixels."""
    image_size: int | None = None
    """Side in pixels: sprites 32 (default) or 64; image_folder resizes the short side and crops the center."""
    limit: int | None = None
    """Keep only N training examples: the first, or evenly spread ones of folders and sorted arrays; None keeps all."""
    labels: int | None = None
    """Labeled training examples, as many of each class: semi-supervised training; None: every label is known."""
    label_seed: int = 0
    """Seed that chooses the labeled examples; `seed` does not change them."""
    pipeline: Literal["auto", "device", "grain"] = "auto"
    """device = whole split in device memory; grain = read by the host with prefetch; auto = device up to 1 GiB."""
    workers: int = 0
    """Reader processes of the grain pipeline; 0 reads with threads of this process."""
    max_bytes: int = DEFAULT_BYTES
    """Most bytes that one file or prepared split may take in memory; a file that claims more is refused."""

    @property
    def shown(self) -> str:
        """The name as messages and results have it: `experiment:Class` for a class of an experiment file."""
        return external(self.name)


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
    if config.image_size is not None and config.image_size < 1:
        raise InputError(f"data.image_size: {config.image_size} is not positive; use the side in pixels")
    for field, known in (
        ("binarize", ("none", "dynamic", "static", "threshold")),
        ("pipeline", ("auto", "device", "grain")),
    ):
        if getattr(config, field) not in known:  # a config built in Python is not checked by tyro
            raise InputError(f"data.{field}: {getattr(config, field)!r} is unknown; use one of {', '.join(known)}")
    if config.dequantize and config.binarize != "none":
        raise InputError(
            f"data.dequantize: it adds noise to gray levels, but data.binarize is {config.binarize!r}; use one of them"
        )
