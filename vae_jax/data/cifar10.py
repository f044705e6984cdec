"""CIFAR-10 in its official binary layout: 50,000 + 10,000 color images of 32 x 32."""

from __future__ import annotations

import functools
import hashlib
import os
import zlib
from pathlib import Path

import numpy as np

from vae_jax.data import idx
from vae_jax.data.config import DataConfig
from vae_jax.data.source import Info, Source, from_arrays
from vae_jax.errors import InputError, shown
from vae_jax.files import bounded

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
ROW = 1 + 3 * 32 * 32  # a label and the planes of red, green and blue
_PER_FILE = 10_000
_VALIDATION = 5_000  # the last training rows

PROTOCOLS = {
    "standard": "50,000 train, no validation, 10,000 test: the original split",
    "validation": "45,000 train, 5,000 validation (the last training rows), 10,000 test",
}
# SHA-256 of the sorted SHA-256 of the rows: the same images in any order, in any division into files.
CONTENT = {
    "train": "55a61f79a40ece2ceda9fb5f9f7078f6ea2fc4952489cef56682bcf92cfcc260",
    "test": "325704b01eb92e1e2a6215ae6a916bb7db7de054af0c496be1c7be2e0fcfbf5f",
}


def folders(source: str | None) -> list[Path]:
    """Returns where the files are looked for: `source` alone if given, else $VAE_JAX_DATA and the cache."""
    roots = [source] if source is not None else [os.environ.get("VAE_JAX_DATA"), str(idx.cache_folder())]
    bases = [Path(root).expanduser() for root in roots if root]
    # As a folder of ours, and as the official archive unpacks.
    names = ("", "cifar-10-batches-bin") if source is not None else ("cifar10", "cifar10/cifar-10-batches-bin")
    return [base / name for base in bases for name in names]


def find(source: str | None, split: str) -> list[Path]:
    """Returns the files of the train or the test split.

    Raises:
      InputError: no folder has them all.
    """
    looked = folders(source)
    for folder in looked:
        found = [next((p for p in (folder / f"{n}.gz", folder / n) if p.is_file()), None) for n in FILES[split]]
        if all(found):
            return [path for path in found if path is not None]
    places = ", ".join(shown(folder) for folder in looked)
    raise InputError(
        f"data 'cifar10': {', '.join(FILES[split])} [.gz] not found (looked in {places}); unpack the binary version of "
        "CIFAR-10 there, or name its folder with --data.source"
    )


def where() -> str:
    """Returns the folder that the files would be read from now, or what is missing; opens no file."""
    try:
        return str(find(None, "train")[0].parent)
    except InputError:
        return "not here: set VAE_JAX_DATA to the folder that holds cifar10/, its official binary files"


def read(path: Path) -> np.ndarray:
    """Returns the rows of one file, uint8 [10000, 3073].

    Raises:
      InputError: it cannot be read, or is not of this layout.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            with bounded.unzipped(data) as file:
                data = file.read(_PER_FILE * ROW + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); copy the file again") from None
    if len(data) != _PER_FILE * ROW:
        raise InputError(f"{path}: {len(data):,} bytes, not the {_PER_FILE * ROW:,} of CIFAR-10; copy the file again")
    return np.frombuffer(data, np.uint8).reshape(_PER_FILE, ROW)


def content(rows: np.ndarray) -> str:
    """Returns the SHA-256 of rows in any order: of their sorted SHA-256."""
    each = sorted(hashlib.sha256(row.data).digest() for row in rows)
    return hashlib.sha256(b"".join(each)).hexdigest()


@functools.lru_cache(2)
def arrays(paths: tuple[Path, ...], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [N, 32, 32, 3] and labels int32 [N] of a split's files, verified; kept for other splits.

    Raises:
      InputError: the files hold something else than CIFAR-10.
    """
    rows = np.concatenate([read(path) for path in paths])
    if (got := content(rows)) != CONTENT[split]:
        raise InputError(
            f"{paths[0].parent}: the {split} files are not those of CIFAR-10 (checksum of the content {got}); copy "
            "them again"
        )
    # Planes to channels last.
    return np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), rows[:, 0].astype(np.int32)


def load(config: DataConfig, split: str) -> Source:
    """Returns a split of CIFAR-10."""
    paths = find(config.source, "test" if split == "test" else "train")
    image, label = arrays(tuple(paths), "test" if split == "test" else "train")
    kept = len(image) if config.protocol == "standard" or split == "test" else len(image) - _VALIDATION
    rows = slice(kept, None) if split == "validation" else slice(kept)
    sizes = {"train": 50_000, "test": 10_000}
    if config.protocol == "validation":
        sizes = {"train": 45_000, "validation": _VALIDATION, "test": 10_000}
    info = Info(
        "cifar10",
        (32, 32, 3),
        sizes,
        config.protocol,
        PROTOCOLS[config.protocol],
        num_classes=10,
        label_names=LABELS,
        where=str(paths[0].parent),
    )
    return from_arrays(info, split, {"image": image[rows], "label": label[rows]}, config.pipeline)
