"""MNIST and Fashion-MNIST: the real files, their protocols, and every way in which files can be wrong."""

import gzip
import hashlib
import os
import socket
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import data
from vae_jax.data import idx, mnist
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, on_command_line

STEM = "train-images-idx3-ubyte"


@pytest.fixture(autouse=True)
def _at_the_command_line():
    """Messages are read as somebody at the command line reads them."""
    with on_command_line():
        yield


@pytest.fixture
def real(monkeypatch):
    """The folder of the real files: $VAE_JAX_DATA, else shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("VAE_JAX_DATA") or beside)
    if not idx.find([root / "mnist"], STEM):
        pytest.skip(f"mnist data absent: no {STEM} under {root}")
    monkeypatch.setenv("VAE_JAX_DATA", str(root))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    return root


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No data anywhere and no network."""

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VAE_JAX_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def tiny(monkeypatch, offline):
    """A data set of 20 + 10 images in MNIST's form, with its own pinned sums; returns the folder of its files."""
    rng, folder, sums = np.random.default_rng(0), offline / "raw", {}
    folder.mkdir()
    for part, count in (("train", 20), ("t10k", 10)):
        for stem, array in (
            (f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)),
            (f"{part}-labels-idx1-ubyte", rng.integers(0, 10, count, dtype=np.uint8)),
        ):
            raw = idx.to_bytes(array)
            sums[stem] = hashlib.sha256(raw).hexdigest()
            (folder / f"{stem}.gz").write_bytes(gzip.compress(raw, 1))
    edition = mnist.Edition("http://localhost.invalid", tuple("0123456789"), sums)
    monkeypatch.setitem(mnist.EDITIONS, "mnist", edition)
    return folder


def _load(folder, split="train", **options):
    return data.load(DataConfig("mnist", source=str(folder), batch_size=4, **options), split)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_real_files_have_the_pinned_sums_and_the_published_sizes(real, name):
    train, test = data.load(DataConfig(name)), data.load(DataConfig(name), "test")
    assert train.arrays["image"].shape == (60_000, 28, 28, 1)
    assert test.arrays["image"].shape == (10_000, 28, 28, 1)
    assert train.arrays["image"].dtype == np.uint8
    assert np.bincount(test.arrays["label"]).tolist() == (
        [1000] * 10 if name == "fashion_mnist" else [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )
    assert train.arrays["image"].mean() / 255 == pytest.approx(0.1307 if name == "mnist" else 0.2860, abs=1e-4)
    assert train.info.sizes == {"train": 60_000, "test": 10_000}
    assert train.info.where == str(real / name)


@pytest.mark.parametrize(
    ("protocol", "train", "validation"), [("iwae", 59_600, 400), ("larochelle-split", 50_000, 10_000)]
)
def test_protocols_cut_the_training_file(real, protocol, train, validation):
    whole = data.load(DataConfig("mnist")).arrays["image"]
    parts = [data.load(DataConfig("mnist", protocol=protocol), split) for split in ("train", "validation")]
    assert [part.size for part in parts] == [train, validation]
    assert np.array_equal(np.concatenate([part.arrays["image"] for part in parts]), whole[: train + validation])
    assert parts[0].info.sizes == {"train": train, "validation": validation, "test": 10_000}
    assert f"{train:,} train" in parts[0].info.protocol_text


def test_vampprior_validation_and_test_are_drawn_once_with_seed_777(real):
    config = DataConfig("mnist", protocol="vampprior", binarize="dynamic")
    validation, test = data.load(config, "validation"), data.load(config, "test")
    random = np.random.RandomState(777)  # as the published code does, validation first
    gray = data.load(DataConfig("mnist")).arrays["image"][50_000:].reshape(-1, 784)
    expected = random.binomial(1, gray.astype(np.float32) / 255).reshape(-1, 28, 28, 1) * 255
    assert np.array_equal(validation.arrays["image"], expected)
    gray = data.load(DataConfig("mnist"), "test").arrays["image"].reshape(-1, 784)
    expected = random.binomial(1, gray.astype(np.float32) / 255).reshape(-1, 28, 28, 1) * 255
    assert np.array_equal(test.arrays["image"], expected)
    assert test.info.values == "binary"
    batch = next(data.eval_batches(test, config, 100))  # a draw of 0 and 1 is itself
    assert np.array_equal(np.asarray(batch["x"]), expected[:100] / 255)
    with pytest.raises(InputError, match=r"use --data.binarize dynamic"):
        data.load(DataConfig("mnist", protocol="vampprior"))


def test_training_batches_of_mnist_on_the_device(real):
    config = DataConfig("mnist", batch_size=128, binarize="dynamic")
    source = data.load(config)
    assert source.pipeline == "device"
    batch = jax.jit(data.make_batch_fn(source, config))(source.arrays, jax.random.key(0), jnp.int32(468))
    index = np.asarray(batch["index"])
    assert np.array_equal(np.asarray(batch["label"]), source.arrays["label"][index])
    image, gray = np.asarray(batch["x"]), source.arrays["image"][index]
    assert set(np.unique(image)) == {0.0, 1.0}
    assert (image[gray == 0] == 0).all()
    assert (image[gray == 255] == 1).all()
    middle = (gray > 100) & (gray < 156)
    assert 0.4 < image[middle].mean() < 0.6


def test_validation_without_such_a_split_names_the_protocols_that_have_one(real):
    with pytest.raises(InputError, match=r"use --data.protocol iwae or vampprior or larochelle-split"):
        data.load(DataConfig("mnist"), "validation")


@pytest.mark.parametrize("form", ["gz", "raw", "dotted"])
def test_files_are_found_in_each_usual_form(tiny, form):
    if form != "gz":
        for path in list(tiny.iterdir()):
            stem = path.name.removesuffix(".gz")
            name = stem if form == "raw" else stem.replace("-idx", ".idx")
            (tiny / name).write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    source = _load(tiny, "test")
    assert source.size == 10
    assert source.arrays["image"].shape == (10, 28, 28, 1)


def test_search_order(tiny, monkeypatch, tmp_path):
    for root in ("env", "cache/vae_jax"):
        target = tmp_path / root / "mnist"
        target.mkdir(parents=True)
        for path in tiny.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("VAE_JAX_DATA", str(tmp_path / "env"))
    config = DataConfig("mnist", batch_size=4)
    assert data.load(config).info.where == str(tmp_path / "env" / "mnist")
    monkeypatch.delenv("VAE_JAX_DATA")
    assert data.load(config).info.where == str(tmp_path / "cache" / "vae_jax" / "mnist")
    assert _load(tiny).info.where == str(tiny)


def test_missing_data_says_where_it_looked_and_what_to_do(offline):
    with pytest.raises(InputError) as error:
        data.load(DataConfig("mnist"))
    text = str(error.value)
    assert "\n" not in text
    assert str(offline / "none" / "mnist") in text
    assert "download failed" in text
    assert "$VAE_JAX_DATA/mnist/" in text
    assert "--data.source" in text
    assert not (offline / "none").exists()  # nothing written


def test_debian_copy_of_fashion_mnist_is_looked_for():
    assert Path("/usr/share/datasets/fashion-mnist") in mnist.folders("fashion_mnist", None)


def test_source_must_be_a_folder_with_the_files(tiny, tmp_path):
    with pytest.raises(InputError, match=r"is not a folder"):
        _load(tmp_path / "absent")
    (tiny / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"holds no t10k-labels-idx1-ubyte\[\.gz\]"):
        _load(tiny, "test")


def test_truncated_gzip(tiny):
    path = tiny / f"{STEM}.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=rf"{STEM}\.gz: the gzip data is damaged or cut off"):
        _load(tiny)


def test_truncated_idx(tiny):
    path = tiny / f"{STEM}.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))
    with pytest.raises(InputError, match=r"15596 bytes, but its IDX header \(20, 28, 28\) means 15696"):
        _load(tiny)
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x03\x00"))
    with pytest.raises(InputError, match=r"header is cut off at 5 bytes"):
        _load(tiny)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x00\x00\x0d\x03" + bytes(20)])
def test_not_an_idx_file(tiny, content):
    (tiny / f"{STEM}.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"not an IDX file of bytes"):
        _load(tiny)


def test_wrong_checksum_names_file_expected_and_got(tiny):
    path = tiny / f"{STEM}.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    expected = hashlib.sha256(raw).hexdigest()
    raw[500] ^= 1
    path.write_bytes(gzip.compress(raw))
    got = hashlib.sha256(raw).hexdigest()
    with pytest.raises(InputError, match=rf"{STEM}.*expected {expected}, got {got}; copy the file again"):
        _load(tiny)


def test_download_keeps_only_verified_files(tiny, tmp_path):
    good = tiny / f"{STEM}.gz"
    expected = mnist.EDITIONS["mnist"].sha256[STEM]
    target = tmp_path / "new" / f"{STEM}.gz"
    idx.download(good.as_uri(), target, expected)
    assert target.read_bytes() == good.read_bytes()
    bad = tmp_path / "bad.gz"
    bad.write_bytes(gzip.compress(b"other"))
    with pytest.raises(InputError, match=r"wrong checksum"):
        idx.download(bad.as_uri(), tmp_path / "other" / "file.gz", expected)
    assert not (tmp_path / "other").exists()


def test_prepared_mnist_equals_the_raw_files(tiny, monkeypatch, tmp_path):
    root = tmp_path / "tfds"
    report = data.prepare("mnist", str(tiny), str(root))
    assert report.sizes == {"train": 20, "test": 10}
    assert report.checksums == mnist.EDITIONS["mnist"].sha256
    assert not report.existed
    assert data.prepare("mnist", str(tiny), str(root)).existed
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    for split in ("train", "test"):
        source, raw = data.load(DataConfig("mnist", batch_size=4), split), _load(tiny, split)
        assert source.info.where == report.folder
        for name, value in raw.arrays.items():
            assert np.array_equal(source.arrays[name], value)
            assert source.arrays[name].dtype == value.dtype
    assert any(row["name"] == "mnist" and row["where"] == report.folder for row in data.describe())
    other = dict(mnist.EDITIONS["mnist"].sha256) | {STEM: "0" * 64}
    monkeypatch.setitem(mnist.EDITIONS, "mnist", mnist.Edition("", tuple("0123456789"), other))
    with pytest.raises(InputError, match=r"wrong checksum"):  # what was prepared is verified, too
        data.load(DataConfig("mnist", batch_size=4))
