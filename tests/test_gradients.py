"""Gradient estimators against the exact gradient: every code of a tiny discrete model is summed over.

Averages over thousands of draws are compared within 4.5 standard errors in every parameter.
"""

import dataclasses
import functools
import math
import re
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from jax.flatten_util import ravel_pytree

from vae_jax import collectives, objectives, prng, spec
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.errors import InputError
from vae_jax.likelihoods import Bernoulli, Gaussian
from vae_jax.models import VAE
from vae_jax.networks import Linear
from vae_jax.objectives import (
    Arm,
    DisArm,
    Elbo,
    JointCapacity,
    LeaveOneOut,
    Pathwise,
    Reinforce,
    StickingTheLanding,
    Terms,
)
from vae_jax.posteriors import Binary, Categorical, JointPosterior
from vae_jax.priors import BernoulliPrior, JointPrior, Prior, UniformCategorical
from vae_jax.runs.config import Config, check
from vae_jax.spaces import Bits, Space

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the messages below are

SHAPE, B = (2, 2, 1), 2
BATCH = {"x": jnp.asarray([[1, 0, 1, 1], [0, 0, 1, 0]], jnp.float32).reshape(B, *SHAPE)}


class Plain(NamedTuple):
    """A distribution under a name that no closed KL is known for, so that the rate is estimated."""

    inner: Any

    def log_prob(self, z):
        return self.inner.log_prob(z)


@dataclasses.dataclass(frozen=True)
class Unlisted(Prior):
    """A prior without a closed KL: wraps the one given."""

    inner: Prior = dataclasses.field(default_factory=BernoulliPrior)

    space: ClassVar[type[Space]] = Bits
    factorized: ClassVar[bool] = False

    def distribution(self, params, state, links):
        return Plain(self.inner.distribution(params, state, links))


MODELS = {
    "binary": (3, {"posterior": Binary(), "prior": BernoulliPrior(0.3)}),
    "estimated rate": (3, {"posterior": Binary(), "prior": Unlisted(inner=BernoulliPrior(0.3))}),
    "categorical": (2, {"posterior": Categorical(categories=3), "prior": UniformCategorical()}),
}


@functools.cache
def built(name, gradient):
    """Returns (model, params with every weight drawn wide, state)."""
    latents, parts = MODELS[name]
    model = VAE(latents, Linear(), Bernoulli(), gradient=gradient, **parts).build(spec.images(*SHAPE))
    params, state = model.init(jax.random.key(0), BATCH)
    flat, back = ravel_pytree(params)
    return model, back(jax.random.normal(jax.random.key(1), flat.shape)), state


def codes(name):
    """Returns every code of the model [N, D]."""
    latents, parts = MODELS[name]
    size = parts["posterior"].categories if name == "categorical" else 2
    index = np.stack(np.meshgrid(*[np.arange(size)] * latents, indexing="ij"), -1).reshape(-1, latents)
    z = np.eye(size)[index].reshape(len(index), -1) if name == "categorical" else index
    return jnp.asarray(z, jnp.float32)


@functools.cache
def exact(name):
    """Returns (value, gradient) of -ELBO by summing over all codes."""
    model, params, _ = built(name, Reinforce())
    z = codes(name)
    masses = {"binary": np.log([0.7, 0.3]), "estimated rate": np.log([0.7, 0.3])}.get(name)
    log_p_z = jnp.full(len(z), -2 * math.log(3)) if masses is None else jnp.sum(jnp.asarray(masses)[z.astype(int)], -1)

    def loss(params):
        q = model.encode(params, {}, None, BATCH).posterior
        log_q = jax.vmap(lambda code: q.log_prob(jnp.tile(code, (B, 1))))(z)
        log_p_x = jax.vmap(lambda code: model.decode(params, {}, jnp.tile(code, (B, 1))).log_prob(BATCH["x"]))(z)
        return jnp.mean(jnp.sum(jnp.exp(log_q) * (log_q - log_p_z[:, None] - log_p_x), 0))

    value, grad = jax.jit(jax.value_and_grad(loss))(params)
    return float(value), np.asarray(ravel_pytree(grad)[0])


def at_baseline(state, value):
    """Returns the model state with the baselines set to a number, as after many steps; None leaves it."""
    if value is None:
        return state
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.full_like(x, 1.0 if "weight" in jax.tree_util.keystr(path) else value), state
    )


@functools.lru_cache(maxsize=32)
def draws(name, gradient, n=10_000, baseline=None):
    """Returns (losses [n], gradients [n, P]) of n keys."""
    model, params, state = built(name, gradient)
    state, ctx = at_baseline(state, baseline), support.context(model, B)

    def one(key):
        value, grad = jax.value_and_grad(lambda p: model.loss(p, state, key, BATCH, ctx)[0])(params)
        return value, ravel_pytree(grad)[0]

    return jax.device_get(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), n)))


def scores(values, want):
    error = values.std(0) / math.sqrt(len(values))
    return (values.mean(0) - want) / np.maximum(error, 1e-6)


UNBIASED = {
    "reinforce, no baseline": (Reinforce("none"), None),
    "reinforce, baseline 0 at first": (Reinforce("mean"), None),
    "reinforce, baseline near the mean": (Reinforce("mean"), 3.0),
    "reinforce, baseline far off": (Reinforce("mean"), -20.0),
    "rloo 2": (LeaveOneOut(k=2), None),
    "rloo 4": (LeaveOneOut(k=4), None),
    "arm": (Arm(), None),
    "disarm": (DisArm(), None),
}


# ARM and DisARM are for binary codes only: for categorical ones there is nothing to test.
WORKING = [(m, e) for m in MODELS for e in UNBIASED if not (UNBIASED[e][0].spaces and m == "categorical")]


# Codes of other kinds are other products with the same score: an estimator of one sample and one of several.
IN_SUITE = ("reinforce, baseline near the mean", "rloo 2")


@pytest.mark.parametrize(
    ("name", "estimator"),
    [pytest.param(m, e, marks=[] if m == "binary" or e in IN_SUITE else pytest.mark.slow) for m, e in WORKING],
)
def test_estimators_have_the_mean_of_the_exact_gradient(name, estimator):
    gradient, baseline = UNBIASED[estimator]
    value, want = exact(name)
    losses, grads = draws(name, gradient, baseline=baseline)
    assert abs(scores(losses, value)) < 4.5
    assert np.max(np.abs(scores(grads, want))) < 4.5
    # The test can fail: a tenth of the gradient missing would show.
    assert np.max(np.abs(scores(0.9 * grads, want))) > 4.5


@pytest.mark.parametrize("name", ["binary", "categorical"])
@pytest.mark.parametrize("relaxation", ["gumbel", "straight-through"])
def test_relaxations_are_biased(name, relaxation):
    """Gumbel-softmax and straight-through at temperature 1: small variance, wrong mean."""
    latents, parts = MODELS[name]
    posterior = dataclasses.replace(parts["posterior"], relaxation=relaxation, final_temperature=1.0)
    model = VAE(latents, Linear(), Bernoulli(), posterior=posterior, prior=parts["prior"]).build(spec.images(*SHAPE))
    params, ctx = built(name, Reinforce())[1], support.context(model, B)
    run = jax.vmap(lambda key: ravel_pytree(jax.grad(lambda p: model.loss(p, {}, key, BATCH, ctx)[0])(params))[0])
    grads = np.asarray(jax.jit(run)(jax.random.split(jax.random.key(3), 4000)))
    assert np.max(np.abs(scores(grads, exact(name)[1]))) > 15
    assert grads.var(0).sum() < draws(name, Reinforce("none"))[1].var(0).sum()


def encoder_variance(gradient, baseline=None):
    """Returns the summed variance of the encoder's gradient in the binary model."""
    size = ravel_pytree(built("binary", gradient)[1]["vae"]["decoder"])[0].size
    return draws("binary", gradient, baseline=baseline)[1][:, size:].var(0).sum()


def test_variances_are_in_their_order():
    """A baseline helps; RLOO beats it; DisARM is ARM with u integrated out, so never worse (per pair of samples)."""
    plain, mean = encoder_variance(Reinforce("none")), encoder_variance(Reinforce("mean"), 3.0)
    rloo, arm, disarm = (encoder_variance(g) for g in (LeaveOneOut(k=2), Arm(), DisArm()))
    assert mean < plain
    assert rloo < plain
    assert disarm < arm < plain
    assert encoder_variance(LeaveOneOut(k=4)) < rloo


# --- real codes ---


def linear_gaussian(gradient, scale=1.5):
    model = VAE(2, Linear(), Gaussian(0.7), gradient=gradient).build(spec.images(*SHAPE))
    params, state = model.init(jax.random.key(0), BATCH)
    flat, back = ravel_pytree(params)
    return model, state, back(0.5 * scale * jax.random.normal(jax.random.key(1), flat.shape))


def gaussian_exact(params):
    """Returns -ELBO in closed form: E|x - W z - b|^2 = |x - W mu - b|^2 + sum_j |w_j|^2 s_j^2."""
    encoder, decoder = (params["vae"][side]["out"] for side in ("encoder", "decoder"))
    x = BATCH["x"].reshape(B, -1)
    mean, log_var = jnp.split(x @ encoder["kernel"] + encoder["bias"][None], 2, -1)
    residual = x - mean @ decoder["kernel"] - decoder["bias"][None]
    squares = jnp.sum(residual**2, -1) + jnp.exp(log_var) @ jnp.sum(decoder["kernel"] ** 2, -1)
    distortion = 0.5 * squares / 0.7**2 + 4 * (math.log(0.7) + 0.5 * math.log(2 * math.pi))
    return jnp.mean(distortion + 0.5 * jnp.sum(mean**2 + jnp.exp(log_var) - log_var - 1, -1))


@pytest.mark.parametrize("gradient", [Pathwise(), StickingTheLanding(), Reinforce("none"), LeaveOneOut(k=3)], ids=str)
def test_real_codes_have_the_gradient_of_the_closed_form(gradient):
    model, state, params = linear_gaussian(gradient)
    ctx = support.context(model, B)

    def one(key):
        return ravel_pytree(jax.grad(lambda p: model.loss(p, state, key, BATCH, ctx)[0])(params))[0]

    grads = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(4), 10_000)))
    want = np.asarray(ravel_pytree(jax.grad(gaussian_exact)(params))[0])
    assert np.max(np.abs(scores(grads, want))) < 4.5
    assert np.max(np.abs(scores(0.9 * grads, want))) > 4.5


@pytest.mark.parametrize("gradient", [Pathwise(), Reinforce("none"), LeaveOneOut(k=2)], ids=str)
def test_second_moment_of_a_gaussian(gradient):
    """E[z^2] under N(m, s^2) has the derivatives 2 m and 2 s."""
    m, s, n = 0.6, 1.3, 50_000
    ctx = support.context(linear_gaussian(Pathwise())[0], n)

    def loss(theta):
        ones = jnp.ones((n, 1))
        q = DiagGaussian(theta[:, :1] * ones, 2 * jnp.log(theta[:, 1:]) * ones)
        keys = prng.example_keys(jax.random.key(0), jnp.arange(n))
        z, log_q, noise = gradient.draw(keys, q, gradient.samples, gradient.score)
        cost, _ = gradient.surrogate("distortion", jnp.sum(z**2, -1), q, log_q, noise, {}, ctx)
        return jnp.sum(jnp.mean(cost, 0))

    each = np.asarray(jax.grad(loss)(jnp.tile(jnp.asarray([[m, s]]), (n, 1))))
    assert np.max(np.abs(scores(each, np.asarray([2 * m, 2 * s])))) < 4.5


# --- what an estimator may and may not do ---


def test_values_are_kept_bit_for_bit():
    q = DiagGaussian(jnp.zeros((5, 2)), jnp.zeros((5, 2)))
    ctx = support.context(linear_gaussian(Pathwise())[0], 5)
    for gradient in (Reinforce("none"), Reinforce("mean"), LeaveOneOut(k=3)):
        z, log_q, noise = gradient.draw(jax.random.split(jax.random.key(1), 5), q, 3, True)
        cost = jnp.exp(5 * z[..., 0])
        state = gradient.init_state().get("distortion", {})
        got, _ = gradient.surrogate("distortion", cost, q, log_q, noise, state, ctx)
        np.testing.assert_array_equal(got, cost)


@pytest.mark.parametrize("gradient", [Reinforce("none"), Reinforce("mean"), LeaveOneOut(k=2), Arm(), DisArm()], ids=str)
def test_the_signal_of_an_example_ignores_the_others(gradient):
    """Other costs of the second example leave the gradient of the first as it is."""
    posterior = Binary().build({}, jnp.asarray([[0.3, -1.0], [2.0, 0.1]]), jnp.zeros((), jnp.int32), False)
    ctx = support.context(linear_gaussian(Pathwise())[0], 2)
    state = gradient.init_state().get("distortion", {})

    def grad(other):
        def loss(logits):
            q = dataclasses.replace(posterior, logits=logits)
            z, log_q, noise = gradient.draw(jax.random.split(jax.random.key(2), 2), q, gradient.samples, True)
            cost = jnp.sum(3.0 * z, -1) * jnp.asarray([[1.0, other]])
            return jnp.sum(gradient.surrogate("distortion", cost, q, log_q, noise, state, ctx)[0])

        return np.asarray(jax.jit(jax.grad(loss))(posterior.logits))

    near, far = grad(1.0), grad(100.0)
    np.testing.assert_array_equal(near[0], far[0])
    assert np.any(near[1] != far[1])


def test_the_baseline_is_the_average_of_earlier_steps():
    gradient, ctx = Reinforce("mean", decay=0.9), support.context(linear_gaussian(Pathwise())[0], 2)
    state = gradient.init_state()["distortion"]
    costs, means = [jnp.full((1, 2), c) for c in (4.0, 10.0, 1.0)], []
    for cost in costs:
        means.append(float(state["mean"] / jnp.maximum(state["weight"], 1e-12)))
        _, state = gradient.surrogate("distortion", cost, None, jnp.zeros((1, 2)), None, state, ctx)
    np.testing.assert_allclose(means, [0.0, 4.0, (0.9 * 4 + 10) / 1.9], rtol=1e-5)


def test_score_functions_draw_exact_codes_in_training():
    """The relaxation is for the pathwise estimator: with REINFORCE the codes of training are 0 or 1."""

    @dataclasses.dataclass(frozen=True)
    class Look(Elbo):
        def loss(self, terms, ctx):
            return super().loss(terms, ctx)[0], {"soft": jnp.max(terms.z * (1 - terms.z))}

    for gradient, is_soft in ((Pathwise(), True), (Reinforce(), False)):
        config = VAE(3, Linear(), posterior=Binary(), prior=BernoulliPrior(), gradient=gradient, objective=Look())
        model = config.build(spec.images(*SHAPE))
        params, state = model.init(jax.random.key(0), BATCH)
        for training in (True, False):
            ctx = support.context(model, B, train=training)
            soft = model.loss(params, state, jax.random.key(1), BATCH, ctx)[1].metrics
            assert (soft["soft"] > 0) == (is_soft and training)


# --- devices ---


def over_devices(function, *arrays):
    """Returns the function of arrays [16, ...] under pmap over 8 devices, and on one device with axis_name None."""
    sharded = [x.reshape(8, 2, *x.shape[1:]) for x in arrays]
    many = jax.pmap(functools.partial(function, "data"), axis_name="data")(*sharded)
    return jax.device_get(many), jax.device_get(jax.jit(functools.partial(function, None))(*arrays))


def test_the_baseline_is_the_same_on_all_devices():
    ctx, gradient = support.context(linear_gaussian(Pathwise())[0], 2), Reinforce("mean")
    start = {"mean": jnp.asarray(0.3), "weight": jnp.asarray(0.1)}

    def update(axis_name, cost):
        log_q = jnp.zeros_like(cost.T)
        return gradient.surrogate("rate", cost.T, None, log_q, None, start, ctx._replace(axis_name=axis_name))[1]

    many, one = over_devices(update, jax.random.normal(jax.random.key(0), (16, 1)))
    for name, value in many.items():
        np.testing.assert_allclose(value, np.full(8, one[name]), rtol=1e-5)


def test_the_capacity_compares_the_rate_of_the_global_batch():
    """Value and gradient: the mean over devices of each device's gradient is that of one device."""
    objective = JointCapacity(capacity=4.0, discrete_capacity=1.0)
    ctx = support.context(
        VAE(posterior=JointPosterior(), prior=JointPrior(), objective=objective).build(spec.images(*SHAPE)), 2
    )
    posterior = JointPosterior().build({}, jnp.zeros((1, 16)), ctx.step, False)

    def run(axis_name, x):
        def loss(w):
            kl = jnp.square(x * w)
            terms = Terms(x, x, posterior, None, jnp.sum(x, -1), jnp.sum(kl, -1), kl)
            return jnp.mean(objective.loss(terms, ctx._replace(axis_name=axis_name, step=jnp.asarray(10**6)))[0])

        return collectives.pmean(jax.value_and_grad(loss)(jnp.ones((1, 4))), axis_name)

    many, one = over_devices(run, jax.random.normal(jax.random.key(0), (16, 4)))
    np.testing.assert_allclose(many[0], np.full(8, one[0]), rtol=1e-5)
    np.testing.assert_allclose(many[1], np.broadcast_to(one[1], (8, 1, 4)), rtol=1e-5)


# --- bad input ---


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"gradient": LeaveOneOut(k=1)}, r"model.gradient.k: 1 is out of range; it must be 2 or more"),
        ({"gradient": Reinforce(decay=1.0)}, r"model.gradient.decay: 1.0 is out of range"),
        ({"gradient": Arm()}, r"arm needs binary vectors, which the posterior \(gaussian\) does not provide"),
        (
            {"gradient": DisArm(), "posterior": Categorical(), "prior": UniformCategorical()},
            r"disarm needs binary vectors, which the posterior \(categorical\) does not provide",
        ),
        (
            {"gradient": StickingTheLanding(), "posterior": Binary(), "prior": BernoulliPrior()},
            r"stl needs real vectors .* which the posterior \(bernoulli\)",
        ),
        (
            {"posterior": Categorical(relaxation="none"), "prior": UniformCategorical()},
            r"pathwise needs reparameterized samples, which the posterior \(categorical\) does not provide.*reinforce",
        ),
    ],
)
def test_estimators_without_meaning(parts, words):
    with pytest.raises(InputError, match=words):
        check(Config(model=VAE(**parts)))


def test_every_estimator_is_listed_with_its_paper():
    for cls in objectives.GRADIENTS.values():
        assert re.search(r"\((arXiv:\d{4}\.\d{4,5}|[A-Z]\w+( et al\.)? (19|20)\d\d)\b", cls.__doc__.splitlines()[0])
