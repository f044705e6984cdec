"""Prepared data sets: TFDS folders of ours in array_record form, found and read without TensorFlow.

Pixels are stored as raw bytes, one example a record, in the data set's order, so 60,000 MNIST images are read in
about a second (TFDS's own decoding takes four) and the pinned checksums can be verified on what was read. A folder may
come from elsewhere: nothing that it names is imported or opened, and what it claims is checked before it is used.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data import record_files, values
from vae_jax.data import split as split_lib
from vae_jax.data.config import OF_PICTURES, DataConfig, Ends
from vae_jax.data.source import DEVICE_BYTES, SPLITS, Info, Source, from_arrays, no_validation, not_in_memory
from vae_jax.errors import InputError, option
from vae_jax.files import bounded
from vae_jax.files.bounded import DEFAULT_BYTES
from vae_jax.spec import Units

PREFIX = "vae_jax_"  # keeps our data sets apart from TFDS's own of the same name
VERSION = "1.0.0"
NAMES = ("mnist", "fashion_mnist", "digits", "sprites", "npz", "image_folder")
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
        stored = stored_name(folder)
        if stored != PREFIX + name:
            raise InputError(f"data.source: {source!r} holds the prepared data set {stored!r}, not {PREFIX + name!r}; "
                             f"use {option('data.name', stored.removeprefix(PREFIX))}")  # fmt: skip
        return folder
    root = os.environ.get("TFDS_DATA_DIR")
    if not root:
        return None
    folder = Path(root) / (PREFIX + name) / VERSION
    return folder if is_prepared(folder) else None


def stored_name(folder: Path) -> str:
    """Returns the name of the data set in `folder`, one of ours: files are found by it."""
    name = _json(folder, "dataset_info.json").get("name")
    if not isinstance(name, str) or name.removeprefix(PREFIX) not in NAMES or not name.startswith(PREFIX):
        raise InputError(
            f"{folder}: holds the TFDS data set {name!r}, which vae-jax did not prepare; save its arrays as "
            "an .npz and use --data FILE.npz"
        )
    return name


def _json(folder: Path, file: str) -> dict[str, Any]:
    path = folder / file
    try:
        stored = bounded.read_json(path)
    except (OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{folder}: {file} is missing or damaged ({reason}); prepare the data set again") from None
    if not isinstance(stored, dict):
        raise InputError(f"{folder}: {file} is missing or damaged (no JSON object); prepare the data set again")
    return stored


def load(config: DataConfig, split: str, folder: Path) -> Source:
    """Returns a split of the user's own data (npz, image_folder) that was prepared into `folder`.

    Its checksums are verified before anything is returned: of the arrays where they are read into memory, else of the
    record files.
    """
    facts = metadata(folder)
    # Folders without the fact were prepared when "random-tenth" was the only rule, under its name of then.
    fits = ("standard",) if "protocol" in facts else ("standard", "random-tenth")
    if config.protocol not in fits:
        raise InputError(
            f"{folder}: its splits were fixed when it was prepared; use {option('data.protocol', 'standard')}"
        )
    if config.splits or config.groups or config.stratify:
        raise InputError(
            f"{folder}: its splits were fixed when it was prepared; leave out data.splits, data.groups and "
            "data.stratify"
        )
    if config.image_size is not None:
        raise InputError(f"{folder}: its image size was fixed when it was prepared; leave data.image_size unset")
    for name, default in OF_PICTURES.items():
        if getattr(config, name) != default:
            raise InputError(f"{folder}: its images were converted when it was prepared; leave out data.{name}")
    if config.range != "auto":
        raise InputError(f"{folder}: the range of its images was fixed when it was prepared; leave out data.range")
    sizes = facts["sizes"]
    if split not in sizes:
        if split == "validation":
            raise no_validation(config.name, config.protocol, ())
        raise InputError(f"{folder}: holds no split {split!r} (has: {', '.join(sizes)}); prepare it again")
    info = _info(config, facts, folder)
    size = sizes[split] * _pixel_bytes(facts)
    records = PreparedRecords(folder, split)
    if config.pipeline == "device" or (config.pipeline == "auto" and size <= DEVICE_BYTES):
        arrays = read(folder, split, config.max_bytes)
        _verify(folder, split, arrays, facts)
        _check_scale(folder, split, [arrays["image"]])
        return from_arrays(info, split, arrays, "device")
    records.check()
    if not _verify_files(folder, split, facts):
        _verify_streamed(records, facts)
    _check_scale(folder, split, _images(records))
    return Source(info, split, sizes[split], {}, not_in_memory, records, "grain")


def _info(config: DataConfig, facts: dict[str, Any], folder: Path) -> Info:
    return Info(
        config.name,
        tuple(facts["image_shape"]),
        facts["sizes"],
        config.protocol,
        facts.get("protocol_text", split_lib.PROTOCOLS["random-tenth"]),
        num_classes=facts["num_classes"],
        label_names=tuple(facts["label_names"]),
        factor_names=tuple(facts["factor_names"]),
        factor_sizes=tuple(facts["factor_sizes"]),
        cond_size=facts["cond_size"],
        values=facts["values"],
        where=str(folder),
        mask=any(key.endswith("/mask") for key in facts["checksums"]),
        unlabeled=facts.get("unlabeled", False),
        checksums=facts["checksums"],
        units=Units.between(*facts["range"]) if "range" in facts else None,
    )


def _pixel_bytes(facts: dict[str, Any]) -> int:
    return math.prod(facts["image_shape"]) * (4 if facts["values"] == "float" else 1)


def _verify(folder: Path, split: str, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Checks the SHA-256 of each array, and that none is missing."""
    for name in {key.split("/")[1] for key in facts["checksums"] if key.startswith(f"{split}/")} | set(arrays):
        value = arrays.get(name)
        got = None if value is None else hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
        _compare(folder, f"{split}/{name}", facts["checksums"].get(f"{split}/{name}"), got)


def _verify_files(folder: Path, split: str, facts: dict[str, Any]) -> bool:
    """Checks the SHA-256 of the record files of a split; False where the folder was prepared without these."""
    sums = facts.get("files")
    if sums is None:
        return False
    for path in record_files.find(folder, stored_name(folder), split):
        _compare(folder, path.name, sums.get(path.name), record_files.sha256(path))
    return True


def _verify_streamed(records: PreparedRecords, facts: dict[str, Any]) -> None:
    """Checks the SHA-256 of each array as `_verify` does, in bounded memory: it reads the whole split once."""
    digests: dict[str, Any] = {}
    for start in range(0, len(records), _CHUNK):
        for name, value in records.rows(np.arange(start, min(start + _CHUNK, len(records)))).items():
            digests.setdefault(name, hashlib.sha256()).update(np.ascontiguousarray(value).data)
    for name, digest in digests.items():
        key = f"{records.split}/{name}"
        _compare(records.folder, key, facts["checksums"].get(key), digest.hexdigest())


def _compare(folder: Path, what: str, want: str | None, got: str | None) -> None:
    if got != want:
        raise InputError(f"{folder}: wrong checksum of {what}, expected {want}, got {got}; prepare it again")


def _check_scale(folder: Path, split: str, images: Iterable[np.ndarray]) -> None:
    """Checks the pixels of a split, together with the other splits where it alone is dark, as `data prepare` does."""

    def together() -> Iterator[np.ndarray]:
        yield from images
        for other in metadata(folder)["sizes"]:
            if other != split:
                records = PreparedRecords(folder, other)
                records.check()
                yield from _images(records)

    values.check_scale({"images": values.span(together())}, folder, then=", and prepare them again")


def _images(records: PreparedRecords) -> Iterator[np.ndarray]:
    for start in range(0, len(records), _CHUNK):
        yield records.rows(np.arange(start, min(start + _CHUNK, len(records))))["image"]


def metadata(folder: Path) -> dict[str, Any]:
    """Returns the facts that `builders` stored, their types checked.

    These are sizes, image_shape, num_classes, label_names, factor_names, factor_sizes, cond_size, values, where and
    checksums, and in newer folders protocol, protocol_text, files and unlabeled, and range where the numbers were
    mapped from one.
    """
    facts: dict[str, Any] = {"cond_size": 0, **_json(folder, "metadata.json")}

    def counts(value: object, least: int, length: int | None = None) -> bool:
        if not isinstance(value, list) or length not in (None, len(value)):
            return False
        return all(type(n) is int and least <= n < 2**31 for n in value)

    def texts(value: object) -> bool:
        return isinstance(value, list) and all(isinstance(text, str) for text in value)

    def table(value: object, kind: type) -> bool:
        return isinstance(value, dict) and all(type(entry) is kind for entry in value.values())

    right = {
        "image_shape": counts(facts.get("image_shape"), 1, 3),
        "sizes": table(facts.get("sizes"), int)
        and "train" in facts["sizes"]
        and all(split in SPLITS and n >= 1 for split, n in facts["sizes"].items()),
        "num_classes": facts.get("num_classes", 0) is None or counts([facts.get("num_classes")], 1),
        "label_names": texts(facts.get("label_names")),
        "factor_names": texts(facts.get("factor_names")),
        "factor_sizes": counts(facts.get("factor_sizes"), 1),
        "cond_size": counts([facts["cond_size"]], 0),
        "values": facts.get("values") in ("grey", "binary", "float"),
        "where": isinstance(facts.get("where"), str),
        "checksums": table(facts.get("checksums"), str) and all("/" in key for key in facts["checksums"]),
        "protocol_text": isinstance(facts.get("protocol_text", ""), str),
        "files": table(facts.get("files", {}), str),
        "unlabeled": isinstance(facts.get("unlabeled", False), bool),
        "range": "range" not in facts or _is_range(facts["range"]),
    }
    for name, good in right.items():
        if not good:
            raise InputError(f"{folder}: metadata.json is missing or damaged (its {name}); prepare the data set again")
    return facts


def _is_range(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not all(type(end) in (int, float) for end in value):
        return False
    return Ends().holds((value[0], value[1]))


@dataclass(frozen=True)
class PreparedRecords:
    """One split of a prepared folder by random access; picklable: each reader process opens its own files."""

    folder: Path
    split: str

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return metadata(self.folder)

    @cached_property
    def _layout(self) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Type and shape of each feature, from the checked facts alone."""
        f = self._facts
        held = {key.split("/")[1] for key in f["checksums"] if key.startswith(f"{self.split}/")}
        pixels = np.dtype(np.float32 if f["values"] == "float" else np.uint8)
        known = {
            "image": (pixels, tuple(f["image_shape"])),
            "label": (np.dtype(np.int32), ()),
            "factors": (np.dtype(np.int32), (len(f["factor_sizes"]),)),
            "cond": (np.dtype(np.float32), (f["cond_size"],)),
            "mask": (np.dtype(np.uint8), tuple(f["image_shape"])),
        }
        return {name: layout for name, layout in known.items() if name in held | {"image"}}

    @cached_property
    def _files(self) -> list[Path]:
        return record_files.find(self.folder, stored_name(self.folder), self.split)

    @cached_property
    def _open(self) -> Any:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        try:
            records: Any = ArrayRecordDataSource([str(path) for path in self._files])
            size = self._facts["sizes"].get(self.split)
            if len(records) != size:
                raise ValueError(f"{len(records)} records where metadata.json says {size}")
            return records
        except (OSError, RuntimeError, LookupError, ValueError) as error:
            raise self._damaged(error) from None

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "split": self.split}

    def __len__(self) -> int:
        return len(self._open)

    def check(self) -> None:
        """Checks that no record unpacks to much more than one example; reads headers only."""
        bytes_each = sum(math.prod(shape) * dtype.itemsize for dtype, shape in self._layout.values())
        bound = 4 * bytes_each + 1024  # integers take up to ten bytes each in a record, and features have names
        if bound > DEFAULT_BYTES:
            raise InputError(f"{self.folder}: one example takes {bound:,} bytes, more than can be read; prepare the "
                             "data set again from smaller images")  # fmt: skip
        try:
            for path in self._files:
                record_files.check_sizes(path, bound)
        except (OSError, ValueError) as error:
            raise self._damaged(error) from None

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the examples `index` int [B], stacked, their values checked."""
        from google.protobuf.message import DecodeError

        layout = self._layout
        try:
            parsed = [record_files.parse(record) for record in self._open.__getitems__([int(i) for i in index])]
            rows = {name: record_files.stack([row[name] for row in parsed], *layout[name]) for name in layout}
            self._check_values(rows)
            if "mask" in rows:  # stored as bytes, of the same bits as booleans
                rows["mask"] = rows["mask"].astype(bool)
            return rows
        except InputError:
            raise
        except (OSError, RuntimeError, LookupError, ValueError, DecodeError) as error:  # cut off, damaged or gone
            raise self._damaged(error) from None

    def _check_values(self, rows: dict[str, np.ndarray]) -> None:
        """Raises ValueError for values that no checked array had: a class or factor out of range, NaN, other floats."""
        facts = self._facts
        for name, value in rows.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ValueError(f"NaN or infinite values in {name}")
        image = rows["image"]
        if image.dtype.kind == "f" and (image.min() < 0 or image.max() > 1):
            raise ValueError(f"image values in [{image.min():g}, {image.max():g}], not in [0, 1]")
        if "cond" in rows and np.abs(rows["cond"]).max(initial=0) > values.MOST_COND:
            raise ValueError(f"cond has values up to {np.abs(rows['cond']).max():g}")
        if "mask" in rows and rows["mask"].max(initial=0) > 1:
            raise ValueError(f"mask has values up to {rows['mask'].max()}, not 0 and 1")
        if "label" in rows:
            label = rows["label"]
            known = label[label != values.UNKNOWN] if facts.get("unlabeled", False) else label
            _in_range("label", known, facts["num_classes"] or 0)
        for column, size in enumerate(facts["factor_sizes"] if "factors" in rows else ()):
            _in_range(f"factor {column}", rows["factors"][:, column], size)

    def _damaged(self, error: BaseException) -> InputError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return InputError(f"{self.folder}: cannot be read ({reason}); prepare the data set again")


def _in_range(name: str, value: np.ndarray, size: int) -> None:
    if value.size and (value.min() < 0 or value.max() >= size):
        raise ValueError(f"{name} in [{value.min()}, {value.max()}], not in [0, {size - 1}]")


def read(folder: Path, split: str, limit: int = DEFAULT_BYTES) -> dict[str, np.ndarray]:
    """Returns all arrays of one split: `image` [N, H, W, C], `label` int32 [N], `factors` int32 [N, F], `cond`.

    Raises:
      InputError: damaged, or pixels of more than `limit` bytes.
    """
    facts = metadata(folder)
    claimed = facts["sizes"].get(split, 0) * _pixel_bytes(facts)
    if claimed > limit:
        raise InputError(
            f"{folder}: {split} takes {claimed:,} bytes, more than data.max_bytes {limit:,}; use "
            f"{option('data.pipeline', 'grain')}, or {option('data.max_bytes', claimed)} if it is yours"
        )
    records = PreparedRecords(folder, split)
    records.check()
    size = len(records)
    parts = [records.rows(np.arange(start, min(start + _CHUNK, size))) for start in range(0, size, _CHUNK)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
