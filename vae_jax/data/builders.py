"""TFDS builders of ours: they write array_record files without TensorFlow and keep the order of the examples.

Importing this module loads tensorflow_datasets; only `prepare` does. The stock `mnist` and `fashion_mnist` builders
need TensorFlow to unpack their files, and shuffle the examples; ours read IDX files, arrays and images with numpy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from vae_jax.data import digits, folder, mnist, npz, prepared, record_files, sprites
from vae_jax.data.config import DataConfig
from vae_jax.data.source import ArrayRecords, Info, Records, Source
from vae_jax.errors import InputError
from vae_jax.files.atomic import temporary_folder

_CHUNK = 4096  # examples in memory at a time
_SHARD_BYTES = 256 << 20  # of pixels, before compression


@dataclass(frozen=True)
class Content:
    """What a builder writes: facts, and the records of each split in order."""

    info: Info
    splits: dict[str, Records]

    @cached_property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of each array of each split ("train/image"); reads all examples, so damage shows before writing."""
        sums: dict[str, Any] = {}
        for split, records in self.splits.items():
            for _, rows in _chunks(records):
                for name, value in rows.items():
                    sums.setdefault(f"{split}/{name}", hashlib.sha256()).update(np.ascontiguousarray(value).data)
        return {name: value.hexdigest() for name, value in sums.items()}


class _Computed:
    """Records that are computed on the device, a hundred times faster than in numpy."""

    def __init__(self, source: Source):
        self._size, self._fetch = source.size, jax.jit(lambda index: source.fetch({}, index))

    def __len__(self) -> int:
        return self._size

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        batch = self._fetch(index.astype(np.int32))
        return {name: np.asarray(value) for name, value in batch.items() if name != "index"}


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes a `Content`, which `vae_jax.data.load` reads."""

    VERSION = tfds.core.Version(prepared.VERSION)
    # TFDS looks beside the code for download checksums and descriptions; there are none, and its search for the
    # package fails for some editable installs.
    code_path = None
    pkg_dir_path = epath.Path(__file__).parent

    def __init__(self, *, content: Content, **kwargs: Any):
        self._content = content  # before the base class asks for the features
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        info = self._content.info
        pixels = np.float32 if info.values == "float" else np.uint8
        sample = next(iter(self._content.splits.values())).rows(np.arange(1))
        features: dict[str, tfds.features.FeatureConnector] = {
            "image": tfds.features.Tensor(shape=info.shape, dtype=pixels, encoding="bytes")
        }
        if "label" in sample:
            features["label"] = tfds.features.Scalar(dtype=np.int32)
        if "factors" in sample:
            features["factors"] = tfds.features.Tensor(shape=(len(info.factor_sizes),), dtype=np.int32)
        if "cond" in sample:
            features["cond"] = tfds.features.Tensor(shape=(info.cond_size,), dtype=np.float32, encoding="bytes")
        if "mask" in sample:  # bytes 0 and 1
            features["mask"] = tfds.features.Tensor(shape=info.shape, dtype=np.uint8, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{info.name} for vae_jax: {info.protocol_text}. From {info.where}.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(
                image_shape=list(info.shape),
                sizes={split: len(records) for split, records in self._content.splits.items()},
                num_classes=info.num_classes,
                label_names=list(info.label_names),
                factor_names=list(info.factor_names),
                factor_sizes=list(info.factor_sizes),
                cond_size=info.cond_size,
                protocol=info.protocol,
                protocol_text=info.protocol_text,
                values=info.values,
                where=info.where,
                checksums=self._content.checksums,
                unlabeled=info.unlabeled,
                **({} if info.units is None else {"range": list(info.units.range)}),
            ),
            disable_shuffling=True,  # the order is part of the split protocols and of the checksums
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator[tuple[int, dict[str, int | np.ndarray]]]]:
        del dl_manager
        return {split: self._generate_examples(split) for split in self._content.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, int | np.ndarray]]]:
        for start, rows in _chunks(self._content.splits[split]):
            for i in range(len(rows["image"])):
                yield (
                    start + i,
                    {
                        name: int(v[i]) if v.ndim == 1 else v[i].astype(np.uint8) if v.dtype == bool else v[i]
                        for name, v in rows.items()
                    },
                )


def _chunks(records: Records) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    for start in range(0, len(records), _CHUNK):
        yield start, records.rows(np.arange(start, min(start + _CHUNK, len(records))))


class VaeJaxMnist(Builder, skip_registration=True):
    """MNIST from IDX files: splits train (60,000) and test (10,000)."""

    name = "vae_jax_mnist"


class VaeJaxFashionMnist(Builder, skip_registration=True):
    """Fashion-MNIST from IDX files: splits train (60,000) and test (10,000)."""

    name = "vae_jax_fashion_mnist"


class VaeJaxDigits(Builder, skip_registration=True):
    """scikit-learn's digits: one split, train (1,797)."""

    name = "vae_jax_digits"


class VaeJaxSprites(Builder, skip_registration=True):
    """The whole sprites grid in its order: one split, train (737,280)."""

    name = "vae_jax_sprites"


class VaeJaxNpz(Builder, skip_registration=True):
    """The user's arrays, split by protocol standard."""

    name = "vae_jax_npz"


class VaeJaxImageFolder(Builder, skip_registration=True):
    """The user's images, split by protocol standard, all of one size."""

    name = "vae_jax_image_folder"


BUILDERS: dict[str, type[Builder]] = {
    "mnist": VaeJaxMnist,
    "fashion_mnist": VaeJaxFashionMnist,
    "digits": VaeJaxDigits,
    "sprites": VaeJaxSprites,
    "npz": VaeJaxNpz,
    "image_folder": VaeJaxImageFolder,
}


def content(config: DataConfig) -> Content:
    """Returns what is to be written, read from its raw form and checked.

    The embedded and the original files are written whole (protocols split them when they are loaded); the user's own
    data are split by protocol "standard" now.

    Args:
      config: the data set, where its raw data are, and what is done to images; `max_bytes` limits a file's arrays.

    Returns:
      the facts about the data, and the records of each split.
    """
    name, source = config.name, config.source
    whole = dataclasses.replace(config, protocol="full")
    if name in mnist.EDITIONS:
        raw = {file: mnist.read_raw(name, file, source) for file in ("train", "test")}
        info = mnist.describe(name, "standard", str(raw["train"][2]))
        arrays = {file: {"image": x[..., None], "label": y.astype(np.int32)} for file, (x, y, _) in raw.items()}
        return Content(info, {file: ArrayRecords(value) for file, value in arrays.items()})
    if name == "digits":
        return Content(digits.load(whole, "train").info, {"train": ArrayRecords(digits.arrays())})
    if name == "sprites":
        grid = sprites.load(whole, "train")
        return Content(grid.info, {"train": _Computed(grid)})
    if name == "npz":
        path = npz.find(source)
        rules = DataConfig("npz", range=config.range)
        way = "if it is yours, use --max-bytes {bytes}"
        try:
            held = npz.read(path, "standard", config.max_bytes, way=way, config=rules)
        except InputError as error:  # speaks of the options of training
            raise InputError(str(error).replace("--data.range", "--range")) from error
        info = npz.describe(name, held, "standard", str(path))
        return Content(info, {split: ArrayRecords(value) for split, value in held.splits.items()})
    files, info = folder.describe(config, group="")
    folder.check_scale(config, files, info, group="")
    records: dict[str, Records] = {
        split: folder.FolderRecords(f, info.shape, folder.fit(config), "") for split, f in files.items()
    }
    return Content(info, records)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TFDS from printing: it reports on stdout and through absl's logger, whatever the caller shows."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def prepare(config: DataConfig, data_dir: Path) -> tuple[Path, bool, tuple[str, ...]]:
    """Writes a data set under `data_dir` unless it is there.

    Args:
      config: as for `content`.
      data_dir: root of the TFDS folders.

    Returns:
      the folder of this version, True where it was there before, and what the user should know about the data.
    """
    name, data = config.name, content(config)
    options: dict[str, Any] = {}
    if name in ("npz", "image_folder"):  # several of these may lie side by side
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(data.info.where).resolve().stem)
        options["config"] = tfds.core.BuilderConfig(name=stem)
    elif name == "sprites":
        options["config"] = tfds.core.BuilderConfig(name=f"{data.info.shape[0]}x{data.info.shape[1]}")
    make = functools.partial(BUILDERS[name], content=data, file_format="array_record", **options)
    with _quiet():
        target = Path(make(data_dir=data_dir).data_path)
        if prepared.is_prepared(target):
            stored = prepared.metadata(target)["checksums"]
            if stored != data.checksums:
                raise InputError(f"data prepare: {target} holds other data; remove it, or choose another --data-dir")
            return target, True, data.info.notes
        data_dir.mkdir(parents=True, exist_ok=True)
        with temporary_folder(data_dir, ".incomplete-") as partial:
            builder = make(data_dir=str(partial))
            _write(builder, data)
            target.parent.mkdir(parents=True, exist_ok=True)
            Path(builder.data_path).rename(target)  # it appears only when it is whole
    return target, False, data.info.notes


def _write(builder: Builder, data: Content) -> None:
    """Writes all splits in order and in bounded memory.

    `download_and_prepare` of TFDS sorts the examples first, and above 1 GB it does so through TensorFlow's files.
    """
    pixels = 4 if data.info.values == "float" else 1
    per_shard = max(1, _SHARD_BYTES // (pixels * int(np.prod(data.info.shape))))
    Path(builder.data_path).mkdir(parents=True)
    writer = tfds.core.SequentialWriter(builder.info, per_shard, file_format="array_record")
    writer.initialize_splits(list(data.splits))
    for split in data.splits:
        examples = (example for _, example in builder._generate_examples(split))
        while chunk := list(itertools.islice(examples, _CHUNK)):
            writer.add_examples({split: chunk})
    writer.close_all()
    # So that streamed data can be verified without unpacking them.
    metadata = Path(builder.data_path) / "metadata.json"
    sums = {path.name: record_files.sha256(path) for path in sorted(metadata.parent.glob("*.array_record-*"))}
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"files": sums}))
