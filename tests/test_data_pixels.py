"""Binarization, scaling and dequantization: unbiased, one key per example, fixed where it says fixed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax import data
from vae_jax.data import pixels
from vae_jax.data.config import DataConfig

GRAYS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


def _batch(image, index=None):
    index = np.arange(len(image)) if index is None else np.asarray(index)
    return {"image": jnp.asarray(image), "index": jnp.asarray(index, jnp.int32)}


def test_bits_are_uniform_and_uncorrelated():
    keys = jax.random.split(jax.random.key(0), 2000)
    bits = np.asarray(pixels.bits16(keys, 784)).astype(np.int64)
    assert bits.min() >= 0
    assert bits.max() < 2**16
    assert stats.chisquare(np.bincount(bits.ravel() >> 6, minlength=1024)).pvalue > 1e-5
    assert stats.chisquare(np.bincount(bits.ravel() & 1023, minlength=1024)).pvalue > 1e-5
    noise = bits / 65536 - 0.5
    tolerance = 5 / 12 / np.sqrt(noise.size)
    for shifted in (noise[:, 1:] * noise[:, :-1], noise[:, 28:] * noise[:, :-28], noise[1:] * noise[:-1]):
        assert abs(shifted.mean()) < tolerance


def test_neighboring_example_keys_give_unrelated_bits():
    from vae_jax import prng

    bits = np.asarray(pixels.bits16(prng.example_keys(jax.random.key(0), jnp.arange(4000)), 784)) / 65536 - 0.5
    assert abs((bits[1:] * bits[:-1]).mean()) < 5 / 12 / np.sqrt(bits.size)
    assert stats.kstest(bits.mean(1) * np.sqrt(12 * 784), "norm").pvalue > 1e-4


def test_dynamic_mean_is_the_gray_value():
    draws, apply = 2000, data.transform(DataConfig(binarize="dynamic"))
    total = jax.jit(
        lambda: jax.lax.map(lambda s: apply(jax.random.key(s), _batch(GRAYS))["x"], jnp.arange(draws)).mean(0)
    )()
    p = GRAYS / 255
    error = np.abs(np.asarray(total) - p)
    assert (error < 5 * np.sqrt(p * (1 - p) / draws) + 1e-7).all()  # exact at 0 and 255
    assert abs((np.asarray(total) - p).mean()) < 5 * np.sqrt((p * (1 - p)).mean() / draws / 256)


def test_the_probability_is_within_its_stated_bound():
    bits = np.arange(2**16)
    for v in range(256):
        assert abs((bits * 255 < v << 16).mean() - v / 255) < 1.6e-5


def test_dynamic_draws_float_images_too():
    image = np.full((1, 64, 64, 1), 0.3, np.float32)
    apply = jax.jit(data.transform(DataConfig(binarize="dynamic")))
    out = np.stack([np.asarray(apply(jax.random.key(s), _batch(image))["x"]) for s in range(50)])
    assert set(np.unique(out)) == {0.0, 1.0}
    assert abs(out.mean() - 0.3) < 5 * np.sqrt(0.21 / out.size)


def test_dynamic_is_fresh_at_each_visit_and_keyed_by_example():
    image = np.full((4, 8, 8, 1), 128, np.uint8)
    apply = data.transform(DataConfig(binarize="dynamic"))
    batch, key = _batch(image), jax.random.key(0)
    first = np.asarray(apply(key, batch)["x"])
    assert not np.array_equal(first, np.asarray(apply(jax.random.key(1), batch)["x"]))
    assert len(np.unique(first.reshape(4, -1), axis=0)) == 4
    again = np.asarray(apply(key, batch | {"visit": jnp.arange(4, 8, dtype=jnp.uint32)})["x"])
    assert not np.array_equal(first, again)
    swapped = apply(key, _batch(image, [3, 2, 1, 0]))["x"]  # noise follows the example, not its place
    assert np.array_equal(first[::-1], np.asarray(swapped))


def test_static_is_one_draw_an_example_and_differs_between_splits():
    config = DataConfig("digits", binarize="static")
    source = data.load(config)
    batches = [
        np.concatenate([np.asarray(b["x"]) for b in data.eval_batches(source, config, size)]) for size in (100, 333)
    ]
    assert np.array_equal(*batches)
    assert set(np.unique(batches[0])) == {0.0, 1.0}
    one = data.transform(config)(jax.random.key(99), data.source.take(source.arrays, jnp.array([7, 3])))["x"]
    assert np.array_equal(np.asarray(one), batches[0][[7, 3]])
    other = data.transform(config, split="test")(jax.random.key(99), data.source.take(source.arrays, jnp.array([7, 3])))
    assert not np.array_equal(np.asarray(other["x"]), batches[0][[7, 3]])


def test_threshold_none_and_dequantize():
    key, batch = jax.random.key(0), _batch(GRAYS)
    hard = np.asarray(data.transform(DataConfig(binarize="threshold"))(key, batch)["x"])
    assert np.array_equal(hard, (GRAYS / 255 > 0.5).astype(np.float32))
    floats = _batch(np.array([0.0, 0.5, 0.51, 1.0], np.float32).reshape(1, 2, 2, 1))
    assert data.transform(DataConfig(binarize="threshold"))(key, floats)["x"].ravel().tolist() == [0, 0, 1, 1]
    plain = np.asarray(data.transform(DataConfig())(key, batch)["x"])
    assert plain.dtype == np.float32
    assert plain.max() == 1.0
    assert np.allclose(plain, GRAYS / 255, atol=1e-7)
    noisy = np.asarray(data.transform(DataConfig(dequantize=True))(key, batch)["x"])
    assert np.array_equal(np.floor(noisy * 256), GRAYS)
    assert 0 < noisy.min() < noisy.max() < 1
    assert stats.kstest((noisy * 256 - GRAYS).ravel(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("options", [{"binarize": "dynamic"}, {"binarize": "static"}, {"dequantize": True}])
def test_jit_equals_eager(options):
    apply = data.transform(DataConfig(**options))
    batch = _batch(GRAYS) | {"label": jnp.zeros(1, jnp.int32)}
    eager, jitted = apply(jax.random.key(0), batch), jax.jit(apply)(jax.random.key(0), batch)
    assert jitted.keys() == batch.keys() - {"image"} | {"x"}
    assert np.array_equal(np.asarray(eager["x"]), np.asarray(jitted["x"]))


def test_dequantizing_floats_is_refused():
    images = jnp.full((2, 4, 4, 1), 0.5, jnp.float32)
    with pytest.raises(ValueError, match="fills the gaps between 256 gray levels, but the images are float32"):
        pixels.transform(DataConfig(dequantize=True))(jax.random.key(0), {"image": images, "index": jnp.arange(2)})
