"""CIFAR-10 in its binary layout: the real files where they are, and what is refused."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from vae_jax import data
from vae_jax.data import DataConfig, cifar10
from vae_jax.errors import InputError

SHARED = Path(os.environ.get("VAE_JAX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
needs_files = pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason="cifar10 data absent")


def rows(n, seed=0):
    return np.random.default_rng(seed).integers(0, 10, (n, cifar10.ROW), np.uint8)


@needs_files
def test_the_original_images(monkeypatch):
    monkeypatch.setenv("VAE_JAX_DATA", str(SHARED))
    train = data.load(DataConfig("cifar10"))
    image, label = np.asarray(train.arrays["image"]), np.asarray(train.arrays["label"])
    assert image.shape == (50_000, 32, 32, 3)
    # Means of the channels, red first; 5,000 of each kind.
    np.testing.assert_allclose(image.mean((0, 1, 2)), [125.307, 122.950, 113.865], atol=1e-3)
    assert np.bincount(label).tolist() == [5_000] * 10
    sizes = {split: data.load(DataConfig("cifar10", protocol="validation"), split).size for split in data.SPLITS}
    assert sizes == {"train": 45_000, "validation": 5_000, "test": 10_000}
    rest = data.load(DataConfig("cifar10", protocol="validation"), "validation")
    np.testing.assert_array_equal(rest.arrays["image"], image[45_000:])


def test_content_does_not_depend_on_the_order():
    given = rows(20)
    assert cifar10.content(given) == cifar10.content(given[::-1])
    assert cifar10.content(given) != cifar10.content(rows(20, seed=1))


def test_other_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "_PER_FILE", 20)
    config = DataConfig("cifar10", str(tmp_path), batch_size=2)
    with pytest.raises(
        InputError, match=r"data_batch_5.bin \[.gz\] not found \(looked in .*; unpack the binary version"
    ):
        data.load(config)
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}.bin").write_bytes(rows(20, i).tobytes())
    with pytest.raises(InputError, match="train files are not those of CIFAR-10"):
        data.load(config)
    # Planes become channels, whatever is packed.
    monkeypatch.setitem(cifar10.CONTENT, "train", cifar10.content(np.concatenate([rows(20, i) for i in range(1, 6)])))
    first = tmp_path / "data_batch_1.bin"
    (tmp_path / "data_batch_1.bin.gz").write_bytes(gzip.compress(first.read_bytes()))
    first.unlink()
    image = cifar10.arrays(tuple(cifar10.find(str(tmp_path), "train")), "train")[0]
    np.testing.assert_array_equal(image[3, 1, 2], rows(20, 1)[3, 1:].reshape(3, 32, 32)[:, 1, 2])
    (tmp_path / "data_batch_2.bin").write_bytes(b"123")
    cifar10.arrays.cache_clear()
    with pytest.raises(InputError, match="3 bytes, not the"):
        data.load(config)


def test_it_is_not_prepared():
    with pytest.raises(InputError, match=r"train with --data\.name cifar10"):
        data.prepare("cifar10", data_dir="never")
