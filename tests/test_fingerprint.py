"""The content hash of training data: what moves it, what does not, and that all ways to hold an array agree."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from vae_jax import data, spec
from vae_jax.data import builders, sprites
from vae_jax.data.config import DataConfig
from vae_jax.data.fingerprint import fingerprint
from vae_jax.errors import InputError
from vae_jax.runs.run import Run

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 8, 8), dtype=np.uint8)
LABELS = RNG.integers(0, 3, 30)


def of(path, **options):
    return fingerprint(data.load(DataConfig("npz", str(path), batch_size=4, protocol="full", **options), "train"))


def save(path, images=IMAGES, labels=LABELS, **more):
    np.savez(path, images=images, labels=labels, **more)
    return path


def changed(array, at, to):
    array = array.copy()
    array[at] = to
    return array


def test_one_pixel_one_label_one_example_and_the_order_count(tmp_path):
    base = of(save(tmp_path / "a.npz"))
    assert base == of(save(tmp_path / "moved.npz"))
    others = {
        "pixel": save(tmp_path / "b.npz", changed(IMAGES, (29, 7, 7), IMAGES[29, 7, 7] ^ 1)),
        "label": save(tmp_path / "c.npz", labels=changed(LABELS, 29, (LABELS[29] + 1) % 3)),
        "fewer": save(tmp_path / "d.npz", IMAGES[:29], LABELS[:29]),
        "order": save(tmp_path / "e.npz", IMAGES[::-1], LABELS[::-1]),
        "shape": save(tmp_path / "f.npz", IMAGES.reshape(30, 4, 16, 1)),
        "type": save(tmp_path / "g.npz", IMAGES.astype(np.float32) / 255),
        "cond": save(tmp_path / "h.npz", cond=np.ones((30, 1), np.float32)),
    }
    assert len({base, *(of(path) for path in others.values())}) == 1 + len(others)


def test_limit_keeps_the_hash_of_what_is_left(tmp_path):
    whole = save(tmp_path / "a.npz")
    less = save(tmp_path / "b.npz", IMAGES[:20], LABELS[:20])
    assert of(whole, limit=20) == of(less)
    assert of(whole, limit=20, pipeline="grain") == of(less)


def test_memory_stream_and_prepared_folder_agree(tmp_path):
    np.savez(tmp_path / "a.npz", train_images=IMAGES, train_labels=LABELS, test_images=IMAGES, test_labels=LABELS)
    folder, *_ = builders.prepare(DataConfig("npz", str(tmp_path / "a.npz")), tmp_path / "tfds")
    found = set()
    for source in (tmp_path / "a.npz", folder):
        for pipeline in ("device", "grain"):
            config = DataConfig("npz", str(source), batch_size=4, pipeline=pipeline)
            found.add(fingerprint(data.load(config, "train")))
    assert len(found) == 1


@pytest.fixture
def folder(tmp_path):
    for i, (image, label) in enumerate(zip(IMAGES, LABELS)):
        path = tmp_path / "photos" / "abc"[label] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "photos"


def streamed(folder):
    config = DataConfig("image_folder", str(folder), batch_size=4, protocol="full", pipeline="grain")
    return fingerprint(data.load(config, "train"))


def test_a_streamed_folder_is_hashed_by_its_files(folder, tmp_path):
    base = streamed(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    os.utime(next(copy.rglob("*.png")))
    assert streamed(copy) == base
    file = sorted(copy.rglob("*.png"))[-1]
    Image.fromarray(IMAGES[0] ^ 1).save(file)
    edited = streamed(copy)
    shutil.copy(folder / file.relative_to(copy), file)
    assert streamed(copy) == base
    file.rename(file.with_name("zz.png"))
    assert len({base, edited, streamed(copy)}) == 3


def test_large_files_are_read_at_both_ends(folder):
    file = sorted(folder.rglob("*.png"))[0]
    file.write_bytes(file.read_bytes() + bytes(200_000))
    base = streamed(folder)
    for at in (-1, 60_000):
        content = bytearray(file.read_bytes())
        content[at] ^= 1
        file.write_bytes(content)
        assert streamed(folder) != base
        content[at] ^= 1
        file.write_bytes(content)
    assert streamed(folder) == base


def test_a_file_that_went_away_is_named(folder):
    config = DataConfig("image_folder", str(folder), batch_size=4, protocol="full", pipeline="grain")
    source = data.load(config, "train")
    file = sorted(folder.rglob("*.png"))[0]
    file.unlink()
    with pytest.raises(InputError, match=f"{file}: cannot be read"):
        fingerprint(source)


def test_computed_data_by_examples_of_them(monkeypatch):
    def sprite(**options):
        return fingerprint(data.load(DataConfig("sprites", **options), "train"))

    base = sprite()
    assert base == sprite(pipeline="grain")
    assert len({base, sprite(image_size=64), sprite(protocol="full"), sprite(limit=1000)}) == 4
    monkeypatch.setitem(sprites._TABLES, "half", sprites._TABLES["half"] * 2)
    assert sprite() != base


def test_configs_of_before_keep_the_split_that_they_were_made_with(tmp_path, monkeypatch):
    """Without `data_sha256`, the user's own data were split by the number of rows."""
    from vae_jax.runs.config import Config

    def protocol(name, source, sha256):
        path = tmp_path / f"{name}-{sha256}-{source.name}"
        Run.create(path, "x", Config(data=DataConfig(name, str(source))), spec.images(8, 8, 1), data_sha256=sha256)
        return Run.load(path).config.data.protocol

    for name in ("npz", "image_folder"):
        entry = data.DATASETS[name]
        with_old = {**entry.protocols, "random-tenth": "as it was"}
        monkeypatch.setitem(data.DATASETS, name, data.dataclasses.replace(entry, protocols=with_old))
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "dataset_info.json").write_text("{}")
    (tmp_path / "photos").mkdir()
    assert protocol("npz", tmp_path / "a.npz", None) == "random-tenth"
    assert protocol("image_folder", tmp_path / "photos", None) == "random-tenth"
    assert protocol("npz", tmp_path / "a.npz", "1" * 64) == "standard"
    assert protocol("npz", tmp_path / "prepared", None) == "standard"
    assert protocol("digits", tmp_path / "x", None) == "standard"
