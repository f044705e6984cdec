"""Data that are no images, and models that cannot read what the data have."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support

from vae_jax import prng, spec
from vae_jax.errors import InputError
from vae_jax.likelihoods import Gaussian
from vae_jax.models import M2, VAE, Autoencoder, Multimodal
from vae_jax.networks import MLP, Conv64, LocalAR
from vae_jax.objectives import OBJECTIVES
from vae_jax.posteriors import Binary, Delta
from vae_jax.priors import BernoulliPrior, Vamp
from vae_jax.priors.base import Links

VECTORS = spec.vectors(6, examples=100)
NET = MLP((8,))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_scores_vectors(name):
    objective = support.shrink(OBJECTIVES[name]())
    parts = {"posterior": Delta()} if objective.deterministic else {}
    config = support.fitting(3, NET, objective=objective, likelihood=Gaussian(), **parts)
    model = config.build(VECTORS)
    batch = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(5, 6)), jnp.float32)}
    ctx = support.context(model, 5)

    @jax.jit
    def scores(key):
        params, state = model.init(key, batch)
        value, aux = model.loss(params, state, key, batch, ctx)
        return value, aux.metrics["distortion"], model.terms(params, state, key, batch, ctx)["mse"]

    value, distortion, mse = scores(jax.random.key(0))
    assert np.isfinite(value)
    assert np.isfinite(distortion)
    assert mse.shape == (5,)


@pytest.mark.parametrize("config", [M2(3, NET), Multimodal(3, NET)], ids=repr)
def test_a_mask_that_a_model_does_not_read_is_refused(config):
    about = support.spec((4, 4, 1))
    config.build(about)
    with pytest.raises(InputError, match=r"they have missing values .* this model does not take; choose model=.vae"):
        config.build(about._replace(mask=True))


@pytest.mark.parametrize(
    ("network", "words"),
    [(LocalAR(), "that does not read x, which the network (local-ar)"), (MLP((8,), dropout=0.5), "without dropout")],
)
@pytest.mark.parametrize(("name", "model"), [("ae", Autoencoder), ("m2", M2), ("multimodal", Multimodal)])
def test_networks_that_a_model_cannot_take_are_refused(name, model, network, words):
    with pytest.raises(InputError, match=rf"^model: {name} needs a decoder {re.escape(words)}"):
        model(network=network).check()
    # The advice is followed: another network, or no dropout.
    model(network=MLP((8,))).check()


def test_networks_and_priors_of_images_refuse_vectors():
    with pytest.raises(InputError, match="Conv64 takes data of kind image, but these are of kind vector"):
        VAE(3, Conv64()).build(VECTORS)
    with pytest.raises(InputError, match="Vamp makes data of kind image, but these are of kind vector"):
        VAE(3, NET, prior=Vamp()).build(VECTORS)


def test_binary_codes_of_equal_probability_at_temperature_0():
    z = BernoulliPrior(0.5).sample({}, {}, jax.random.key(0), 1000, Links(4, (2, 2, 1), lambda x: None), 0.0)
    assert 0.4 < float(z.mean()) < 0.6
    sure = BernoulliPrior(0.7).sample({}, {}, jax.random.key(0), 1000, Links(4, (2, 2, 1), lambda x: None), 0.0)
    assert float(sure.mean()) == 1.0


def test_a_condition_is_appended_to_vectors():
    config = VAE(2, NET, posterior=Binary(), prior=BernoulliPrior())
    config = dataclasses.replace(config, condition=dataclasses.replace(config.condition, on="label"))
    model = config.build(VECTORS._replace(classes=3))
    batch = {"x": jnp.ones((4, 6)), "label": jnp.arange(4) % 3}
    params, state = model.init(jax.random.key(0), batch)
    assert params["vae"]["encoder"]["hidden_0"]["kernel"].shape == (9, 8)
    keys = prng.example_keys(jax.random.key(1), jnp.arange(4))
    assert model.encode(params, state, keys, batch).z.shape == (4, 2)
