"""Prepared data sets: TFDS folders of ours in array_record form, found and read without TensorFlow.

Pixels are stored as raw bytes, one example a record, in the data set's order, so 60,000 MNIST images are read in
about a second (TFDS's own decoding takes four) and the pinned checksums can be verified on what was read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data import split as split_lib
from vae_jax.data.config import DataConfig
from vae_jax.data.source import DEVICE_BYTES, Info, Source, from_arrays, no_validation, not_in_memory
from vae_jax.errors import InputError

PREFIX = "vae_jax_"  # keeps our data sets apart from TFDS's own of the same name
VERSION = "1.0.0"
_CHUNK = 8192  # records read at a time


def is_prepared(folder: Path) -> bool:
    """Says whether `folder` is a finished TFDS folder."""
    return (folder / "dataset_info.json").is_file()


def find(name: str, source: str | None) -> Path | None:
    """Returns the prepared folder to read for a data set: `source` if it is one, else that in $TFDS_DATA_DIR, or None.

    A `source` that holds raw files gives None: what the user names is what is read.
    """
    if source is not None:
        folder = Path(source).expanduser()
        if not is_prepared(folder):
            return None
        stored = _info(folder).get("name")
        if stored != PREFIX + name:
            raise InputError(f"data.source: {source!r} holds the prepared data set {stored!r}, not {PREFIX + name!r}")
        return folder
    root = os.environ.get("TFDS_DATA_DIR")
    if not root:
        return None
    folder = Path(root) / (PREFIX + name) / VERSION
    return folder if is_prepared(folder) else None


def _info(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "dataset_info.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: dataset_info.json is damaged ({error}); prepare the data set again") from None


def load(config: DataConfig, split: str, folder: Path) -> Source:
    """Returns a split of the user's own data (npz, image_folder) that was prepared into `folder`."""
    if config.protocol != "standard":
        raise InputError(f"{folder}: its splits were fixed when it was prepared; use --data.protocol standard")
    if config.image_size is not None:
        raise InputError(f"{folder}: its image size was fixed when it was prepared; leave data.image_size unset")
    facts = metadata(folder)
    sizes = facts["sizes"]
    if split not in sizes:
        if split == "validation":
            raise no_validation(config.name, config.protocol, ())
        raise InputError(f"{folder}: holds no split {split!r} (has: {', '.join(sizes)}); prepare it again")
    info = Info(
        config.name,
        tuple(facts["image_shape"]),
        sizes,
        config.protocol,
        split_lib.PROTOCOLS[config.protocol],
        num_classes=facts["num_classes"],
        label_names=tuple(facts["label_names"]),
        factor_names=tuple(facts["factor_names"]),
        factor_sizes=tuple(facts["factor_sizes"]),
        cond_size=facts.get("cond_size", 0),
        values=facts["values"],
        where=str(folder),
        checksums=facts["checksums"],
    )
    pixel_bytes = 4 if info.values == "float" else 1
    small = sizes[split] * int(np.prod(info.image_shape)) * pixel_bytes <= DEVICE_BYTES
    if config.pipeline == "device" or (config.pipeline == "auto" and small):
        arrays = read(folder, split)
        for name, value in arrays.items():
            want = info.checksums.get(f"{split}/{name}")
            got = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
            if got != want:
                raise InputError(
                    f"{folder}: wrong checksum of {split}/{name}, expected {want}, got {got}; prepare it again"
                )
        return from_arrays(info, split, arrays, "device")
    return Source(info, split, sizes[split], {}, not_in_memory, PreparedRecords(folder, split), "grain")


def metadata(folder: Path) -> dict[str, Any]:
    """Returns the facts that `builders` stored: sizes, image_shape, labels, factors, values, where, checksums."""
    try:
        return json.loads((folder / "metadata.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: metadata.json is missing or damaged ({error}); prepare it again") from None


@dataclass(frozen=True)
class PreparedRecords:
    """One split of a prepared folder by random access; picklable: each reader process opens its own files."""

    folder: Path
    split: str

    @cached_property
    def _open(self) -> tuple[Any, dict[str, tuple[np.dtype, tuple[int, ...]]]]:
        import tensorflow_datasets as tfds

        try:
            builder: Any = tfds.builder_from_directory(self.folder)
            features: Any = builder.info.features
            layout = {name: (np.dtype(f.np_dtype), tuple(f.shape)) for name, f in features.items()}
            raw = tfds.decode.DeserializeMethod.RAW_BYTES
            return builder.as_data_source(split=self.split, deserialize_method=raw), layout
        except (OSError, ValueError, AssertionError, KeyError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f"{self.folder}: cannot be read ({reason}); prepare the data set again") from None

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "split": self.split}

    def __len__(self) -> int:
        return len(self._open[0])

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        from google.protobuf.message import DecodeError

        records, layout = self._open
        try:
            parsed = [_parse(record) for record in records.__getitems__([int(i) for i in index])]
            return {name: _stack([row[name] for row in parsed], *layout[name]) for name in layout}
        except (OSError, RuntimeError, LookupError, ValueError, DecodeError) as error:  # cut off, damaged or gone
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{self.folder}: cannot be read ({reason}); prepare the data set again") from None


def _parse(record: bytes) -> Mapping[str, Any]:
    from tensorflow_datasets.proto import tf_example_pb2

    protos: Any = tf_example_pb2  # generated code, without types
    feature = protos.Example.FromString(record).features.feature
    return {name: value.bytes_list.value or value.int64_list.value for name, value in feature.items()}


def _stack(values: list[Any], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(values[0][0], bytes):
        return np.frombuffer(b"".join(value[0] for value in values), dtype).reshape(len(values), *shape)
    return np.array([list(value) for value in values], dtype).reshape(len(values), *shape)


def read(folder: Path, split: str) -> dict[str, np.ndarray]:
    """Returns all arrays of one split: `image` [N, H, W, C], `label` int32 [N], `factors` int32 [N, F], `cond`."""
    records = PreparedRecords(folder, split)
    size = len(records)
    parts = [records.rows(np.arange(start, min(start + _CHUNK, size))) for start in range(0, size, _CHUNK)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
