"""Data sets, split protocols and batches: `load(config, split) -> Source`, then `make_batch_fn` or `eval_batches`.

`DATASETS` names what there is: a data set is one file and one row of it, or a `DataSet` outside of this package.
Importing this package loads neither TensorFlow nor any reader library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from vae_jax.data import (
    augment,
    balance,
    catalog,
    cifar10,
    classes,
    color_sprites,
    digits,
    folder,
    labels,
    limit,
    mnist,
    npz,
    pick,
    prepared,
    series,
    simulated_counts,
    sprites,
    table,
    table_read,
    table_wine,
    vectors,
)
from vae_jax.data import config as config_lib
from vae_jax.data import split as split_lib
from vae_jax.data.catalog import Report
from vae_jax.data.config import DataConfig
from vae_jax.data.own import DataSet, Entry, entry_of
from vae_jax.data.pipeline import eval_batches, make_batch_fn, make_transform, permute, train_indices, transform
from vae_jax.data.source import SPLITS, Batch, Info, Source, from_arrays, no_validation
from vae_jax.data.stream import GrainStream
from vae_jax.data.table_options import Table
from vae_jax.errors import InputError, nearest, option, quoted, shown
from vae_jax.files.bounded import DEFAULT_BYTES
from vae_jax.options import registry
from vae_jax.options.registry import Kind

__all__ = [
    "DATASETS",
    "SPLITS",
    "Batch",
    "DataConfig",
    "DataSet",
    "Entry",
    "GrainStream",
    "Info",
    "Report",
    "Source",
    "choose",
    "classes",
    "describe",
    "entry",
    "eval_batches",
    "from_arrays",
    "limit",
    "load",
    "make_batch_fn",
    "make_transform",
    "permute",
    "prepare",
    "train_indices",
    "transform",
]


def _prepared_or(load_raw: Callable[[DataConfig, str], Source]) -> Callable[[DataConfig, str], Source]:
    """Returns a loader that also takes a prepared TFDS folder as `source`."""

    def load_either(config: DataConfig, split: str) -> Source:
        found = prepared.find(config.name, config.source) if config.source else None
        return load_raw(config, split) if found is None else prepared.load(config, split, found)

    return load_either


DATASETS: dict[str, Entry] = {
    "sprites": Entry(
        "binary shapes on the factor grid of dSprites, rendered from their factors (computed, 32x32 or 64x64)",
        "own; grid of Matthey et al. 2017, dSprites",
        sprites.PROTOCOLS,
        sprites.load,
        ("standard", "upright"),
        resizable=True,
        made="computed",
    ),
    "color_sprites": Entry(
        "the shapes of sprites, in 8 colors, which are one more factor (computed, 64x64 or 32x32)",
        "own; grid of Matthey et al. 2017, dSprites",
        color_sprites.PROTOCOLS,
        color_sprites.load,
        ("standard", "upright"),
        resizable=True,
        made="computed",
    ),
    "digits": Entry(
        "1,797 real handwritten digits, 8x8 (embedded in scikit-learn)",
        "Alpaydin and Kaynak 1998, UCI Optical Recognition of Handwritten Digits",
        digits.PROTOCOLS,
        digits.load,
        ("standard",),
        made="embedded",
    ),
    "counts": Entry(
        "2,000 simulated cells x 200 counts: negative binomial, from known factors and dispersions (computed)",
        "own; after the model of Lopez et al. 2018, scVI, doi 10.1038/s41592-018-0229-2",
        simulated_counts.PROTOCOLS,
        simulated_counts.load,
        ("standard",),
        made="computed",
        kind="vector",
    ),
    "mnist": Entry(
        "70,000 handwritten digits, 28x28 gray",
        "LeCun et al. 1998, Gradient-based learning applied to document recognition",
        {name: protocol.text for name, protocol in mnist.PROTOCOLS["mnist"].items()},
        mnist.load,
        mnist.validated("mnist"),
    ),
    "fashion_mnist": Entry(
        "70,000 articles of clothing, 28x28 gray",
        "Xiao et al. 2017, arXiv:1708.07747",
        {name: protocol.text for name, protocol in mnist.PROTOCOLS["fashion_mnist"].items()},
        mnist.load,
        mnist.validated("fashion_mnist"),
    ),
    "cifar10": Entry(
        "60,000 color photographs of 10 kinds, 32x32 (its official binary files)",
        "Krizhevsky 2009, Learning multiple layers of features from tiny images",
        cifar10.PROTOCOLS,
        cifar10.load,
        ("validation",),
    ),
    "npz": Entry(
        "your own arrays: a .npz with images (and labels, factors), or a .npy; name it with --data",
        "yours",
        split_lib.PROTOCOLS,
        _prepared_or(npz.load),
    ),
    "series": Entry(
        "your own series: an .npy [N, T, C], or a .npz with series (and labels); name it with --data",
        "yours",
        split_lib.PROTOCOLS,
        series.load,
        kind="sequence",
    ),
    "image_folder": Entry(
        "your own folder of .png or .jpg images, class folders as labels; name it with --data",
        "yours",
        split_lib.PROTOCOLS,
        _prepared_or(folder.load),
        resizable=True,
    ),
    "wine": Entry(
        "178 wines: a table of 13 measurements and the cultivar (embedded in scikit-learn)",
        "Aeberhard and Forina 1992, UCI Wine",
        table_wine.PROTOCOLS,
        table_wine.load,
        ("standard",),
        made="embedded",
        kind="vector",
    ),
    "vectors": Entry(
        "your own rows of numbers as they are, counts above all: an .npy [N, D], or an .npz with counts (and labels)",
        "yours",
        split_lib.PROTOCOLS,
        vectors.load,
        kind="vector",
    ),
    "table": Entry(
        "your own table: a .csv, .tsv or .parquet, or an array [N, D]; name it with --data",
        "yours",
        split_lib.PROTOCOLS,
        table.load,
        kind="vector",
    ),
}
TABLES = ("table", "wine")


def load(config: DataConfig, split: str = "train", read: Callable[[DataConfig, str], Source] | None = None) -> Source:
    """Returns one split of a data set, checked.

    Args:
      config: what to load.
      split: "train", "validation" or "test".
      read: reads the split in place of the data set's own reader (arrays that are in memory already, say).

    Raises:
      InputError: an unknown name, protocol or split, data that are missing or damaged, or a batch larger than the
        training split.
    """
    config_lib.check(config)
    row = entry(config.name)
    if config.protocol not in row.protocols:
        raise InputError(
            f"data.protocol: {config.shown!r} has no protocol {config.protocol!r}; "
            f"{nearest(config.protocol, row.protocols)}"
        )
    if split not in SPLITS:
        raise InputError(f"data split: unknown split {split!r}; {nearest(split, SPLITS)}")
    if split == "validation" and row.validated is not None and config.protocol not in row.validated:
        raise no_validation(config.shown, config.protocol, row.validated)
    if config.image_size is not None and not row.resizable:
        raise InputError(f"data.image_size: the images of {config.shown!r} have a fixed size; leave it unset")
    if row.cls is None and config.name != "image_folder":
        _refuse_picture_options(config, f"{config.shown!r} is not one")
    if not row.reads_files:
        _refuse_split_options(config)
    if row.cls is None and config.name != "npz" and config.range != "auto":
        raise InputError(
            f"data.range: is read for arrays of images alone, and {config.shown!r} has a range of its own; leave it out"
        )
    if row.cls is None and config.name not in TABLES and config.table.is_set:
        raise InputError(
            f"data.table.{config.table.first_set()}: is read for tables alone, and {config.shown!r} is not one; leave "
            "it out"
        )
    _check_source(config, row)
    source = labels.attach(limit.limited((read or row.load)(config, split), config.limit), config)
    source = balance.attach(source, config)
    augment.check(config.augment, source.info)
    training = source.info.sizes["train"]
    if config.batch_size > training:
        raise InputError(
            f"data.batch_size: {config.batch_size} is larger than the {training} training examples of "
            f"{config.shown!r}; use {option('data.batch_size', training)}{' or less' if training > 1 else ''}"
        )
    if split == "train" and config.workers and source.pipeline == "device":
        reads = option("data.pipeline", "grain")
        note = f"data.workers {config.workers} is not used: the examples are in memory ({reads} reads)"
        source = dataclasses.replace(source, info=dataclasses.replace(source.info, notes=(*source.info.notes, note)))
    return source


def choose(config: DataConfig, given: str) -> DataConfig:
    """Returns the options with the data set that `given` names, or that reads the path `given`.

    Options that mean something for one data set only (`source`, `protocol`, `splits`, `groups`, `table`,
    `config.OF_PICTURES`, `config.OF_ARRAYS`) are those of the old data set: they return to their defaults when the data
    set changes. All others are kept, and so are those of pictures for a folder in place of an experiment's own data
    set, which has them for this folder alone. The user's own files get a validation split (protocol "held-out") where
    they are named for the first time.

    Raises:
      InputError: nothing that is read; the line says what is.
    """
    if ":" in given and not Path(given).expanduser().exists():
        entry(given)
        name, source = given, None
    else:
        name, source = pick.pick(given, DATASETS)
    if source is not None and DATASETS[name].made:
        raise InputError(
            f"{option('data')} {given}: {name!r} is {DATASETS[name].made} and read from no folder; use "
            f"{option('data', name)}"
        )
    fresh = name != config.name or config.source is None
    # A run that is continued keeps its protocol; splits of a prepared folder were fixed before.
    own = source is not None and DATASETS[name].reads_files
    held_out = own and fresh and prepared.find(name, source) is None
    if name == config.name:
        protocol = "held-out" if held_out and config.protocol == "standard" else config.protocol
        return dataclasses.replace(config, source=source, protocol=protocol)
    protocol = "held-out" if held_out else "standard"
    meant = name == "image_folder" and entry(config.name).cls is not None
    others: dict[str, Any] = {"splits": None, "groups": None, "table": Table(), **config_lib.OF_ARRAYS}
    others |= {} if meant else config_lib.OF_PICTURES
    return dataclasses.replace(config, name=name, source=source, protocol=protocol, **others)


def _refuse_picture_options(config: DataConfig, because: str, group: str = "data.") -> None:
    """Raises for an option that only a folder of images reads."""
    for name, default in config_lib.OF_PICTURES.items():
        if name != "image_size" and getattr(config, name) != default:
            raise InputError(f"{group}{name}: is read for folders of images alone, and {because}; leave it out")


def _refuse_split_options(config: DataConfig) -> None:
    """Raises for an option that only the user's own examples read, which come without splits."""
    for name, default in (("splits", None), ("groups", None), ("stratify", False)):
        if getattr(config, name) != default:
            raise InputError(
                f"data.{name}: is read for your own files alone, and {config.shown!r} has splits of its own; leave it "
                "out"
            )


def _check_source(config: DataConfig, row: Entry) -> None:
    """Raises for a `source` that this data set does not read: training on other data would go unnoticed."""
    if config.source is None or row.cls is not None:
        return
    folder = Path(config.source).expanduser()
    # A folder of images may also hold other files; whoever says image_folder means the images. To search it for each
    # split would cost more than all other checks.
    if config.name == "image_folder" and folder.is_dir() and not prepared.is_prepared(folder):
        return
    # Arrays are pictures to --data; whoever says table or vectors means rows of numbers.
    if config.name in ("table", "vectors") and folder.suffix.lower() in table_read.ARRAYS:
        return
    try:
        reader = pick.pick(config.source, DATASETS)[0]
    except InputError:
        reader = None  # the data set's own reader says what is wrong
    typed = quoted(config.source)
    # Computed and embedded images are read from no folder, not even from a prepared one: their name selects them.
    fix = f"use {option('data', reader if reader and DATASETS[reader].made else config.source)}"
    if row.made:
        fix = "leave it out" if reader in (None, config.name) else fix
        raise InputError(
            f"data.source: {typed} is not read, because the examples of {config.name!r} are {row.made}; {fix}"
        )
    # Whoever says series of an array that may be pictures, too, has chosen.
    if reader not in (None, config.name) and (config.name, reader) != ("series", "npz"):
        raise InputError(f"data.source: {typed} is {reader!r} data, which {config.name!r} does not read; {fix}")


def describe() -> list[dict[str, str]]:
    """Returns one row a data set for `vae-jax data list`: name, summary, reference, protocols, where."""
    return [
        {
            "name": name,
            "summary": entry.summary,
            "reference": entry.reference,
            "protocols": ", ".join(entry.protocols),
            "where": "embedded" if entry.made else catalog.where(name),
        }
        for name, entry in DATASETS.items()
    ]


def prepare(
    name: str,
    from_dir: str | None = None,
    data_dir: str | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: Literal["auto", "grey", "rgb"] = "auto",
    fit: Literal["crop", "pad", "stretch"] = "crop",
    background: Literal["white", "black", "grey"] | tuple[int, int, int] = "white",
    skip_broken: bool = False,
    range: Literal["auto"] | tuple[float, float] = "auto",
    max_bytes: int = DEFAULT_BYTES,
) -> Report:
    """Writes a data set as a TFDS folder of array_record files under `data_dir` (or $TFDS_DATA_DIR); see `Report`.

    Args:
      name: of the data set, as in `--data.name`.
      from_dir: file or folder with the raw data; None looks where `load` looks.
      data_dir: root of the TFDS folders; None is $TFDS_DATA_DIR.
      image_size: side in pixels, or height and width, of a folder's images; None keeps their size.
      channels: as in `DataConfig`, and so are the next three.
      fit: how images become one of `image_size`.
      background: behind transparent pixels and beside padded images.
      skip_broken: whether files that cannot be read are passed over.
      range: of the numbers in arrays, as in `DataConfig`.
      max_bytes: most bytes that the arrays of a file may take, uncompressed.

    Returns:
      what was found and written, with checksums read back from it.

    Raises:
      InputError: an unknown data set, an option that it does not read, or as `catalog.prepare`; nothing was written.
    """
    row = entry(name)
    if row.cls is not None:
        raise InputError(
            f"data prepare: {name} is loaded by its own class, which nothing prepares; train with --data.name {name}"
        )
    if row.kind != "image":
        raise InputError(
            f"data prepare: {name!r} holds {row.kind}s, and only images are prepared; it is "
            f"{row.made or 'read as it is'}, so train with --data.name {name}"
        )
    if name not in prepared.NAMES:
        how = row.made or "read from its own files as they are"
        raise InputError(f"data prepare: {name!r} is {how}; train with --data.name {name}")
    if from_dir is not None and row.made:
        raise InputError(f"data prepare: {name!r} is {row.made}, so --from {shown(from_dir)} is not read; leave it out")
    if image_size is not None and not row.resizable:
        raise InputError(f"data prepare: the images of {name!r} have a fixed size; leave out --image-size")
    config = DataConfig(name, from_dir, image_size=image_size, channels=channels, fit=fit, background=background)
    config = dataclasses.replace(config, skip_broken=skip_broken, range=range, max_bytes=max_bytes)
    config_lib.check(config)
    if range != "auto" and name != "npz":
        raise InputError(f"data.range: is read for arrays of images alone, and {name!r} is none; leave it out")
    if name != "image_folder":
        _refuse_picture_options(config, f"{name!r} is not one", "")
    return catalog.prepare(config, data_dir)


def entry(name: str) -> Entry:
    """Returns the row of a data set: of the registry, or of a class that `package.module:Class` names.

    Raises:
      InputError: there is none of this name, or it is not a data set.
    """
    if name in DATASETS:
        return DATASETS[name]
    if ":" not in name:
        raise InputError(f"data.name: unknown data set {name!r}; {nearest(name, DATASETS)}")
    return entry_of(_KIND.find(name, "data.name"), registry.external(name))


_KIND = Kind("data set", DATASETS, "vae_jax.data.DataSet", methods=("load",), options=False)
