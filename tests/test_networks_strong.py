"""Strong and weakened decoders: the autoregressive one by enumeration and Jacobians, dropout, skips, capacity."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from scipy import stats

from vae_jax import prng, spec
from vae_jax.errors import InputError
from vae_jax.models import VAE
from vae_jax.networks import MLP, LocalAR
from vae_jax.networks.dropout import dropout

D = 3


def lively(tree, scale=1.5, seed=0):
    """Returns the tree with every array replaced by normal noise: nothing is zero, nothing symmetric."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noise = [
        scale / np.sqrt(max(x.shape[0], 1)) * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, noise)


def decoder(network, shape, **options) -> tuple[Callable[..., jax.Array], Any]:
    """Returns (apply, variables) of a decoder with lively weights."""
    module = dataclasses.replace(network, **options).decoder(shape, jnp.dtype("float32"))
    args = (jnp.zeros((1, D)), jnp.zeros((1, *shape))) if network.autoregressive else (jnp.zeros((1, D)),)
    return module.apply, lively(module.init(jax.random.key(0), *args))


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("skip", [False, True])
def test_a_pixel_depends_on_the_window_before_it_and_on_no_other(kernel, skip):
    """The Jacobian of every output in every pixel: zero from (i, j) on and outside the window, alive inside it."""
    shape = (4, 5, 2)
    apply, variables = decoder(LocalAR(kernel=kernel, pixel_hidden=(8, 8), activation="tanh", skip=skip), shape)
    x, z = jax.random.uniform(jax.random.key(1), (1, *shape)), jnp.ones((1, D))
    jacobians = jax.jit(jax.jacobian(lambda x, z: apply(variables, z, x)[0], (0, 1)))
    of_x, code = map(np.asarray, jacobians(x, z))
    jacobian = of_x[:, :, :, 0]  # [H, W, C, H, W, C]
    reach = kernel // 2
    for i, j, k, m in itertools.product(range(4), range(5), range(4), range(5)):
        before = (k, m) < (i, j)
        near = abs(i - k) <= reach and abs(j - m) <= reach
        block = jacobian[i, j, :, k, m]  # all channels of a pixel at once
        assert np.all(block != 0) if before and near else np.all(block == 0), (i, j, k, m)
    assert np.all(np.any(code != 0, axis=(-1, -2)))


def tiny():
    """Returns (p(x|z) of 64 equal codes, all 64 binary images of 2 x 3 pixels)."""
    model = VAE(D, LocalAR(hidden=(4,), kernel=5, pixel_hidden=(8, 8), activation="tanh")).build(spec.images(2, 3, 1))
    images = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=6))).reshape(64, 2, 3, 1)
    params, state = model.init(jax.random.key(0), {"x": images[:1]})
    params = {"vae": params["vae"] | {"decoder": lively(params["vae"]["decoder"], 3.0)}}
    return model, params, state, images


def test_the_probabilities_of_all_images_sum_to_one():
    model, params, state, images = tiny()
    for seed in range(3):
        z = jnp.tile(jax.random.normal(jax.random.key(seed), (1, D)), (64, 1))
        log_p = np.asarray(model.decode(params, state, z).log_prob(images), np.float64)
        np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, rtol=1e-5)
        assert np.ptp(log_p) > 2  # a uniform p would sum to one as well


def test_samples_have_the_probabilities_of_log_prob():
    """Chi-squared of 20,000 images against their 64 exact probabilities."""
    model, params, state, images = tiny()
    n, z = 20_000, jax.random.normal(jax.random.key(5), (1, D))
    exact = np.exp(np.asarray(model.decode(params, state, jnp.tile(z, (64, 1))).log_prob(images), np.float64))
    p_x = model.decode(params, state, jnp.tile(z, (n, 1)))
    drawn = jax.jit(lambda p_x, key: p_x.sample(jax.random.split(key, n)))(p_x, jax.random.key(6))
    number = np.asarray(drawn).reshape(n, 6).astype(int) @ (2 ** np.arange(5, -1, -1))
    counts = np.bincount(number, minlength=64)
    rare = exact * n < 5  # pooled, as the statistic needs
    observed, expected = np.append(counts[~rare], counts[rare].sum()), np.append(exact[~rare], exact[rare].sum()) * n
    keep = expected > 0
    assert stats.chisquare(observed[keep], expected[keep] * n / expected[keep].sum()).pvalue > 1e-3
    # Not what independent pixels with the same means would give.
    means = np.asarray(images).reshape(64, 6).T @ exact
    independent = np.prod(np.where(np.asarray(images).reshape(64, 6) > 0, means, 1 - means), 1)
    assert 0.5 * np.abs(independent - exact).sum() > 0.05


def test_one_pixel_is_that_pixel_of_the_whole():
    """What sampling computes, pixel by pixel, is the teacher-forced pass; so the greedy image is its own mode."""
    shape = (4, 5, 1)
    apply, variables = decoder(LocalAR(pixel_hidden=(8, 8)), shape)
    x, z = jax.random.uniform(jax.random.key(1), (2, *shape)), jax.random.normal(jax.random.key(2), (2, D))
    whole = apply(variables, z, x)
    for i, j in itertools.product(range(4), range(5)):
        one = apply(variables, z, x, at=(jnp.asarray(i), jnp.asarray(j)))
        np.testing.assert_allclose(one, whole[:, i : i + 1, j : j + 1], rtol=1e-4, atol=1e-5)

    model, params, state, _ = tiny()
    p_x = model.decode(params, state, jax.random.normal(jax.random.key(3), (8, D)))
    greedy = p_x.mode()
    np.testing.assert_array_equal(p_x.given(greedy).mode(), greedy)
    np.testing.assert_allclose(p_x.mean(), p_x.given(greedy).mean())


def test_a_decoded_image_passes_through_jit():
    """p(x|z) of an autoregressive decoder is a pytree of arrays, and two of them have one structure."""
    model, params, state, images = tiny()
    z = jnp.ones((64, D))
    plain, jitted = model.decode(params, state, z), jax.jit(model.decode)(params, state, z)
    assert jax.tree.structure(plain) == jax.tree.structure(jitted)
    np.testing.assert_allclose(jitted.log_prob(images), plain.log_prob(images), rtol=1e-5)


def test_hidden_pixels_do_not_reach_the_decoder():
    """Word dropout: at a rate of almost 1 the outputs are those of unknown pixels; without keys nothing is hidden."""
    shape = (4, 5, 1)
    apply, variables = decoder(LocalAR(pixel_hidden=(8,), input_dropout=1 - 1e-7), shape)
    x, other = jax.random.uniform(jax.random.key(1), (2, 2, *shape))
    z, keys = jnp.ones((2, D)), jax.random.split(jax.random.key(2), 2)
    np.testing.assert_array_equal(apply(variables, z, x, keys=keys), apply(variables, z, other, keys=keys))
    # 1/2 is "not known" in units of the data.
    np.testing.assert_allclose(
        apply(variables, z, x, keys=keys)[:, 1, 2], apply(variables, z, jnp.full_like(x, 0.5))[:, 1, 2], rtol=1e-5
    )
    assert np.any(apply(variables, z, x) != apply(variables, z, other))
    shown, some = (decoder(LocalAR(pixel_hidden=(8,), input_dropout=p), shape)[0] for p in (0.0, 0.5))
    np.testing.assert_array_equal(shown(variables, z, x, keys=keys), shown(variables, z, x))
    assert np.any(some(variables, z, x, keys=keys) != shown(variables, z, x))


def test_the_window_must_have_a_middle():
    for kernel in (1, 4):
        with pytest.raises(InputError, match=f"model.network.kernel: {kernel} .*use 3, 5, 7"):
            VAE(D, LocalAR(kernel=kernel)).build(spec.images(8, 8, 1))


def test_dropout_keeps_the_mean_and_is_the_example_s_own():
    keys = prng.example_keys(jax.random.key(0), jnp.arange(400))
    out = dropout(jnp.ones((400, 50)), keys, "a", 0.3)
    np.testing.assert_allclose(np.unique(out), [0.0, 1 / 0.7], rtol=1e-6)
    assert abs(float(jnp.mean(out)) - 1) < 5 * np.sqrt(0.3 / 0.7 / out.size)
    np.testing.assert_array_equal(dropout(jnp.ones((3, 50)), keys[7:10], "a", 0.3), out[7:10])
    assert np.any(dropout(jnp.ones((400, 50)), keys, "b", 0.3) != out)
    x = jnp.ones((400, 2))
    assert dropout(x, None, "a", 0.3) is x
    assert dropout(x, keys, "a", 0.0) is x


def test_the_default_mlp_is_plain_dense_layers_bit_for_bit():
    """The numbers of the README rest on it: options at their defaults change neither parameters nor outputs."""

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(7, name="hidden_0")(x))
            x = nn.relu(nn.Dense(9, name="hidden_1")(x))
            return nn.Dense(20, name="out")(x).reshape(-1, 4, 5, 1)

    module, z = MLP((9, 7)).decoder((4, 5, 1), jnp.dtype("float32")), jax.random.normal(jax.random.key(1), (6, D))
    variables, want = (m.init(jax.random.key(0), z) for m in (module, Plain()))
    support.assert_trees_equal(variables, want)
    np.testing.assert_array_equal(module.apply(variables, z), Plain().apply(want, z))
    assert not MLP().noisy


def test_the_decoder_has_widths_of_its_own():
    encoder = MLP((9, 7), decoder_hidden=(5,)).encoder(4, jnp.dtype("float32"))
    assert set(encoder.init(jax.random.key(0), jnp.zeros((1, 20)))["params"]) == {"hidden_0", "hidden_1", "out"}
    _, variables = decoder(MLP((9, 7), decoder_hidden=(5,)), (4, 5, 1))
    assert variables["params"]["out"]["kernel"].shape == (5, 20)


def test_skips_take_the_code_to_every_layer():
    """With the first layer cut off the code still reaches the output, and only by the skips."""
    for skip in (False, True):
        apply, variables = decoder(MLP((9, 7), activation="tanh", skip=skip), (4, 5, 1))
        params = variables["params"]
        assert params["hidden_1"]["kernel"].shape == (7 + (D if skip else 0), 9)
        assert params["out"]["kernel"].shape == (9 + (D if skip else 0), 20)
        cut = {"params": params | {"hidden_0": jax.tree.map(jnp.zeros_like, params["hidden_0"])}}
        jacobian = jax.jacobian(lambda z, apply=apply, cut=cut: apply(cut, z))(jnp.ones((1, D)))
        assert np.any(jacobian != 0) == skip


@pytest.mark.parametrize("network", [MLP((16,), dropout=0.5), LocalAR((16,), pixel_hidden=(8,), input_dropout=0.5)])
def test_dropout_is_for_training_only(network):
    """In training the loss moves with the dropout key; terms, decoded images and bounds are those without dropout."""
    shape, batch = (4, 5, 1), support.images(4, (4, 5, 1))
    plain = dataclasses.replace(network, **{"dropout" if isinstance(network, MLP) else "input_dropout": 0.0})
    noisy, clean = VAE(D, network).build(spec.images(*shape)), VAE(D, plain).build(spec.images(*shape))
    params, state = noisy.init(jax.random.key(0), batch)
    support.assert_trees_equal(params, clean.init(jax.random.key(0), batch)[0])
    key = jax.random.key(1)
    for train, same in ((True, False), (False, True)):
        got, want = (m.loss(params, state, key, batch, support.context(m, 4, train=train))[0] for m in (noisy, clean))
        assert (got == want) == same
    ctx = support.context(noisy, 4)
    support.assert_trees_equal(*(m.terms(params, state, key, batch, ctx) for m in (noisy, clean)))
    support.assert_trees_equal(
        *(m.density.bound(params, state, key, batch, ctx, 2) for m in (noisy, clean) if m.density.bound)
    )
