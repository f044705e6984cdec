"""MNIST and Fashion-MNIST from IDX files, with the split protocols of the literature by name."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vae_jax.data import idx, prepared
from vae_jax.data.config import DataConfig
from vae_jax.data.source import Info, Source, from_arrays
from vae_jax.errors import InputError, option

_STEMS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_TEST_SIZE = 10_000


@dataclass(frozen=True)
class Edition:
    """What tells the two data sets apart: mirror, labels, checksums of the uncompressed IDX files, system folders."""

    url: str
    labels: tuple[str, ...]
    sha256: dict[str, str]
    system: tuple[str, ...] = ()


EDITIONS = {
    "mnist": Edition(
        url="https://storage.googleapis.com/cvdf-datasets/mnist",
        labels=tuple("0123456789"),
        sha256={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion_mnist": Edition(
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        labels=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        sha256={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        system=("/usr/share/datasets/fashion-mnist",),  # Debian: package dataset-fashion-mnist
    ),
}


@dataclass(frozen=True)
class Protocol:
    """Rows of the original training file for train and validation; the test split is always the test file."""

    text: str
    train: int = 60_000
    validation: int = 0  # the rows that follow the training rows
    drawn_once: bool = False


_STANDARD = Protocol("60,000 train, no validation, 10,000 test: the original files")
_VAMPPRIOR = Protocol(
    "50,000 train, 10,000 validation (the last training rows), 10,000 test; train binarised afresh at each visit, "
    "validation and test drawn once with numpy RandomState(777), as Tomczak and Welling's code does",
    50_000,
    10_000,
    drawn_once=True,
)
PROTOCOLS = {
    "mnist": {
        "standard": _STANDARD,
        "iwae": Protocol(
            "59,600 train, 400 validation (the last training rows), 10,000 test, as Burda et al.; with binarize "
            "'dynamic' train is drawn afresh at each visit and evaluation with a fixed key",
            59_600,
            400,
        ),
        "vampprior": _VAMPPRIOR,
        "larochelle-split": Protocol(
            "50,000 train, 10,000 validation (the last training rows), 10,000 test: the sizes of Larochelle's "
            "binarized MNIST; with binarize 'static' the draw is our own, not his .amat files",
            50_000,
            10_000,
        ),
    },
    "fashion_mnist": {"standard": _STANDARD, "vampprior": _VAMPPRIOR},
}


def validated(name: str) -> tuple[str, ...]:
    """Returns the protocols of a data set that have a validation split."""
    return tuple(protocol for protocol, rows in PROTOCOLS[name].items() if rows.validation)


def folders(name: str, source: str | None) -> list[Path]:
    """Returns where raw files are looked for: `source` alone if given, else $VAE_JAX_DATA, cache, the system's copy."""
    if source is not None:
        return [Path(source).expanduser()]
    found = [Path(root) / name for root in [os.environ.get("VAE_JAX_DATA")] if root]
    found.append(idx.cache_folder() / name)
    found.extend(Path(path) for path in EDITIONS[name].system)
    return list(dict.fromkeys(found))


def read_raw(name: str, file: str, source: str | None = None) -> tuple[np.ndarray, np.ndarray, Path]:
    """Returns images uint8 [N, 28, 28], labels uint8 [N] and the folder of the "train" or "test" file, verified."""
    edition, looked = EDITIONS[name], folders(name, source)
    if source is not None and not looked[0].is_dir():
        raise InputError(
            f"data.source: {source!r} is not a folder; name the folder that holds the IDX files of {name!r}"
        )
    arrays, where = [], Path()
    for stem in _STEMS[file]:
        path = idx.find(looked, stem)
        if path is None and source is not None:
            raise InputError(f"data.source: {source!r} holds no {stem}[.gz]; copy the four IDX files of {name!r} there")
        if path is None:
            path = idx.fetch_missing(name, stem, edition.url, edition.sha256[stem], looked)
        arrays.append(idx.read_verified(path, edition.sha256[stem]))
        where = path.parent
    return arrays[0], arrays[1], where


def read_file(config: DataConfig, file: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Returns images, labels and where they came from: the prepared data set if there is one, else raw files."""
    folder = prepared.find(config.name, config.source)
    if folder is None:
        images, labels, where = read_raw(config.name, file, config.source)
        return images, labels, str(where)
    return *read_prepared(config.name, folder, file), str(folder)


def read_prepared(name: str, folder: Path, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels of a prepared folder, verified: put back into IDX form they have the pinned sums."""
    arrays = prepared.read(folder, file)
    images, labels = arrays["image"][..., 0], arrays["label"].astype(np.uint8)
    for stem, array in zip(_STEMS[file], (images, labels), strict=True):
        idx.verify(idx.to_bytes(array), EDITIONS[name].sha256[stem], f"{folder} ({stem})")
    return images, labels


def draw_once(images: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Returns a Bernoulli draw of gray images as uint8 0 or 255, with numpy's legacy binomial."""
    probability = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
    return (random.binomial(1, probability) * 255).astype(np.uint8).reshape(images.shape)


def load(config: DataConfig, split: str) -> Source:
    """Returns a split of `config.name` under `config.protocol`."""
    protocol = PROTOCOLS[config.name][config.protocol]
    if protocol.drawn_once and config.binarize != "dynamic":
        raise InputError(
            f"data.binarize: {config.binarize!r} does not fit data.protocol {config.protocol!r}, whose validation and "
            f"test images are binary; use {option('data.binarize', 'dynamic')}"
        )
    images, labels, where = read_file(config, "test" if split == "test" else "train")
    if protocol.drawn_once and split != "train":
        images = _drawn(config, protocol, split, images)
    elif split != "test":
        images = images[_rows(protocol, split)]
    if split != "test":
        labels = labels[_rows(protocol, split)]
    info = describe(config.name, config.protocol, where)
    if protocol.drawn_once and split != "train":
        info = replace(info, values="binary")
    arrays = {"image": np.ascontiguousarray(images)[..., None], "label": labels.astype(np.int32)}
    return from_arrays(info, split, arrays, config.pipeline)


def describe(name: str, protocol: str, where: str) -> Info:
    """Returns the facts about a data set under a protocol."""
    rows = PROTOCOLS[name][protocol]
    sizes = {"train": rows.train, "validation": rows.validation, "test": _TEST_SIZE}
    return Info(
        name,
        (28, 28, 1),
        {split: size for split, size in sizes.items() if size},
        protocol,
        rows.text,
        num_classes=10,
        label_names=EDITIONS[name].labels,
        where=where,
        checksums=EDITIONS[name].sha256,
    )


def _rows(protocol: Protocol, split: str) -> slice:
    end = protocol.train + protocol.validation
    return slice(0, protocol.train) if split == "train" else slice(protocol.train, end)


def _drawn(config: DataConfig, protocol: Protocol, split: str, images: np.ndarray) -> np.ndarray:
    """Validation is drawn before test from one generator: the test draw therefore needs the validation images."""
    random = np.random.RandomState(777)
    train = images if split == "validation" else read_file(config, "train")[0]
    validation = draw_once(train[_rows(protocol, "validation")], random)
    return validation if split == "validation" else draw_once(images, random)
