"""The user's own data: arrays and image folders, raw and prepared, and the message for everything that can be wrong."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_jax import data
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, on_command_line

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (40, 8, 8), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _at_the_command_line():
    """Messages are read as somebody at the command line reads them."""
    with on_command_line():
        yield


def _npz(tmp_path, split="train", options=None, **arrays):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    return data.load(DataConfig("npz", source=str(path), batch_size=2, **(options or {})), split)


def _folder(tmp_path, sizes, mode="RGB", name="images"):
    root = tmp_path / name
    for path, size in sizes.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        channels = {"RGB": 3, "L": 1, "RGBA": 4}[mode]
        pixels = RNG.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
        Image.fromarray(pixels.squeeze()).save(file)
    return root


def _load(root, split="train", **options):
    return data.load(DataConfig("image_folder", source=str(root), batch_size=1, **options), split)


def test_npz_without_splits_holds_out_a_tenth(tmp_path):
    labels, factors = RNG.integers(0, 3, 40), RNG.integers(0, 4, (40, 2))
    old = {"protocol": "random-tenth"}
    train = _npz(tmp_path, options=old, images=GRAY, labels=labels, factors=factors)
    test = _npz(tmp_path, "test", old, images=GRAY, labels=labels, factors=factors)
    assert train.info.sizes == {"train": 36, "test": 4}
    assert train.info.shape == (8, 8, 1)
    assert train.info.num_classes == labels.max() + 1
    assert train.info.factor_sizes == tuple(factors.max(0) + 1)
    both = np.concatenate([train.arrays["image"], test.arrays["image"]])[..., 0]
    assert np.array_equal(np.unique(both, axis=0), np.unique(GRAY, axis=0))
    order = [int(np.flatnonzero((image[..., 0] == GRAY).all((1, 2)))[0]) for image in train.arrays["image"]]
    assert np.array_equal(train.arrays["label"], labels[order])
    assert np.array_equal(train.arrays["factors"], factors[order])
    again = _npz(tmp_path, options=old, images=GRAY)
    assert np.array_equal(again.arrays["image"], train.arrays["image"])


def test_npz_keeps_floats_and_converts_without_loss(tmp_path):
    floats = RNG.random((10, 8, 8, 3))
    source = _npz(tmp_path, options={"protocol": "full"}, images=floats)
    assert source.info.values == "float"
    assert np.array_equal(source.arrays["image"], floats.astype(np.float32))
    batch = next(data.eval_batches(source, DataConfig()))
    assert np.array_equal(np.asarray(batch["x"]), floats.astype(np.float32))
    wide = _npz(tmp_path, options={"protocol": "full"}, images=GRAY.astype(np.int64))
    assert np.array_equal(wide.arrays["image"][..., 0], GRAY)
    flags = _npz(tmp_path, options={"protocol": "full"}, images=GRAY > 127)
    assert np.array_equal(flags.arrays["image"][..., 0], np.where(GRAY > 127, 255, 0))


def test_npz_with_its_own_splits_and_npy(tmp_path):
    parts = {"train_images": GRAY[:30], "validation_images": GRAY[30:35], "test_images": GRAY[35:]}
    for split, rows in (("train", GRAY[:30]), ("validation", GRAY[30:35]), ("test", GRAY[35:])):
        assert np.array_equal(_npz(tmp_path, split, **parts).arrays["image"][..., 0], rows)
    np.save(tmp_path / "mine.npy", GRAY)
    source = data.load(DataConfig("npz", source=str(tmp_path / "mine.npy"), batch_size=2, protocol="full"))
    assert np.array_equal(source.arrays["image"][..., 0], GRAY)


INFINITE = np.full((6, 4, 4), 0.5)
INFINITE[3, 1, 1:3] = np.inf


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"images": INFINITE},
            "images has 2 infinite values, the first in row 3; if they are missing, save",
        ),
        ({"images": GRAY / 2.0}, r"values in \[0, 127.5\], not in \[0, 1\]; use --data.range 0.0 130.0"),
        ({"images": GRAY / 127.5 - 2}, r"values in \[-2, 0\], not in \[0, 1\]; use --data.range -2 0"),
        ({"images": GRAY.astype(int) - 5}, r"integers in \[-5, 250\], not in \[0, 255\]"),
        ({"images": GRAY // 128}, r"integers in \[0, 1\], which is black on the scale 0 to 255; save booleans"),
        ({"images": GRAY.astype(str)}, "has type <U3"),
        ({"images": GRAY.reshape(40, 64)}, r"must be \[N, H, W\] or \[N, H, W, C\] and not empty, is \(40, 64\)"),
        ({"images": GRAY[:0]}, "not empty"),
        ({"images": np.array([{}])}, "holds Python objects, which are not read"),
        ({"image": GRAY}, "has no array 'images'"),
        ({"images": GRAY, "label": GRAY[:, 0, 0]}, r"unknown array 'label'; did you mean 'labels'\?"),
        ({"images": GRAY, "targets": GRAY[:, 0, 0]}, r"unknown array 'targets'; did you mean 'labels'\?"),
        ({"images": GRAY, "labels": np.arange(39)}, "39 labels for 40 images"),
        ({"images": GRAY, "labels": np.arange(40) / 2}, r"labels must be integers \[N\], is float64"),
        ({"images": GRAY, "labels": np.arange(40) - 2}, "labels has negative values"),
        ({"images": GRAY, "factors": np.arange(40)}, r"factors must be integers \[N, F\]"),
        ({"images": GRAY[:1]}, "1 example cannot be split"),
        ({"test_images": GRAY}, "has splits, but no array train_images"),
        ({"train_images": GRAY, "test_images": GRAY[:, :4, :4]}, "the splits have images of different shapes"),
        ({"train_images": GRAY, "test_images": GRAY, "test_labels": np.arange(40)}, "give all or none"),
    ],
)
def test_bad_arrays(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message) as error:
        _npz(tmp_path, **arrays)
    assert "\n" not in str(error.value)
    assert "mine.npz" in str(error.value)


def test_bad_npz_files(tmp_path):
    with pytest.raises(InputError, match=r"'npz' needs a file; name it with --data.source"):
        data.load(DataConfig("npz"))
    for name in ("series", "vectors"):
        with pytest.raises(InputError, match=rf"'{name}' needs a file; name it with --data.source FILE.npz"):
            data.load(DataConfig(name))
    with pytest.raises(InputError, match=r"no file"):
        data.load(DataConfig("npz", source=str(tmp_path / "absent.npz")))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"neither \.npz nor \.npy"):
        data.load(DataConfig("npz", source=str(tmp_path / "a.txt")))
    np.savez(tmp_path / "cut.npz", images=GRAY)
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut.npz: cannot be read as numpy arrays"):
        data.load(DataConfig("npz", source=str(tmp_path / "cut.npz")))
    with pytest.raises(InputError, match=r"no validation split under protocol 'standard'"):
        _npz(tmp_path, "validation", images=GRAY)
    with pytest.raises(InputError, match=r"holds no array test_images"):
        _npz(tmp_path, "test", train_images=GRAY)


def test_folder_of_classes(tmp_path):
    root = _folder(tmp_path, {f"{name}/{i}.png": (6, 4) for name in ("cat", "dog") for i in range(10)})
    (root / ".hidden").mkdir()
    (root / "notes.txt").write_text("not an image")
    train, test = (_load(root, split, protocol="random-tenth") for split in ("train", "test"))
    assert train.info.sizes == {"train": 18, "test": 2}
    assert train.info.shape == (4, 6, 3)
    assert train.info.label_names == ("cat", "dog")
    expected = np.asarray(Image.open(root / "cat/0.png"))
    assert any(np.array_equal(image, expected) for image in [*train.arrays["image"], *test.arrays["image"]])
    assert np.bincount(np.concatenate([train.arrays["label"], test.arrays["label"]])).tolist() == [10, 10]


def test_folder_with_its_own_splits(tmp_path):
    names = [f"{split}/{name}/{i}.png" for split in ("train", "test") for name in "ab" for i in range(2)]
    root = _folder(tmp_path, dict.fromkeys(names, (4, 4)), "L")
    assert _load(root).info.sizes == {"train": 4, "test": 4}
    assert _load(root, "test").arrays["label"].tolist() == [0, 0, 1, 1]
    assert _load(root).info.shape == (4, 4, 1)
    _folder(tmp_path, {"test/c/0.png": (4, 4)}, "L")
    with pytest.raises(InputError, match=r"the class folders of test"):
        _load(root)


def test_folder_resizes_and_crops_the_center(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200  # the center square
    Image.fromarray(wide).save(root / "a.png")
    Image.fromarray(np.full((30, 20, 3), 200, np.uint8)).save(root / "b.png")
    source = _load(root, image_size=4, protocol="full")
    assert source.arrays["image"].shape == (2, 4, 4, 3)
    center = source.arrays["image"].astype(int)  # the filter reaches over the edge of the crop, so about 200
    assert np.abs(center[0] - 200).max() < 20
    assert (center[1] == 200).all()


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match=r"'image_folder' needs a folder"):
        data.load(DataConfig("image_folder"))
    with pytest.raises(InputError, match=r"no folder"):
        _load(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no images \(\.png, \.jpg"):
        _load(tmp_path / "empty")
    sizes = _folder(tmp_path, {"a.png": (4, 4), "b.png": (5, 4)}, name="sizes")
    with pytest.raises(InputError, match=r"mixed image sizes, a.png is 4x4 and b.png is 4x5 .* set --data.image-size"):
        _load(sizes)
    mixed = _folder(tmp_path, {"a.png": (4, 4)}, "L", "mixed")
    _folder(tmp_path, {"b.png": (4, 4)}, "RGB", "mixed")
    with pytest.raises(InputError, match=r"mixed channels, a.png has 1 and b.png has 3"):
        _load(mixed)
    loose = _folder(tmp_path, {"a.png": (4, 4), "cat/b.png": (4, 4)}, name="loose")
    with pytest.raises(InputError, match=r"holds class folders and also loose images \(a.png\)"):
        _load(loose)
    fake = _folder(tmp_path, {"a.png": (4, 4), "b.png": (4, 4)}, name="fake")
    (fake / "b.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"b.png: not a readable image"):
        _load(fake)
    cut = _folder(tmp_path, {"a.png": (64, 64), "b.png": (64, 64)}, name="cut")
    (cut / "b.png").write_bytes((cut / "b.png").read_bytes()[:3000])
    with pytest.raises(InputError, match=r"b.png: the image is damaged or cut off"):
        _load(cut, protocol="full")


def test_prepared_user_data_round_trip(tmp_path):
    path = tmp_path / "my data.npz"
    np.savez(path, images=RNG.random((20, 4, 4)), labels=np.arange(20) % 3, factors=np.arange(40).reshape(20, 2))
    report = data.prepare("npz", str(path), str(tmp_path / "tfds"))
    root = _folder(tmp_path, {f"{name}/{i}.png": (6, 4) for name in ("cat", "dog") for i in range(5)})
    images = data.prepare("image_folder", str(root), str(tmp_path / "tfds"))
    assert [sum(sizes.values()) for sizes in (report.sizes, images.sizes)] == [20, 10]
    for name, source, folder in (("npz", path, report.folder), ("image_folder", root, images.folder)):
        for split in ("train", "test"):
            raw = data.load(DataConfig(name, source=str(source), batch_size=2), split)
            read = data.load(DataConfig(name, source=folder, batch_size=2), split)
            assert {k: v.dtype for k, v in raw.arrays.items()} == {k: v.dtype for k, v in read.arrays.items()}
            for key, value in raw.arrays.items():
                assert np.array_equal(value, read.arrays[key])
            for fact in ("shape", "sizes", "num_classes", "label_names", "factor_sizes", "values"):
                assert getattr(raw.info, fact) == getattr(read.info, fact)
            streamed = data.load(DataConfig(name, source=folder, batch_size=2, pipeline="grain"), split)
            index = np.arange(streamed.size)[::-1]
            assert np.array_equal(streamed.records.rows(index)["image"], raw.arrays["image"][index])


def test_prepared_data_in_many_shards_keep_their_order(tmp_path, monkeypatch):
    from vae_jax.data import builders

    monkeypatch.setattr(builders, "_SHARD_BYTES", 7 * 64)
    monkeypatch.setattr(builders, "_CHUNK", 5)
    path = tmp_path / "mine.npz"
    np.savez(path, images=GRAY, labels=np.arange(40))
    folder = data.prepare("npz", str(path), str(tmp_path / "tfds")).folder
    size = data.load(DataConfig("npz", source=folder, batch_size=2)).size
    assert len(list(Path(folder).glob("*train.array_record*"))) == -(-size // 7) >= 5  # 7 a shard
    assert [entry.name for entry in (tmp_path / "tfds").iterdir()] == ["vae_jax_npz"]  # nothing unfinished is left
    for split in ("train", "test"):
        raw, read = (data.load(DataConfig("npz", source=str(s), batch_size=2), split) for s in (path, folder))
        assert np.array_equal(raw.arrays["image"], read.arrays["image"])
        assert np.array_equal(raw.arrays["label"], read.arrays["label"])


def test_damaged_prepared_data(tmp_path):
    np.savez(tmp_path / "mine.npz", images=GRAY)
    folder = Path(data.prepare("npz", str(tmp_path / "mine.npz"), str(tmp_path / "tfds")).folder)
    config = DataConfig("npz", source=str(folder), batch_size=2)
    records = next(folder.glob("*train*"))
    whole = records.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-40], whole[:900] + b"\xff" + whole[901:]):
        records.write_bytes(damaged)
        with pytest.raises(InputError, match=r"(cannot be read|wrong checksum).*prepare") as error:
            data.load(config)
        assert "\n" not in str(error.value)
    records.unlink()
    with pytest.raises(InputError, match=r"cannot be read .*No such file"):
        data.load(config)
    (folder / "metadata.json").unlink()
    with pytest.raises(InputError, match=r"metadata.json is missing or damaged"):
        data.load(config)


def test_prepare_refuses_before_it_writes(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    with pytest.raises(InputError, match=r"set TFDS_DATA_DIR or pass --data-dir"):
        data.prepare("digits")
    with pytest.raises(InputError, match=r"unknown data set 'digit'; did you mean 'digits'\?"):
        data.prepare("digit", None, str(tmp_path / "tfds"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot be written"):
        data.prepare("digits", None, str(tmp_path / "file"))
    root = _folder(tmp_path, {"a.png": (64, 64), "b.png": (64, 64)})
    (root / "b.png").write_bytes((root / "b.png").read_bytes()[:3000])
    with pytest.raises(InputError, match=r"b.png: the image is damaged"):
        data.prepare("image_folder", str(root), str(tmp_path / "tfds"))
    assert not list((tmp_path / "tfds").rglob("*.array_record*"))


def test_prepare_does_not_take_other_data_for_the_same(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, images=GRAY)
    folder = data.prepare("npz", str(path), str(tmp_path / "tfds")).folder
    np.savez(path, images=GRAY[::-1])
    with pytest.raises(InputError, match=r"holds other data; remove it"):
        data.prepare("npz", str(path), str(tmp_path / "tfds"))
    with pytest.raises(InputError, match=r"its splits were fixed when it was prepared"):
        data.load(DataConfig("npz", source=folder, protocol="full"))
    with pytest.raises(InputError, match=r"is 'npz' data, which 'image_folder' does not read; use --data"):
        data.load(DataConfig("image_folder", source=folder))


def test_prepared_digits_hold_the_whole_data_set_and_no_tensorflow_is_loaded(tmp_path):
    script = f"""
import sys
from pathlib import Path
from vae_jax import data
heavy = {{"tensorflow", "tensorflow_datasets", "grain", "sklearn", "PIL", "scipy.stats"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
report = data.prepare("digits", None, {str(tmp_path)!r})
assert dict(report.sizes) == {{"train": 1797}}, report
from vae_jax.data import digits, prepared
read = prepared.read(__import__("pathlib").Path(report.folder), "train")
assert (read["image"] == digits.arrays()["image"]).all() and (read["label"] == digits.arrays()["label"]).all()
source = data.load(data.DataConfig("digits", batch_size=8, pipeline="grain"))
import jax
stream = data.GrainStream(source, data.DataConfig("digits", batch_size=8), jax.random.key(0))
next(stream)
stream.close()
assert "tensorflow" not in sys.modules and "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "WARNING" not in done.stderr
