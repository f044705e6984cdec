"""Numbers that strayed: log variances of any size, and models that do not give every metric."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import support

from vae_jax import distributions as dist
from vae_jax.data.config import DataConfig
from vae_jax.distributions.gaussian import LOG_VAR_RANGE, DiagGaussian, of_outputs
from vae_jax.distributions.special import log_beyond
from vae_jax.likelihoods import LIKELIHOODS
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.posteriors import POSTERIORS
from vae_jax.priors import PRIORS, Links
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.tasks import training
from vae_jax.train import MeshConfig
from vae_jax.train.metrics import collapse_warning, to_host

LOW, HIGH = LOG_VAR_RANGE
STEP = jnp.zeros((), jnp.int32)


def test_a_bound_that_changes_no_bit_inside():
    """Values and gradients between the ends are those without it, jitted as in training."""
    rng = np.random.default_rng(0)
    inside = np.concatenate([rng.uniform(LOW, HIGH, 1000), rng.normal(size=1000), [0.0, 1e-30, -1e-30, LOW, HIGH]])
    mean, raw = jnp.asarray(rng.normal(size=inside.size), jnp.float32), jnp.asarray(inside, jnp.float32)
    p = DiagGaussian(jnp.zeros_like(mean), jnp.zeros_like(mean))

    def rate(make):
        return jax.jit(jax.value_and_grad(lambda mean, raw: jnp.sum(dist.kl(make(mean, raw), p)), (0, 1)))(mean, raw)

    np.testing.assert_array_equal(jax.jit(lambda x: of_outputs(x, x).log_var)(raw), raw)
    support.assert_trees_equal(rate(of_outputs), rate(DiagGaussian))


def test_past_the_ends_it_is_a_logarithm():
    at = np.float64(np.float32([-3e38, -1e4, LOW - 1, LOW - 1e-3, HIGH + 1e-3, HIGH + 1, 89.0, 1e4, 3e38]))
    far = np.maximum(at - HIGH, LOW - at)
    value, slope = jax.vmap(jax.value_and_grad(lambda x: log_beyond(x, LOW, HIGH)))(jnp.asarray(at, jnp.float32))
    np.testing.assert_allclose(value, np.where(at > 0, HIGH + np.log1p(far), LOW - np.log1p(far)), rtol=1e-6)
    np.testing.assert_allclose(slope[1:-1], (1 / (1 + far))[1:-1], rtol=1e-4)


@pytest.mark.parametrize("name", ["gaussian", "joint"])
@pytest.mark.parametrize("raw", [89.0, 1e4, -89.0, -1e4])
def test_rate_and_gradient_are_finite_at_any_log_variance(name, raw):
    posterior, prior = POSTERIORS[name](), PRIORS["joint" if name == "joint" else "normal"]()
    blocks = posterior.blocks(2)
    links = Links(
        len(blocks) if name == "gaussian" else posterior.code_dim(2), (2, 2, 1), lambda x: None, blocks=blocks
    )
    p = prior.distribution({}, {}, links)
    out = jnp.zeros((3, posterior.outputs(2))).at[:, 2:4].set(raw)  # means, log variances, logits

    def measured(out):
        q = posterior.build({}, out, STEP, False)
        z, log_q = q.sample_and_log_prob(jax.random.split(jax.random.key(0), 3))
        return jnp.sum(dist.closed_kl(q, p)), (z, log_q, p.log_prob(z))

    (rate, rest), grad = jax.value_and_grad(measured, has_aux=True)(out)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((rate, rest, grad)))
    assert rate > 10.0
    assert np.all(grad[:, 2:4] * np.sign(raw) > 0)  # downhill is back inside


def test_a_shared_log_variance_is_bounded_too():
    posterior = POSTERIORS["gaussian"](shared_variance=True)

    def rate(params):
        q = posterior.build(params, jnp.zeros((3, 2)), STEP, True)
        return jnp.sum(dist.kl(q, DiagGaussian(*jnp.zeros((2, 1, 2)))))

    value, grad = jax.value_and_grad(rate)({"log_var": jnp.asarray([[89.0, -1e4]])})
    assert np.isfinite(value)
    assert np.all(np.isfinite(grad["log_var"]))


@pytest.mark.parametrize("raw", [100.0, -100.0])
def test_what_strayed_comes_back(raw):
    """Adam on the rate alone leads a log variance from 100 and from -100 back between the ends."""
    tx = optax.adam(1.0)

    def rate(x):
        return dist.kl(of_outputs(jnp.zeros(()), x), DiagGaussian(jnp.zeros(()), jnp.zeros(())))

    def move(carry, _):
        x, moments = carry
        updates, moments = tx.update(jax.grad(rate)(x), moments)
        return (optax.apply_updates(x, updates), moments), None

    (x, _), _ = jax.lax.scan(move, (jnp.float32(raw), tx.init(jnp.float32(raw))), length=150)
    assert LOW < float(jnp.asarray(x)) < HIGH


@pytest.mark.parametrize("name", list(LIKELIHOODS))
def test_draws_stay_finite_at_any_scale(name):
    """Log scales of 1e4, from the decoder or trained, of every likelihood."""
    likelihood = LIKELIHOODS[name]()
    keys = jax.random.split(jax.random.key(0), 2)

    @jax.jit
    def looks(out, params):
        p = likelihood.build(out, params, likelihood.init_state())
        return p.sample(keys), p.mean(), p.log_prob(jnp.full((2, 3, 3, 1), 0.25))

    for scale in (100.0, 1e4, -1e4):
        params = jax.tree.map(lambda leaf, s=scale: jnp.full_like(leaf, s), likelihood.params_for((3, 3, 1)))
        for out in (scale, 0.3):
            found = looks(jnp.full((2, 3, 3, likelihood.outputs(1)), out), params)
            assert all(np.all(np.isfinite(leaf)) for leaf in found), (scale, out)


def test_a_model_may_give_its_kl_without_the_moments_of_its_codes(tmp_path, monkeypatch):
    """It used to train to the end and die with KeyError: 'active_units'."""
    build = VAE.build

    def without_moments(self, *args):
        model = build(self, *args)

        def loss(*args):
            value, aux = model.loss(*args)
            kept = {n: v for n, v in aux.metrics.items() if n not in ("code_mean", "code_square")}
            return value, aux._replace(metrics=kept | {"kl_per_dim": jnp.zeros(3)})

        return model._replace(loss=loss)

    monkeypatch.setattr(VAE, "build", without_moments)
    monkeypatch.setattr(training, "_figures", lambda run, state, step, *more: None)
    config = Config(
        steps=2,
        data=DataConfig("digits", batch_size=8),
        model=VAE(latent_dim=3, network=MLP((4,))),
        mesh=MeshConfig(data=1),
        logging=Logging(log_every=1, checkpoint_every=2, figures_minutes=0.0, tensorboard=False),
        evaluation=Evaluation(limit=10),
    )
    said: list[str] = []
    run = training.train_run(config, "mine", tmp_path / "run", say=said.append)
    assert int(run.restore().step) == 2
    assert "warning: close to posterior collapse: the code carries only 0 nats in 3 dimensions;" in " ".join(said)


def test_active_units_need_both_moments():
    moments = {"code_mean": np.zeros(2), "code_square": np.asarray([0.5, 0.001])}
    assert to_host({"loss": 1.0, **moments}) == {"loss": 1.0, "active_units": 1}
    for name, value in moments.items():
        assert to_host({"loss": 1.0, name: value}) == {"loss": 1.0}
    assert collapse_warning([5.0, 0.0], None, "go lower") is None
