"""Gated PixelCNN: what a code sees and what it does not, sums over all grids, steps against one pass, refusals."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.errors import InputError
from vae_jax.models.stage2 import GENERATORS, Around, PixelCNN
from vae_jax.spaces import Codes, Real

SMALL = PixelCNN(hidden=16, layers=3, kernel=3)
GRID = Around(Codes((3, 4, 2), 5), cond=3)


@functools.cache
def made(generator, around):
    """Returns parameters far from their start, where biases are 0 and logits small."""
    generator.check(around)

    # Numbers of numpy: to compile the first draw of every weight takes longer than the tests.
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: generator.init(jax.random.key(0), around))
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.6, x.shape), x.dtype), shapes)


@functools.cache
def logits_of(generator, around):
    return jax.jit(lambda params, z, cond: generator.logits(params, None, z, cond, around))


def drawn(n, around, seed=2):
    return jax.random.randint(jax.random.key(seed), (n, around.length), 0, around.codes)


def features(n, around, seed=3):
    return jax.random.normal(jax.random.key(seed), (n, around.cond))


def every(around):
    return jnp.asarray(list(itertools.product(range(around.codes), repeat=around.length)), jnp.int32)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_code_is_seen_by_all_that_come_after_it_and_by_no_other(kernel):
    generator, n = dataclasses.replace(SMALL, kernel=kernel), GRID.length
    z = drawn(4, GRID)[:, None]
    changed = (z + jnp.eye(n, dtype=jnp.int32)[None]) % GRID.codes  # row i of each: another code at place i
    both = jnp.concatenate([z, changed], 1).reshape(-1, n)
    logits = np.asarray(logits_of(generator, GRID)(made(generator, GRID), both, None)).reshape(4, n + 1, n, -1)
    differs = np.any(logits[:, :1] != logits[:, 1:], (0, -1))  # [changed place, place of the logits]
    np.testing.assert_array_equal(differs, np.triu(np.ones((n, n), bool), 1))


@pytest.mark.parametrize(("shape", "codes"), [((2, 2, 1), 3), ((1, 2, 2), 2)])
def test_the_probabilities_of_all_grids_sum_to_one(shape, codes):
    around = Around(Codes(shape, codes), cond=2)
    params, z = made(SMALL, around), every(around)
    rates = jax.jit(lambda cond: SMALL.rate(params, None, z, cond, around))
    for cond in (None, jnp.tile(features(1, around), (len(z), 1))):
        rate = rates(cond)
        np.testing.assert_allclose(jnp.sum(jnp.exp(-rate)), 1.0, rtol=1e-5)
        assert np.std(rate) > 0.1


@pytest.mark.parametrize("shape", [(3, 4, 2), (2, 3, 1)])
def test_steps_give_the_logits_of_one_pass(shape):
    around = Around(Codes(shape, 5), cond=3)
    generator = PixelCNN(hidden=6, layers=2, kernel=5)
    params, z, cond = made(generator, around), drawn(3, around), features(3, around)

    def one(carry, given):
        place, code = given
        return generator.step(params, carry, code, place, cond, around)

    # The first code that is given, at place 0, has no meaning.
    given = (jnp.arange(around.length), jnp.roll(z, 1, 1).T)
    _, stepped = jax.jit(lambda: jax.lax.scan(one, generator.start(params, 3, cond, around), given))()
    wanted = logits_of(generator, around)(params, z, cond)
    assert np.std(wanted, (0, 1)).min() > 0.03
    np.testing.assert_allclose(np.moveaxis(stepped, 0, 1), wanted, atol=1e-5)


def test_features_of_zeros_are_no_condition():
    params, z, cond = made(SMALL, GRID), drawn(3, GRID), features(3, GRID)
    logits = logits_of(SMALL, GRID)
    without = logits(params, z, None)
    np.testing.assert_allclose(logits(params, z, 0 * cond), without, atol=1e-6)
    assert np.all(np.max(np.abs(logits(params, z, cond) - without), -1) > 1e-4)


def test_a_loss_reaches_every_parameter_and_starts_at_uniform_codes():
    z, cond, generator = drawn(8, GRID), features(8, GRID), dataclasses.replace(SMALL, layers=2)

    def loss(params):
        return jnp.mean(generator.loss(params, jax.random.split(jax.random.key(1), 8), z, cond, GRID, True)[0])

    value, grads = jax.jit(lambda key: jax.value_and_grad(loss)(generator.init(key, GRID)))(jax.random.key(0))
    np.testing.assert_allclose(value, GRID.length * np.log(GRID.codes), rtol=0.02)
    assert all(np.all(np.isfinite(g)) and np.any(g != 0) for g in jax.tree.leaves(grads))


def test_dropout_is_in_training_alone_and_an_examples_own():
    noisy = dataclasses.replace(SMALL, dropout=0.5)
    params, z = made(noisy, GRID), drawn(3, GRID)
    keys = jax.random.split(jax.random.key(1), 3)
    loss = jax.jit(lambda keys, z, train: noisy.loss(params, keys, z, None, GRID, train)[0], static_argnums=2)
    nats, calm = loss(keys, z, True), loss(keys, z, False)
    assert np.all(np.abs(nats - calm) > 1e-4)
    np.testing.assert_allclose(loss(keys[::-1], z[::-1], True), nats[::-1], rtol=1e-6)


def test_bfloat16_gives_float32_logits():
    around = GRID._replace(dtype=jnp.bfloat16)
    params, z = made(SMALL, GRID), drawn(3, GRID)
    logits = logits_of(SMALL, around)(params, z, features(3, GRID))
    assert logits.dtype == jnp.float32
    assert 1e-4 < np.mean(np.abs(logits - logits_of(SMALL, GRID)(params, z, features(3, GRID)))) < 0.2
    carry = SMALL.start(params, 3, None, around)
    place = jax.ShapeDtypeStruct((), jnp.int32)
    after, _ = jax.eval_shape(lambda p: SMALL.step(params, carry, z[:, 0], p, features(3, GRID), around), place)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), carry)


@pytest.mark.parametrize(
    ("generator", "latents", "message", "fix"),
    [
        (SMALL, {"a": Codes((2, 2, 1), 3), "b": Codes((1, 1, 1), 3)}, "2 levels; choose .*transformer", None),
        (SMALL, Codes((4,), 3), r"of shape \(4,\); choose .*transformer", None),
        (SMALL, Real((4,)), "generates codes, but .* real vectors; choose .*flow-matching", None),
        (PixelCNN(kernel=4), GRID.latents, r"^model.generator.kernel: .*use .*5\}?$", PixelCNN(kernel=5)),
        (PixelCNN(hidden=7), GRID.latents, r"^model.generator.hidden: 7 .*2 codes .*use .*8\}?$", PixelCNN(hidden=8)),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_fix(generator, latents, message, fix):
    with pytest.raises(InputError, match=message):
        generator.check(Around(latents))
    if fix is not None:
        fix.check(Around(latents))


def test_it_is_registered():
    assert GENERATORS["pixelcnn"] is PixelCNN
