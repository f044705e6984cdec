"""VQ-VAE over every quantizer: the contract of a model, codes in and out, what the log says of them, and refusals."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support

from vae_jax import spaces
from vae_jax import spec as specs
from vae_jax.config import Config
from vae_jax.errors import InputError
from vae_jax.likelihoods import Bernoulli, Gaussian, GaussianOptimal
from vae_jax.models import VAE, VQVAE, VQVAE2
from vae_jax.models.quantized import shares
from vae_jax.networks import MLP, ResidualConv
from vae_jax.quantizers import FSQ, LFQ, VQ, Gumbel, ResidualVQ
from vae_jax.runs import config as configs
from vae_jax.train.metrics import to_host

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the messages below are

SHAPE = (9, 6, 2)
NETWORK = ResidualConv(hidden=8, stages=1, blocks=1, block_hidden=4)
QUANTIZERS = {
    "vq": VQ(codes=5, kmeans=1, revive=0.1),
    "gradient": VQ(codes=5, update="gradient"),
    "residual": ResidualVQ(codes=5, depth=2),
    "fsq": FSQ((3, 2)),
    "lfq": LFQ(bits=3),
    "gumbel": Gumbel(codes=5),
}


def built(quantizer, likelihood=None):
    config = VQVAE(4, NETWORK, likelihood or Gaussian(0.2), quantizer)
    model = config.build(specs.images(*SHAPE))
    batch = support.images(4, SHAPE)
    return model, *model.init(jax.random.key(0), batch), batch


@pytest.mark.parametrize("name", QUANTIZERS)
def test_indices_go_in_and_out(name):
    model, params, state, batch = built(QUANTIZERS[name])
    code = model.encode(params, state, None, batch)
    space = model.about.latents
    assert space.shape == (5, 3, len(QUANTIZERS[name].sizes))
    chex.assert_shape(code.z, (4, *space.shape))
    assert code.z.dtype == jnp.int32
    assert 0 <= int(code.z.min()) <= int(code.z.max()) < space.codes
    # What is decoded from the indices is what the terms have scored.
    p_x = model.decode(params, state, code.z)
    chex.assert_shape(p_x.mean(), batch["x"].shape)
    if QUANTIZERS[name].draws:
        return
    terms = model.terms(params, state, jax.random.key(1), batch, support.context(model, 4, train=False))
    np.testing.assert_allclose(-p_x.log_prob(batch["x"]), terms["distortion"], rtol=1e-4)
    np.testing.assert_allclose(terms["elbo"], -terms["distortion"] - terms["rate"], rtol=1e-6)
    # Uniform indices: the rate is that of naming one of all grids.
    np.testing.assert_allclose(terms["rate"], 15 * np.sum(np.log(QUANTIZERS[name].sizes)), rtol=1e-6)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_step_trains_every_parameter_and_is_that_of_eager_code(name):
    model, params, state, batch = built(QUANTIZERS[name], GaussianOptimal())
    ctx = support.context(model, 4)

    def loss(params):
        return model.loss(params, state, jax.random.key(1), batch, ctx)

    (value, aux), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(grads))
    chex.assert_tree_all_finite((value, grads, aux.state))
    chex.assert_trees_all_equal_shapes_and_dtypes(aux.state, state)
    support.assert_trees_close(loss(params)[0], value, rtol=1e-4)
    terms = sum(v for k, v in aux.metrics.items() if k.startswith("quantizer/"))
    assert value != aux.metrics["distortion"] or not terms


def test_the_log_has_usage_and_perplexity_over_its_whole_interval():
    # Two batches, each of one code, together of two: a mean of perplexities would be 1.
    each = [shares(jnp.full((3, 2, 1), i), (4,)) for i in (0, 1)]
    host = to_host({"code_share": jnp.mean(jnp.stack(each), 0)})
    assert host["usage"] == [0.5]
    np.testing.assert_allclose(host["perplexity"], [2.0])
    assert "code_share" not in host


def test_usage_is_of_the_entries_that_each_codebook_has():
    # All of 2, half of 4, a sixth of 6.
    indices = jnp.stack([jnp.arange(4) % 2, jnp.arange(4) % 2 + 2, jnp.full(4, 5)], -1)
    host = to_host({"code_share": shares(indices, (2, 4, 6))})
    np.testing.assert_allclose(host["usage"], [1, 1 / 2, 1 / 6])
    np.testing.assert_allclose(host["perplexity"], [2, 2, 1])


def test_likelihoods_of_images_score_a_vq_vae():
    model, params, state, batch = built(VQ(codes=5), Bernoulli())
    value, _ = model.loss(params, state, jax.random.key(1), batch, support.context(model, 4))
    assert jnp.isfinite(value)


def test_microbatches_would_average_codebooks():
    config = Config(model=VQVAE(4, NETWORK, quantizer=VQ(codes=5)), accumulate=4)
    with pytest.raises(InputError, match=r"accumulate: the vq quantizer keeps a codebook.*set .*accumulate"):
        configs.check(config)
    gradient = VQVAE(4, NETWORK, quantizer=VQ(codes=5, update="gradient"))
    configs.check(Config(model=gradient, accumulate=4))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (VQVAE(network=MLP()), "vq needs a grid of code vectors, which the network .mlp. does not provide; choose "
         "--model.network residual-conv"),
        (VAE(4, NETWORK), "needs one code vector per example, which the network .residual-conv. does not provide"),
        (VQVAE(network=ResidualConv(stages=4)), "use --model.network.stages 2 or less"),
        (VQVAE2(network=MLP()), "vq2 needs a grid of code vectors"),
        (VQVAE2(network=NETWORK, top_stages=2), "nothing of a bottom grid of 5x3; use --model.top-stages 1 or less"),
        (VQVAE(quantizer=LFQ(bits=31)), "more than the 2,147,483,647 that an index can name"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(config, words):
    with pytest.raises(InputError, match=words):
        config.build(specs.images(*SHAPE))


def test_a_dvae_has_the_kl_of_its_distributions_and_an_elbo():
    model, params, state, batch = built(Gumbel(codes=3, kl=2.0))
    params["vae"]["quantizer"]["logits"] *= 8.0  # far from uniform
    ctx = support.context(model, 4, train=False)
    value, aux = model.loss(params, state, jax.random.key(1), batch, ctx)
    terms = model.terms(params, state, jax.random.key(1), batch, ctx)
    # ln K - H of every place, by hand.
    encoder = NETWORK.encoder(4, jnp.dtype("float32"))
    z = encoder.apply({"params": params["vae"]["encoder"]}, batch["x"])
    p = jax.nn.softmax(QUANTIZERS["gumbel"].logits(params["vae"]["quantizer"], z), -1)  # [4, 5, 3, K]
    kl = jnp.sum(np.log(3) + jnp.sum(p * jnp.log(p), -1), (1, 2))
    np.testing.assert_allclose(terms["rate"], kl, rtol=1e-4)
    np.testing.assert_allclose(value, aux.metrics["distortion"] + 2 * jnp.mean(kl), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["elbo"], jnp.mean(terms["elbo"]), rtol=1e-5)
    # Each draw is of p(k|z), whose most probable entry is the code without a key.
    draw = jax.jit(jax.vmap(lambda key: model.encode(params, state, jax.random.split(key, 4), batch).z))
    drawn = jax.nn.one_hot(draw(jax.random.split(jax.random.key(2), 1000))[..., 0], 3).mean(0)
    np.testing.assert_allclose(drawn, p, atol=0.08)
    best = model.encode(params, state, None, batch).z[..., 0]
    assert jnp.all(best == jnp.argmax(p, -1))


LEVELS = VQVAE2(4, NETWORK, 1, 8, 1, Gaussian(0.2), ResidualVQ(codes=5, depth=2))


def test_two_levels_have_grids_rates_and_usage_of_their_own():
    model, batch = LEVELS.build(specs.images(*SHAPE)), support.images(4, SHAPE)
    params, state = model.init(jax.random.key(0), batch)
    latents = model.about.latents
    # Coarse to fine, halves of the image and of these.
    assert [space.shape for space in latents] == [(3, 2, 2), (5, 3, 2)]
    z = model.encode(params, state, None, batch).z
    vector = spaces.vector(latents, z)
    assert vector.dtype == jnp.int32
    chex.assert_trees_all_equal(spaces.shaped(latents, vector), z)
    ctx = support.context(model, 4, train=False)
    terms = model.terms(params, state, jax.random.key(1), batch, ctx)
    np.testing.assert_allclose(-model.decode(params, state, z).log_prob(batch["x"]), terms["distortion"], rtol=1e-4)
    np.testing.assert_allclose(terms["kl"].top, 6 * 2 * np.log(5), rtol=1e-6)
    np.testing.assert_allclose(terms["kl"].bottom, 15 * 2 * np.log(5), rtol=1e-6)
    _, aux = model.loss(params, state, jax.random.key(1), batch, ctx)
    host = to_host(aux.metrics)
    for name in ("top", "bottom"):
        assert len(host[f"usage/{name}"]) == len(host[f"perplexity/{name}"]) == 2
        assert len(host[f"quantization_error/{name}"]) == 2
    np.testing.assert_allclose(host["rate/top"] + host["rate/bottom"], host["rate"], rtol=1e-6)
    # Bottom codes are chosen given the top ones, and pixels decoded from both.
    other = z._replace(top=(z.top + 1) % 5)
    assert jnp.any(model.decode(params, state, other).mean() != model.decode(params, state, z).mean())


def test_the_bottom_codes_see_the_top():
    model, batch = LEVELS.build(specs.images(*SHAPE)), support.images(4, SHAPE)
    params, state = model.init(jax.random.key(0), batch)
    entries = state["quantizer_top"]
    far = jax.tree.map(lambda leaf: leaf * 100 if leaf.ndim == 2 else leaf, entries)
    first, other = (model.encode(params, state | {"quantizer_top": e}, None, batch).z for e in (entries, far))
    assert jnp.any(first.bottom != other.bottom)
