"""Encoders and decoders: shapes at every size, the published layer counts, and sizes that do not fit."""

import dataclasses
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.errors import InputError
from vae_jax.networks import MLP, NETWORKS, Broadcast, Conv64, DeepConv, LeNet, Linear, PooledConv, ResidualConv, ViT
from vae_jax.networks.base import ACTIVATIONS
from vae_jax.networks.conv import stage_sizes
from vae_jax.spec import ArraySpec


def shapes(network, image, outputs=8, codes=4, dtype="float32"):
    """Returns (encoder params, decoder params, encoder output, decoder output) as shapes."""
    network.check(ArraySpec(image))
    encoder, decoder = network.encoder(outputs, jnp.dtype(dtype)), network.decoder(image, jnp.dtype(dtype))
    grid = network.grid(image) if network.spatial else ()
    x, z, key = jnp.zeros((2, *image)), jnp.zeros((2, *grid, codes)), jax.random.key(0)
    code, encoder_variables = jax.eval_shape(encoder.init_with_output, key, x)
    given = (x,) if network.autoregressive else ()
    out, decoder_variables = jax.eval_shape(decoder.init_with_output, key, z, *given)
    assert set(encoder_variables) == set(decoder_variables) == {"params"}
    return encoder_variables["params"], decoder_variables["params"], code, out


def count(*trees) -> int:
    return sum(math.prod(x.shape) for tree in trees for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("image", [(32, 32, 1), (64, 48, 3)])
def test_networks_map_images_to_codes_and_back(name, image):
    _, _, code, out = shapes(NETWORKS[name](), image)
    grid = NETWORKS[name]().grid(image) if NETWORKS[name].spatial else ()
    assert code.shape == (2, *grid, 8)
    assert out.shape == (2, *image)


@pytest.mark.parametrize("upsample", ["transpose", "nearest"])
@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize("cls", [Conv64, DeepConv, LeNet, PooledConv])
def test_every_variant_has_its_shape(cls, upsample, norm):
    image = (28, 21, 1) if issubclass(cls, PooledConv) else (32, 16, 1)
    _, _, code, out = shapes(cls(upsample=upsample, norm=norm), image)
    assert (code.shape, out.shape) == ((2, 8), (2, *image))


@pytest.mark.parametrize("name", NETWORKS)
def test_compute_type_is_not_the_parameters_type(name):
    encoder, decoder, code, out = shapes(NETWORKS[name](), (32, 32, 1), dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves((encoder, decoder))} == {jnp.dtype("float32")}
    assert code.dtype == out.dtype == jnp.bfloat16


def test_published_parameter_counts():
    """784-512-512-20 with mean and log variance out; the 64x64 net with ten latents; LeNet's two convolutions."""
    encoder, decoder, *_ = shapes(MLP(), (28, 28, 1), outputs=40, codes=20)
    dense = lambda *widths: sum((a + 1) * b for a, b in itertools.pairwise(widths))  # noqa: E731
    assert count(encoder) == dense(784, 512, 512, 40)
    assert count(decoder) == dense(20, 512, 512, 784)

    encoder, decoder, *_ = shapes(Conv64(), (64, 64, 1), outputs=20, codes=10)
    conv = lambda k, i, o: (k * k * i + 1) * o  # noqa: E731
    stages = conv(4, 1, 32) + conv(4, 32, 32) + conv(2, 32, 64) + conv(2, 64, 64)
    assert count(encoder) == stages + dense(1024, 256, 20)
    assert count(decoder) == dense(10, 256, 1024) + conv(4, 64, 64) + conv(4, 64, 32) + conv(4, 32, 32) + conv(4, 32, 1)

    encoder, *_ = shapes(LeNet(), (28, 28, 1))
    assert count(encoder) == conv(5, 1, 6) + conv(5, 6, 16) + dense(7 * 7 * 16, 120, 84, 8)
    encoder, decoder, *_ = shapes(Linear(), (4, 5, 1))
    assert (count(encoder), count(decoder)) == (dense(20, 8), dense(4, 20))
    # Pooled conv 32-64-128 and dense 512 at 28x28 pools to 4x4; the deep net's channels double four times.
    encoder, *_ = shapes(PooledConv(), (28, 28, 1))
    assert count(encoder) == conv(3, 1, 32) + conv(3, 32, 64) + conv(3, 64, 128) + dense(4 * 4 * 128, 512, 8)
    encoder, *_ = shapes(DeepConv(), (64, 64, 3), outputs=256)
    norms = 2 * (64 + 128 + 256 + 512)
    stages = conv(4, 3, 64) + conv(4, 64, 128) + conv(4, 128, 256) + conv(4, 256, 512)
    assert count(encoder) == stages + norms + dense(4 * 4 * 512, 256)


def test_decoders_mirror_encoders():
    for network in (MLP((7, 5)), Conv64(dense=(9, 6)), PooledConv(dense=(9, 6))):
        encoder, decoder, *_ = shapes(network, (32, 32, 1))
        hidden = "hidden" if isinstance(network, MLP) else "dense"
        widths = [p[f"{hidden}_{i}"]["bias"].shape[0] for p in (encoder, decoder) for i in (0, 1)]
        assert widths[:2] == widths[2:][::-1]


def test_stage_sizes_round_up():
    assert stage_sizes((28, 28, 1), 3) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert stage_sizes((9, 7), 2) == [(9, 7), (5, 4), (3, 2)]


@pytest.mark.parametrize(
    ("network", "image", "words"),
    [
        (Conv64(), (28, 28, 1), "multiples of 16.*28x28.*mlp"),
        (Conv64(), (64, 40, 1), "multiples of 16.*64x40"),
        (Conv64(kernels=(4, 4)), (64, 64, 1), "2 kernel sizes for 4 stages"),
        (PooledConv(), (4, 28, 1), "at least 5x5.*4x28"),
        (LeNet(), (2, 2, 1), "at least 3x3"),
    ],
)
def test_sizes_that_do_not_fit_are_named(network, image, words):
    with pytest.raises(InputError, match=words):
        network.check(ArraySpec(image))


@pytest.mark.parametrize(("image", "most"), [((28, 28, 1), 2), ((64, 78, 1), 1), ((48, 80, 1), None), ((64, 65, 1), 0)])
def test_the_stages_that_a_size_allows_are_offered(image, most):
    if most is None:
        Conv64().check(ArraySpec(image))
        return
    with pytest.raises(InputError, match="multiples of 16") as error:
        Conv64().check(ArraySpec(image))
    assert ("or at most" in str(error.value)) == bool(most)
    if most:
        assert f"or at most {most} model.network.channels and as many model.network.kernels" in str(error.value)
        Conv64((8,) * most, (2,) * most).check(ArraySpec(image))


def test_smallest_sizes_that_fit():
    for network, image in (
        (Conv64(), (16, 16, 1)),
        (PooledConv(), (5, 5, 1)),
        (LeNet(), (3, 3, 1)),
        (MLP(), (1, 1, 1)),
    ):
        assert shapes(network, image)[3].shape == (2, *image)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_take_effect(activation):
    """Between layers, not after the last: outputs of either sign, and not those of the linear net."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 2, 2, 1)), jnp.float32)
    encoder = MLP((16,), activation).encoder(3, jnp.float32)
    variables = encoder.init(jax.random.key(0), x)
    out = encoder.apply(variables, x)
    assert out.min() < 0 < out.max()
    p = jax.tree.map(np.asarray, variables["params"])
    hidden = ACTIVATIONS[activation](x.reshape(64, 4) @ p["hidden_0"]["kernel"])
    np.testing.assert_allclose(out, hidden @ p["out"]["kernel"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_examples_do_not_mix(name):
    network = NETWORKS[name]()
    if dataclasses.is_dataclass(network) and hasattr(network, "channels"):
        network = dataclasses.replace(network, channels=tuple(min(c, 16) for c in network.channels))
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 32, 32, 1)), jnp.float32)
    encoder = network.encoder(4, jnp.float32)
    apply = jax.jit(encoder.apply)
    variables = jax.jit(encoder.init)(jax.random.key(0), x)
    whole, changed = apply(variables, x), apply(variables, x.at[1:].set(0.0))
    np.testing.assert_allclose(changed[0], whole[0], rtol=1e-5, atol=1e-6)
    assert np.all(np.abs(changed[1] - whole[1]) > 0)


def test_broadcast_decoder_equals_the_tiled_input():
    """g(z, r, c) with the code tiled over the image and joined with the coordinates, as in arXiv:1901.07017."""
    decoder = Broadcast(pixel_hidden=(6, 5), aspect=2.0).decoder((3, 4, 2), jnp.dtype("float32"))
    z = jax.random.normal(jax.random.key(0), (7, 4))
    variables = decoder.init(jax.random.key(1), z)
    p = jax.tree.map(np.asarray, variables["params"])
    rows, columns = np.meshgrid(np.linspace(-1, 1, 3), np.linspace(-2, 2, 4), indexing="ij")
    grid = np.broadcast_to(np.stack([rows, columns], -1), (7, 3, 4, 2))
    x = np.concatenate([np.broadcast_to(np.asarray(z)[:, None, None, :], (7, 3, 4, 4)), grid], axis=-1)
    x = np.maximum(x @ np.concatenate([p["code"]["kernel"], p["position"]["kernel"]]) + p["code"]["bias"], 0)
    x = np.maximum(x @ p["hidden_0"]["kernel"] + p["hidden_0"]["bias"], 0)
    x = x @ p["out"]["kernel"] + p["out"]["bias"]
    np.testing.assert_allclose(decoder.apply(variables, z), x, rtol=1e-4, atol=1e-5)


def test_broadcast_decoder_decodes_a_square_of_pixels_at_each_coordinate():
    decoder = Broadcast(pixel_hidden=(6,), patch=3, aspect=2.0).decoder((5, 7, 2), jnp.dtype("float32"))
    z = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    variables = decoder.init(jax.random.key(1), z)
    p, found = jax.tree.map(np.asarray, variables["params"]), np.asarray(decoder.apply(variables, z))
    chex.assert_shape(found, (2, 5, 7, 2))
    for i, j in itertools.product(range(5), range(7)):  # squares (0, 1) x (0, 1, 2), the last of both cut off
        place = np.array([(-1, 1)[i // 3], (-2, 0, 2)[j // 3]])
        hidden = np.maximum(z @ p["code"]["kernel"] + p["code"]["bias"] + place @ p["position"]["kernel"], 0)
        all_pixels = (hidden @ p["out"]["kernel"] + p["out"]["bias"]).reshape(2, 3, 3, 2)
        np.testing.assert_allclose(found[:, i, j], all_pixels[:, i % 3, j % 3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("image", [(28, 28, 1), (32, 32, 3), (27, 19, 2)])
def test_residual_conv_has_f4_and_f8_and_the_size_comes_back(stages, image):
    _, _, code, out = shapes(ResidualConv(stages=stages), image)
    assert code.shape == (2, *(-(-n // 2**stages) for n in image[:2]), 8)
    assert out.shape == (2, *image)


def test_a_vit_is_a_transformer_over_patches():
    network = ViT(patch=2, width=8, depth=1, heads=2)
    encoder, x = network.encoder(3, jnp.dtype("float32")), jax.random.normal(jax.random.key(0), (1, 6, 4, 2))
    params = encoder.init(jax.random.key(1), x)
    base = encoder.apply(params, x)
    assert base.shape == (1, 3, 2, 3)
    # Without positions, patches that change places take their codes with them; with them, they do not.
    rolled = jnp.roll(x, 2, 1)
    blind = jax.tree_util.tree_map_with_path(lambda p, a: 0 * a if "position" in jax.tree_util.keystr(p) else a, params)
    moved, still = (encoder.apply(p, rolled) - jnp.roll(encoder.apply(p, x), 1, 1) for p in (params, blind))
    np.testing.assert_allclose(still, 0.0, atol=1e-5)
    assert jnp.abs(moved).max() > 1e-4
    # Every code sees every patch, and pixels of one patch alone are of its own token without attention.
    seen = jax.jacobian(lambda x: encoder.apply(params, x).sum((0, -1)))(x)  # [3, 2, 1, 6, 4, 2]
    assert jnp.all(jnp.any(seen != 0, (2, 5)))
    decoder = network.decoder((6, 4, 2), jnp.dtype("float32"))
    z = jax.random.normal(jax.random.key(2), (1, 3, 2, 3))
    own = jax.tree_util.tree_map_with_path(
        lambda p, a: 0 * a if "mix" in jax.tree_util.keystr(p) else a, decoder.init(jax.random.key(3), z)
    )
    pixels = jax.jacobian(lambda z: decoder.apply(own, z)[0].sum(-1))(z)[:, :, 0]  # [6, 4, 3, 2, 3]
    reached = np.any(np.asarray(pixels) != 0, -1)
    assert all(
        np.array_equal(reached[i, j], (np.indices((3, 2)) == [[[i // 2]], [[j // 2]]]).all(0))
        for i, j in np.ndindex(6, 4)
    )


@pytest.mark.usefixtures("command_line")
def test_a_vit_names_what_fits():
    for network, fix in (
        (ViT(patch=4), "--model.network.patch 3"),
        (ViT(patch=3, width=9, heads=2), "--model.network.heads 3"),
    ):
        with pytest.raises(InputError, match=fix):
            network.check(ArraySpec((9, 6, 1)))
    ViT(patch=3, width=9, heads=3).check(ArraySpec((9, 6, 1)))


def test_the_hidden_layers_of_a_vit_are_as_wide_as_its_option_says():
    encoder = ViT(patch=2, width=8, depth=1, heads=2, mlp=3).encoder(3, jnp.dtype("float32"))
    params = jax.eval_shape(lambda: encoder.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1))))["params"]
    block = params["patches"]["block_0"]
    assert (block["up"]["kernel"].shape, block["down"]["kernel"].shape) == ((8, 24), (24, 8))
