"""`load`, training batches, evaluation batches and grain: one order, nothing dropped, exact resume."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import data
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the messages below are

DIGITS = DataConfig("digits", batch_size=100, binarize="dynamic")


def _same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(np.asarray(a[name]), np.asarray(b[name])), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mnits"}, r"data.name: unknown data set 'mnits'; did you mean 'mnist'\?"),
        ({"name": "digits", "protocol": "fulll"}, r"'digits' has no protocol 'fulll'; did you mean 'full'\?"),
        (
            {"name": "digits", "batch_size": 4096},
            "data.batch_size: 4096 is larger than the 1437 training examples of 'digits'; use --data.batch-size 1437",
        ),
        ({"batch_size": 0}, "data.batch_size: 0 is not positive"),
        ({"batch_size": -3}, "data.batch_size: -3 is not positive"),
        ({"limit": 0}, "data.limit: 0 is not positive"),
        ({"name": "digits", "limit": 5000}, "data.limit: 5000 is more than the 1437 training examples"),
        ({"name": "digits", "limit": 50}, "64 is larger than the 50 training examples"),
        ({"name": "digits", "image_size": 32}, "the images of 'digits' have a fixed size; leave it unset"),
        ({"image_size": -1}, "data.image_size: -1 is not positive"),
        ({"workers": -1}, "data.workers: -1 is negative"),
        ({"binarize": "random"}, "data.binarize: 'random' is unknown; use one of none, dynamic"),
        ({"pipeline": "tfdata"}, "data.pipeline: 'tfdata' is unknown"),
        ({"binarize": "static", "dequantize": True}, "data.dequantize: it adds noise to gray levels"),
    ],
)
def test_bad_configs(options, message):
    with pytest.raises(InputError, match=message) as error:
        data.load(DataConfig(**options))
    assert "\n" not in str(error.value)


def test_bad_splits():
    with pytest.raises(InputError, match=r"unknown split 'tests'; did you mean 'test'\?"):
        data.load(DIGITS, "tests")
    with pytest.raises(InputError, match=r"'digits' has no validation split under protocol 'full'"):
        data.load(DataConfig("digits", protocol="full"), "validation")


def test_digits_are_scaled_exactly_and_split_by_row():
    from sklearn.datasets import load_digits

    raw = load_digits()
    parts = [data.load(DIGITS, split) for split in data.SPLITS]
    assert [part.size for part in parts] == [1437, 180, 180]
    images = np.concatenate([part.arrays["image"] for part in parts])[..., 0]
    assert np.array_equal(images, np.floor(raw.images * 255 / 16 + 0.5))
    assert np.array_equal(np.concatenate([part.arrays["label"] for part in parts]), raw.target)
    assert parts[0].info.sizes == {"train": 1437, "validation": 180, "test": 180}


def test_limit_keeps_the_first_training_examples_only():
    whole, part = data.load(DIGITS), data.load(DataConfig("digits", limit=200))
    assert np.array_equal(part.arrays["image"], whole.arrays["image"][:200])
    assert part.size == len(part.records) == 200
    assert part.info.sizes == {"train": 200, "validation": 180, "test": 180}
    assert "only the first 200" in part.info.protocol_text
    assert data.load(DataConfig("digits", limit=200), "test").size == 180
    sprites = data.load(DataConfig(limit=1000))
    index = jax.vmap(lambda s: data.make_batch_fn(sprites, DataConfig())({}, jax.random.key(0), s)["index"])(
        jnp.arange(20)
    )
    assert int(index.max()) < 1000
    assert len(np.unique(np.asarray(index)[:15])) == 960


def test_batches_are_pure_functions_of_key_and_step():
    source = data.load(DIGITS)
    batch_fn, key = data.make_batch_fn(source, DIGITS), jax.random.key(0)
    jitted = jax.jit(batch_fn)
    _same(batch_fn(source.arrays, key, 14), jitted(source.arrays, key, 14))
    _, scanned = jax.lax.scan(lambda c, s: (c, batch_fn(source.arrays, key, s)), 0, jnp.arange(20))
    _same({k: v[14] for k, v in scanned.items()}, jitted(source.arrays, key, 14))
    keys = jax.random.split(key, 3)
    swept = jax.vmap(lambda k: batch_fn(source.arrays, k, 5))(keys)
    for i in range(3):
        _same({k: v[i] for k, v in swept.items()}, jitted(source.arrays, keys[i], 5))
    index = np.asarray(scanned["index"]).reshape(-1)
    assert np.array_equal(np.sort(index[:1437]), np.arange(1437))
    assert np.array_equal(np.asarray(scanned["visit"]).reshape(-1), np.arange(2000))
    assert np.array_equal(np.asarray(scanned["label"]).reshape(-1), source.arrays["label"][index])


def test_an_example_seen_twice_in_one_batch_gets_two_draws():
    config = DataConfig("digits", batch_size=40, limit=60, binarize="dynamic")
    source = data.load(config)
    batch_fn = jax.jit(data.make_batch_fn(source, config))
    twice = 0
    for seed in range(20):  # step 1 is the end of epoch 0 and the start of epoch 1
        batch = batch_fn(source.arrays, jax.random.key(seed), 1)
        index, image = np.asarray(batch["index"]), np.asarray(batch["x"])
        for value in set(index.tolist()):
            rows = image[index == value]
            twice += len(rows) > 1
            assert len(np.unique(rows, axis=0)) == len(rows)
    assert twice > 50


def test_unshuffled_batches_keep_the_order():
    source = data.load(DIGITS)
    batch = data.make_batch_fn(source, DIGITS, train=False)(source.arrays, jax.random.key(0), 14)
    assert np.asarray(batch["index"]).tolist() == [*range(1400, 1437), *range(63)]


@pytest.mark.parametrize("config", [DIGITS, DataConfig(batch_size=64), DataConfig("digits", pipeline="grain")])
def test_eval_batches_cover_the_split_once_and_do_not_depend_on_the_batch_size(config):
    source = data.load(config, "test")
    batches = list(data.eval_batches(source, config, 77))
    assert [len(b["index"]) for b in batches] == [min(77, source.size - i) for i in range(0, source.size, 77)]
    whole = {name: np.concatenate([np.asarray(b[name]) for b in batches]) for name in batches[0]}
    assert np.array_equal(whole["index"], np.arange(source.size))
    assert whole["x"].dtype == np.float32
    _same(whole, next(data.eval_batches(source, config, source.size + 5)))
    _same(whole, next(data.eval_batches(data.load(config, "test"), config, source.size)))


def test_eval_batches_compile_once_a_shape():
    source = data.load(DIGITS, "test")
    list(data.eval_batches(source, DIGITS, 50))
    with jax.log_compiles(False):
        from vae_jax.data import pipeline

        compiled = pipeline._EVAL_FNS[source][DIGITS]
        before = compiled._cache_size()
        list(data.eval_batches(source, DIGITS, 50))
        assert compiled._cache_size() == before == 2  # 50 and the last 30


@pytest.mark.parametrize("config", [DIGITS, DataConfig(batch_size=64)])
def test_grain_gives_the_batches_of_the_device_pipeline(config):
    device = data.load(config)
    grain = data.load(DataConfig(config.name, batch_size=config.batch_size, pipeline="grain"))
    assert (device.pipeline, grain.pipeline) == ("device", "grain")
    key = jax.random.key(4)
    expected = jax.jit(data.make_batch_fn(device, config))
    apply = jax.jit(data.make_transform(grain, config))
    stream = data.GrainStream(grain, config, key, step=10)
    for step in range(10, 20):
        host = next(stream)
        assert host["image"].dtype == np.uint8
        _same(dict(apply(key, host)), dict(expected(device.arrays, key, step)))
    stream.close()


def test_grain_resumes_exactly_from_json():
    source = data.load(DataConfig("digits", pipeline="grain"))
    config, key = DataConfig("digits", batch_size=33), jax.random.key(0)
    stream = data.GrainStream(source, config, key)
    for _ in range(50):
        next(stream)
    state = json.loads(json.dumps(stream.get_state()))
    after = [next(stream) for _ in range(3)]
    other = data.GrainStream(source, config, key)
    next(other)
    other.set_state(state)
    for batch in after:
        _same(batch, next(other))
    stream.set_state(state)
    _same(after[0], next(stream))
    stream.close()
    other.close()


def test_grain_worker_processes_give_the_same_batches():
    source = data.load(DataConfig("digits", pipeline="grain"))
    key = jax.random.key(0)
    here = data.GrainStream(source, DataConfig("digits"), key)
    there = data.GrainStream(source, DataConfig("digits", workers=2), key)
    for _ in range(5):
        _same(next(here), next(there))
    here.close()
    there.close()


def test_an_image_damaged_after_loading_names_its_file_through_grain(tmp_path):
    from PIL import Image

    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    config = DataConfig("image_folder", source=str(tmp_path), protocol="full", batch_size=4, pipeline="grain")
    source = data.load(config)
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:1000])
    stream = data.GrainStream(source, config, jax.random.key(0))
    with pytest.raises(InputError, match=r"2.png: the image is damaged"):
        next(stream)
    stream.close()


def test_every_protocol_is_described():
    rows = {row["name"]: row for row in data.describe()}
    assert list(rows) == list(data.DATASETS)
    for name, entry in data.DATASETS.items():
        assert "standard" in entry.protocols
        assert all(text and "\n" not in text for text in entry.protocols.values())
        assert rows[name]["where"]
        assert rows[name]["summary"]
        assert rows[name]["reference"]


def test_batches_are_shared_unless_the_user_fetches_them():
    """What a user's function calls may be defined anew between two runs, which may share no program then."""
    config = DataConfig("digits", batch_size=8)
    first, second = (data.load(config, "train") for _ in range(2))
    assert data.make_batch_fn(first, config) is data.make_batch_fn(second, config)

    def fetch(arrays, index):
        return first.fetch(arrays, index)

    theirs = dataclasses.replace(first, fetch=fetch)
    assert data.make_batch_fn(theirs, config) is not data.make_batch_fn(theirs, config)
