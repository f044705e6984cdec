"""Every `data.*` option of training: the batches differ as it says."""

import jax
import numpy as np
import pytest
from options import covers, parsed

from vae_jax import data, prng
from vae_jax.data.pipeline import make_batch_fn, make_transform
from vae_jax.errors import InputError, on_command_line
from vae_jax.tasks import training

KEY = jax.random.key(7)


@pytest.fixture(autouse=True)
def _at_the_command_line():
    """Messages are read as somebody at the command line reads them."""
    with on_command_line():
        yield


def source_of(*words, split="train"):
    """Returns (the config of the words, the training split as `vae-jax train` loads it, or another)."""
    config = parsed("--mesh.data", 1, *words)
    source, _ = training.prepare(config)
    return config, source if split == "train" else data.load(config.data, split)


def batch_of(*words, key=KEY, step=0):
    config, source = source_of(*words)
    return make_batch_fn(source, config.data)(dict(source.arrays), key, step)


def digits():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images.astype(int) * 255 + 8) // 16, bunch.target


@covers("train", "data.name", "data.image-size")
def test_name_and_image_size():
    assert batch_of()["x"].shape == (8, 8, 8, 1)
    small = batch_of("--data.name", "sprites")
    large = batch_of("--data.name", "sprites", "--data.image-size", 64)
    assert small["x"].shape == (8, 32, 32, 1)
    assert large["x"].shape == (8, 64, 64, 1)
    # The same scenes at twice the density.
    np.testing.assert_array_equal(small["factors"], large["factors"])
    sums = [np.asarray(b["x"]).sum((1, 2, 3)) for b in (small, large)]
    np.testing.assert_allclose(sums[0] * 4, sums[1], rtol=0.15)


@covers("train", "data.splits", "data.groups", "data.stratify")
def test_splits_groups_and_shares_decide_what_trains(tmp_path):
    images, labels = digits()
    np.savez(tmp_path / "mine.npz", images=images.astype("uint8"), labels=labels)
    words = ["--data", tmp_path / "mine.npz"]
    (tmp_path / "splits.json").write_text('{"train": [3, 5, 6, 7, 8, 9, 10, 11], "test": [4]}')
    _, source = source_of(*words, "--data.splits", tmp_path / "splits.json")
    np.testing.assert_array_equal(source.arrays["label"], labels[[3, 5, 6, 7, 8, 9, 10, 11]])
    _, source = source_of(*words, "--data.stratify", "True", split="test")
    np.testing.assert_array_equal(np.bincount(source.arrays["label"]), np.rint(np.bincount(labels) / 10))
    from PIL import Image

    for i in range(40):
        (tmp_path / "p" / f"{i % 10}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i].astype("uint8")).save(tmp_path / "p" / f"{i % 10}" / f"{i}.png")
    (tmp_path / "groups.csv").write_text("path,group\n" + "".join(f"{i % 10}/{i}.png,{i // 4}\n" for i in range(40)))
    _, source = source_of("--data", tmp_path / "p", "--data.groups", tmp_path / "groups.csv")
    of = {f"{i % 10}/{i}.png": i // 4 for i in range(40)}
    sides = [{of[source.division.names[row]] for row in rows} for rows in source.division.rows.values()]
    assert sum(map(len, sides)) == 10


@covers("train", "data.balance", "data.class-weights")
def test_classes_of_unequal_size_are_drawn_or_weighed(tmp_path):
    images, labels = digits()
    rows = np.flatnonzero((labels == 0) | ((labels == 1) & (np.arange(len(labels)) < 300)))
    np.savez(tmp_path / "mine.npz", images=images[rows].astype("uint8"), labels=labels[rows])
    words = ["--data", tmp_path / "mine.npz", "--data.protocol", "full"]
    config, source = source_of(*words, "--data.balance", "draws")
    make = jax.jit(make_batch_fn(source, config.data))
    counts = np.bincount(labels[rows])
    steps = range(2 * counts[0] // 8)
    seen = np.concatenate([np.asarray(make(dict(source.arrays), KEY, step)["label"]) for step in steps])
    assert counts[0] > 5 * counts[1]
    assert abs(np.bincount(seen)[0] - np.bincount(seen)[1]) <= 8
    batch = batch_of(*words, "--data.class-weights", 1, 3)
    np.testing.assert_allclose(batch["weight"] / np.array([1, 3])[batch["label"]], batch["weight"].min(), rtol=1e-6)


@covers("train", "data.channels", "data.fit", "data.background", "data.skip-broken")
def test_pictures_of_a_folder_are_brought_to_one_form(tmp_path):
    from PIL import Image

    pixels = np.full((8, 4, 4), 200, np.uint8)
    pixels[:, :, 3] = 255 * (np.arange(8) < 4)[:, None]  # the lower half is transparent
    for i in range(8):
        Image.fromarray(pixels).convert("RGBA").save(tmp_path / f"{i}.png")
    (tmp_path / "x.png").write_bytes(b"no picture")
    words = ["--data", tmp_path, "--data.protocol", "full", "--data.image-size", 8]
    words += [
        "--data.channels",
        "grey",
        "--data.fit",
        "pad",
        "--data.background",
        0,
        51,
        0,
        "--data.skip-broken",
        "True",
    ]
    found = np.rint(255 * np.asarray(batch_of(*words)["x"]))[0, ..., 0]
    green = (51 * 38470 + 0x8000) >> 16  # its luminance
    assert found.shape == (8, 8)
    np.testing.assert_array_equal(found[:, [0, 1, 6, 7]], green)
    np.testing.assert_array_equal(found[:4, 2:6], 200)
    np.testing.assert_array_equal(found[4:, 2:6], green)


@covers("train", "data.range")
def test_range_says_which_numbers_are_0_and_1(tmp_path):
    images = np.linspace(-3, 4, 30 * 64).reshape(30, 8, 8, 1)
    np.savez(tmp_path / "mine.npz", images=images)
    words = ["--data", tmp_path / "mine.npz", "--data.protocol", "full"]
    unit = (images.astype(np.float64) + 4) / 10
    batch = batch_of(*words, "--data.range", -4, 6)
    np.testing.assert_allclose(batch["x"], unit[np.asarray(batch["index"])], rtol=1e-6)
    np.savez(tmp_path / "mine.npz", images=images / 4)
    batch = batch_of(*words, "--data.range", "auto")
    np.testing.assert_allclose(batch["x"], (images / 4 + 1)[np.asarray(batch["index"])] / 2, rtol=1e-6)


@covers("train", "data.source")
def test_source_is_where_the_arrays_lie(tmp_path):
    for value in (51, 204):
        images = np.full((30, 8, 8, 1), value, np.uint8)
        images[:, 0, 0] = 255  # so that they are no darker than pictures are
        np.savez(tmp_path / f"{value}.npz", images=images)
        words = ["--data.name", "npz", "--data.protocol", "full", "--data.source", tmp_path / f"{value}.npz"]
        np.testing.assert_allclose(batch_of(*words)["x"][:, 1:], value / 255, rtol=1e-6)


@covers("train", "data")
def test_data_reads_what_the_path_is(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=images)
    config, source = source_of("--data", tmp_path / "mine.npz")
    assert config.data.name == "npz"
    rows = {row.tobytes() for row in np.asarray(source.arrays["image"])}
    assert rows < {row.tobytes() for row in images}
    assert batch_of("--data", "sprites")["x"].shape == (8, 32, 32, 1)


@covers("train", *(f"data.table.{kind}" for kind in ("numeric", "student", "count", "binary", "categorical")))
@covers("train", *(f"data.table.{kind}" for kind in ("ordinal", "log", "ignore", "label")))
def test_columns_of_a_table_are_what_the_options_name(tmp_path):
    names = ("numeric", "student", "count", "binary", "categorical", "ordinal", "log", "ignore", "label")
    rows = [f"{i % 2},{i / 2},{i},{2 + i % 2},{i % 3},{i % 3},{1 + i},x{i},{i % 2}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join([",".join(names), *rows]))
    words = ["--data", tmp_path / "t.csv", "--model.likelihood", "table"]
    # The defaults of the same columns are other kinds.
    for name in names:
        words += [f"--data.table.{name}", name]
    info = source_of(*words)[1].info
    found = {c.name: c for c in info.columns}
    assert {name: c.kind for name, c in found.items()} == {name: name for name in names[:6]} | {"log": "numeric"}
    assert found["log"].log
    assert info.label_names == ("0", "1")
    plain = source_of(*words[:4], "--data.table.ignore", "ignore")[1].info
    assert [c.kind for c in plain.columns] == ["binary", *["numeric"] * 2, "numeric", *["numeric"] * 3, "binary"]


@covers("train", "data.max-bytes")
def test_max_bytes_bounds_what_is_unpacked(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez_compressed(tmp_path / "mine.npz", images=images)
    words = ["--data", tmp_path / "mine.npz", "--data.max-bytes"]
    with pytest.raises(InputError, match=r"use --data\.max-bytes 2560$"):
        source_of(*words, images.nbytes - 1)
    assert source_of(*words, 2560)[1].size > 20


@covers("train", "data.batch-size")
def test_batch_size():
    assert len(batch_of("--data.batch-size", 12)["x"]) == 12
    assert len(batch_of()["x"]) == 8


@covers("train", "data.protocol")
def test_protocol_decides_the_splits():
    sizes = {}
    for protocol in ("standard", "full"):
        words = ["--data.protocol", protocol]
        sizes[protocol] = [source_of(*words, split=split)[1].size for split in ("train", "test")]
    assert sizes == {"standard": [1437, 180], "full": [1797, 1797]}


@covers("train", "data.binarize")
def test_binarized_pixels():
    gray = batch_of()
    images = np.asarray(digits()[0], np.uint8)[np.asarray(gray["index"])][..., None]
    np.testing.assert_allclose(gray["x"], images / 255, rtol=1e-6)
    np.testing.assert_array_equal(batch_of("--data.binarize", "threshold")["x"], images > 127)
    other = jax.random.key(8)
    config, source = source_of("--data.binarize", "dynamic")
    # The same images on two visits: a fresh draw each, or the one that an image keeps.
    stored = {"image": images, "index": np.arange(8)}
    visits = [stored | {"visit": np.arange(start, start + 8, dtype=np.uint32)} for start in (0, 1437)]
    first, again = (np.asarray(make_transform(source, config.data)(KEY, visit)["x"]) for visit in visits)
    assert np.array_equal(first, first.astype(bool))
    assert 0.02 < np.mean(first != again) < 0.5
    config, source = source_of("--data.binarize", "static")
    kept = [np.asarray(make_transform(source, config.data)(key, v)["x"]) for key, v in zip((KEY, other), visits)]
    np.testing.assert_array_equal(kept[0], kept[1])
    assert np.array_equal(kept[0], kept[0].astype(bool))
    assert np.mean(kept[0] != (images > 127)) > 0.02


@covers("train", "data.dequantize")
def test_dequantized_pixels_lie_within_their_gray_level():
    noisy = batch_of("--model.likelihood", "gaussian", "--data.dequantize", "True")
    images = np.asarray(digits()[0])[np.asarray(noisy["index"])][..., None]
    scaled = 256 * np.asarray(noisy["x"], np.float64)
    np.testing.assert_array_equal(np.floor(scaled), images)
    assert abs(np.mean(scaled - images) - 0.5) < 0.05


@covers("train", "data.augment.flip", "data.augment.shift", "data.augment.crop")
def test_augmented_images_are_changed_in_training():
    plain = batch_of()
    for words in (["flip", "vertical"], ["shift", 3], ["crop", 0.4]):
        made = batch_of(f"--data.augment.{words[0]}", words[1])
        np.testing.assert_array_equal(made["index"], plain["index"])
        assert np.any(np.asarray(made["x"]) != np.asarray(plain["x"]))


@covers("train", "data.limit")
def test_limit_keeps_the_first_training_examples():
    config, source = source_of("--data.limit", 20)
    assert source.size == source.info.sizes["train"] == 20
    np.testing.assert_array_equal(source.arrays["image"][..., 0], digits()[0][:20])
    seen = [make_batch_fn(source, config.data)(dict(source.arrays), KEY, step)["index"] for step in range(5)]
    assert set(np.concatenate(seen).tolist()) == set(range(20))
    assert source_of("--data.limit", 20, split="test")[1].size == 180


@covers("train", "data.labels", "data.label-seed")
def test_labels_are_as_many_of_each_class_chosen_by_their_own_seed():
    target, found = digits()[1], {}
    for seed in (0, 5):
        words = ["--model", "m2", "--data.labels", 30, "--data.label-seed", seed]
        _, source = source_of(*words)
        _, moved = source_of(*words, "--seed", 9)
        np.testing.assert_array_equal(source.labeled, moved.labeled)
        assert np.bincount(target[source.labeled]).tolist() == [3] * 10
        batch = batch_of(*words)
        assert "label" not in batch
        images, paired = np.asarray(digits()[0]), np.asarray(batch["paired_x"])[..., 0]
        rows = [np.flatnonzero((np.abs(images / 255 - x) < 1e-6).all((1, 2))) for x in paired]
        assert {int(row[0]) for row in rows} <= set(source.labeled.tolist())
        assert [int(target[row[0]]) for row in rows] == batch["paired_label"].tolist()
        found[seed] = source.labeled
    assert found[0].tolist() != found[5].tolist()
    assert source_of()[1].labeled is None


@covers("train", "data.pipeline", "data.workers")
def test_the_pipeline_reads_the_same_batches_with_its_workers(monkeypatch):
    import grain

    config, device = source_of("--data.pipeline", "device")
    assert device.pipeline == source_of()[1].pipeline == "device"
    config, streamed = source_of("--data.pipeline", "grain")
    assert streamed.pipeline == "grain"
    stream = data.GrainStream(streamed, config.data, KEY)
    np.testing.assert_array_equal(next(stream)["index"], batch_of()["index"])
    stream.close()

    class Asked(Exception):
        pass

    def options(workers, **kwargs):
        raise Asked(workers)

    monkeypatch.setattr(grain, "MultiprocessingOptions", options)
    config, streamed = source_of("--data.pipeline", "grain", "--data.workers", 3)
    with pytest.raises(Asked, match=r"^3$"):
        next(data.GrainStream(streamed, config.data, prng.site_key(KEY, "x")))
