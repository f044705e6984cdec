"""The stateless shuffle: an exact bijection, uniform, and the same in numpy, eager, jitted and vmapped form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax.data import shuffle


def _whole(key, size, epoch=0):
    return np.asarray(jax.jit(lambda k: shuffle.permute(k, jnp.arange(size), size, epoch))(key))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1797, 60_000, 722_534])
def test_permute_is_a_bijection(size):
    keys = jax.random.split(jax.random.key(0), 2 if size > 1000 else 100)
    out = np.asarray(jax.jit(jax.vmap(lambda k: shuffle.permute(k, jnp.arange(size), size)))(keys))
    assert np.array_equal(np.sort(out, axis=1), np.broadcast_to(np.arange(size), out.shape))


def test_permute_of_the_largest_size_stays_in_range_without_collisions():
    size = 2**31 - 1
    position = jnp.concatenate([jnp.arange(5000), size - 1 - jnp.arange(5000)])
    out = np.asarray(shuffle.permute(jax.random.key(0), position, size))
    assert out.min() >= 0
    assert out.max() < size
    assert len(set(out.tolist())) == len(out)
    assert stats.kstest(out / size, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("size", [2, 5, 7, 16])
def test_permute_is_uniform_over_keys(size):
    count = 4000
    keys = jax.random.split(jax.random.key(1), count)
    out = np.asarray(jax.vmap(lambda k: shuffle.permute(k, jnp.arange(size), size))(keys))
    for position in range(size):  # each element is equally often at each position
        seen = np.bincount(out[:, position], minlength=size)
        assert stats.chisquare(seen).pvalue > 1e-5
    pairs = np.bincount(out[:, 0] * size + out[:, 1], minlength=size * size).reshape(size, size)
    seen = pairs[~np.eye(size, dtype=bool)]
    assert stats.chisquare(seen).pvalue > 1e-5


def test_permute_has_no_serial_structure():
    size = 60_000
    out = _whole(jax.random.key(2), size)
    assert abs(np.corrcoef(out[1:], out[:-1])[0, 1]) < 0.02
    assert abs(np.corrcoef(out, np.arange(size))[0, 1]) < 0.02
    block = np.bincount(out[:6000] * 10 // size, minlength=10)  # a tenth of an epoch covers the data evenly
    assert stats.chisquare(block).pvalue > 1e-5
    steps = np.bincount((out[1:] - out[:-1]) % size * 16 // size, minlength=16)
    assert stats.chisquare(steps).pvalue > 1e-5


def test_epochs_and_keys_give_unrelated_orders():
    size, key = 1797, jax.random.key(0)
    orders = [_whole(key, size, epoch) for epoch in (0, 1, 2)] + [_whole(jax.random.key(1), size)]
    for i, a in enumerate(orders):
        for b in orders[i + 1 :]:
            assert (a == b).sum() < 12  # a Poisson(1) number of fixed points
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.12


def test_epoch_may_differ_within_a_batch():
    key, size = jax.random.key(3), 100
    mixed = shuffle.permute(key, jnp.array([98, 99, 0, 1]), size, jnp.array([4, 4, 5, 5], jnp.uint32))
    expected = np.concatenate([_whole(key, size, 4)[98:], _whole(key, size, 5)[:2]])
    assert np.array_equal(np.asarray(mixed), expected)


def test_jit_eager_vmap_and_numpy_agree():
    size, position = 1797, jnp.arange(0, 1797, 3)
    keys = jax.random.split(jax.random.key(5), 3)
    batched = np.asarray(jax.vmap(lambda k: shuffle.permute(k, position, size, 9))(keys))
    for key, row in zip(keys, batched, strict=True):
        eager = np.asarray(shuffle.permute(key, position, size, 9))
        host = shuffle.permute_host(
            np.asarray(shuffle.key_words(key)), np.asarray(position), size, np.full(position.shape, 9)
        )
        assert np.array_equal(row, eager)
        assert np.array_equal(row, host)
        assert np.array_equal(row, _whole(key, size, 9)[np.asarray(position)])


def test_other_key_implementations_shuffle():
    out = _whole(jax.random.key(0, impl="rbg"), 50)
    assert np.array_equal(np.sort(out), np.arange(50))


@pytest.mark.parametrize(
    ("batch_size", "size"),
    [(1, 1), (64, 60_000), (128, 60_000), (2048, 722_534), (60_000, 60_000), (7, 5), (64, 2**31 - 1)],
)
def test_epoch_and_position_equal_python_integers(batch_size, size):
    of_step = jax.jit(lambda step: shuffle.epoch_and_position(step, batch_size, size))
    for step in (0, 1, 2, 937, 938, 299_999, 300_000, 16_777_217, 2**30 + 12_345, 2**31 - 1):
        epoch, position = of_step(jnp.int32(step))
        t = [step * batch_size + i for i in (0, batch_size // 2, batch_size - 1)]
        picked = [0, batch_size // 2, batch_size - 1]
        assert [int(epoch[i]) for i in picked] == [(x // size) % 2**32 for x in t]
        assert [int(position[i]) for i in picked] == [x % size for x in t]


def test_each_example_once_an_epoch_across_batches_that_straddle_epochs():
    key, batch_size, size = jax.random.key(7), 64, 1437
    steps = jnp.arange(size)  # exactly 64 epochs
    out = np.asarray(jax.jit(jax.vmap(lambda s: shuffle.train_indices(key, s, batch_size, size)))(steps)).reshape(-1)
    epochs = out.reshape(batch_size, size)
    assert np.array_equal(np.sort(epochs, axis=1), np.broadcast_to(np.arange(size), epochs.shape))
    assert len({tuple(row) for row in epochs[:, :20].tolist()}) == batch_size


@pytest.mark.parametrize("size", [0, 2**31])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match=r"outside"):
        shuffle.permute(jax.random.key(0), jnp.arange(1), size)
