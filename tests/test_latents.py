"""Latents of other shapes than a vector: a grid [B, 4, 4, 2] and two levels, through everything that reads latents."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support

from vae_jax import distributions as dist
from vae_jax import prng, spaces, train
from vae_jax.evaluation.codes import decode_all, draw, encode_all
from vae_jax.evaluation.likelihood import evaluate
from vae_jax.figures import write_all
from vae_jax.likelihoods import Bernoulli
from vae_jax.model import About, Aux, Encoding, Model, PriorFns
from vae_jax.spaces import Bits, Codes, Mixed, OneHot, Real

SHAPE, B = (8, 8, 1), 12
KEY = jax.random.key(3)
GRID = Real((4, 4, 2))
LEVELS = {"bottom": Real((3,)), "top": Real((2,))}


def dense(key, rows, columns):
    return jax.random.normal(key, (rows, columns)) / np.sqrt(rows)


def posterior(params, name, x):
    mean, log_var = jnp.split(x.reshape(x.shape[0], -1) @ params["vae"][name], 2, -1)
    return dist.DiagGaussian(mean, log_var)


def model_of(latents) -> Model:
    """Returns a linear VAE whose latents have this structure; every level is inferred from x alone."""
    names = list(latents) if isinstance(latents, dict) else ["z"]
    size = spaces.size(latents)

    def init(key, batch):
        keys = jax.random.split(key, len(names) + 1)
        group = {n: dense(k, 64, 2 * s.size) for n, k, s in zip(names, keys, spaces.leaves(latents))}
        return {"vae": group | {"decoder": dense(keys[-1], size, 64)}}, {}

    def encode(params, state, keys, batch):
        qs = [posterior(params, name, batch["x"]) for name in names]
        drawn = [q.mode() if keys is None else q.sample(prng.numbered_keys(keys, i)) for i, q in enumerate(qs)]
        structure = jax.tree.structure(latents)
        z = spaces.shaped(latents, jnp.concatenate(drawn, -1))
        return Encoding(z, jax.tree.unflatten(structure, qs) if len(qs) > 1 else qs[0])

    def decode(params, state, z, *, cond=None):
        out = spaces.vector(latents, z) @ params["vae"]["decoder"]
        return Bernoulli().build(out.reshape(-1, *SHAPE), {}, {})

    def terms(params, state, key, batch, ctx):
        keys = prng.example_keys(prng.site_key(key, "posterior"), ctx.index)
        code = encode(params, state, keys, batch)
        qs = spaces.by_level(latents, code.posterior)
        kl = {n: jnp.sum(dist.kl(q, dist.DiagGaussian(*jnp.zeros((2, 1, 1)))), -1) for n, q in zip(names, qs)}
        distortion = -decode(params, state, code.z).log_prob(batch["x"])
        rate = sum(kl.values())
        mse = jnp.mean(jnp.square(decode(params, state, code.z).mean() - batch["x"]), axis=(1, 2, 3))
        return {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate, "kl": kl, "mse": mse}

    def loss(params, state, key, batch, ctx):
        t = terms(params, state, key, batch, ctx)
        value = -jnp.mean(t["elbo"])
        return value, Aux(state, {"loss": value, "elbo": -value})

    def sample(params, state, key, n, *, cond=None, temperature=1.0):
        return spaces.shaped(latents, temperature * jax.random.normal(key, (n, size)))

    about = About(support.specs.images(*SHAPE), latents, Bernoulli(), (0.0, 1.0))
    return Model(init, loss, terms, encode, decode, about, prior=PriorFns(sample))


@pytest.fixture(scope="module", params=["grid", "levels"])
def toy(request):
    """A toy model after ten steps of the one train step, and a batch."""
    model = model_of(GRID if request.param == "grid" else LEVELS)
    batch = {"x": support.images(B, SHAPE)["x"]}
    tx = train.make_optimizer({"vae": train.Optimizer(lr=1e-2)}, 10)
    state = jax.jit(train.make_init(model, tx))(KEY, batch)
    step = jax.jit(train.make_train_step(model, tx))
    first = None
    for _ in range(10):
        state, metrics = step(state, batch)
        first = metrics["loss"] if first is None else first
    assert metrics["loss"] < first
    return model, state, batch


def test_codes_are_vectors_and_latents_again(toy):
    model, state, batch = toy
    codes = encode_all(model, state, [batch], key=KEY)
    n = spaces.size(model.about.latents)
    assert codes.mean.shape == codes.log_var.shape == codes.z.shape == (B, n)
    assert not np.allclose(codes.mean, codes.z)
    code = model.encode(state.params, {}, None, batch)
    np.testing.assert_allclose(codes.mean, spaces.vector(model.about.latents, code.z), rtol=1e-6)
    made = decode_all(model, state, codes.mean)
    np.testing.assert_allclose(made, model.decode(state.params, {}, code.z).mean(), rtol=1e-5)


def test_images_are_decoded_draws_of_the_prior(toy):
    model, state, _ = toy
    images = draw(model, state, KEY, 5)
    z = model.prior.sample(state.params, {}, prng.site_key(KEY, "prior"), 5, temperature=jnp.float32(1))
    assert jax.tree.structure(z) == jax.tree.structure(model.about.latents)
    np.testing.assert_allclose(images, model.decode(state.params, {}, z).mean(), rtol=1e-5)


def test_evaluation_gives_the_rate_of_every_level(toy):
    model, state, batch = toy
    found = evaluate(model, state, [batch], key=KEY).metrics
    levels = [name for name in found if name.startswith("kl/")]
    assert levels == [f"kl/{name}" for name in (["z"] if model.about.latents is GRID else ["bottom", "top"])]
    assert sum(found[name].value for name in levels) == pytest.approx(found["rate"].value, rel=1e-6)
    assert found["active_units"].value <= spaces.size(model.about.latents)


def test_pictures_are_made(toy, tmp_path):
    model, state, batch = toy
    made = write_all(tmp_path, model, state, batch, "toy")
    assert {path.stem for path in made} >= {"samples", "reconstructions", "traversals"}


@pytest.mark.parametrize(
    ("space", "variables"),
    [
        (GRID, (1,) * 32),
        (Bits((5,)), (1,) * 5),
        (OneHot((6,), (3, 3)), (3, 3)),
        (Mixed((5,), (1, 1, 3)), (1, 1, 3)),
        (Codes((2, 2), 512), (1,) * 4),
    ],
)
def test_a_space_reshapes_there_and_back(space, variables):
    v = np.arange(3 * space.size, dtype=np.float32).reshape(3, -1)
    z = space.shaped(v)
    assert z.shape == (3, *space.shape)
    np.testing.assert_array_equal(space.vector(z), v)
    assert space.variables() == variables
    assert z.dtype == (jnp.int32 if isinstance(space, Codes) else np.float32)


def test_levels_side_by_side():
    z = {"bottom": np.ones((2, 3), np.float32), "top": np.zeros((2, 2), np.float32)}
    v = spaces.vector(LEVELS, z)
    assert np.asarray(v).tolist() == [[1, 1, 1, 0, 0]] * 2
    support.assert_trees_equal(spaces.shaped(LEVELS, v), z)
    assert spaces.words({"a": Real((1,)), "b": Bits((1,))}) == "real vectors and binary vectors"
    assert spaces.is_euclidean(LEVELS)
    assert not spaces.is_euclidean({"a": Real((1,)), "b": Bits((1,))})
