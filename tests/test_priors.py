"""Learned and rich priors against scipy, quadrature, mixtures by hand and their own samples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from scipy import stats
from scipy.special import expit, logsumexp

from vae_jax import prng, spec, train
from vae_jax.distributions import dense
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.distributions.mixture import AggregatePosterior, GaussianMixture
from vae_jax.errors import InputError
from vae_jax.model import Context
from vae_jax.models import VAE
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.priors import (
    PRIORS,
    ConditionalNormal,
    Exemplar,
    LearnedNormal,
    Links,
    MixtureOfGaussians,
    Resampled,
    Vamp,
)
from vae_jax.priors.resampled import ResampledNormal
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config
from vae_jax.train import MeshConfig
from vae_jax.train.sharding import batch_sharding

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the messages below are

KEY = jax.random.key(0)
SHAPE, D = (4, 3, 1), 2
# What the posteriors of these tests infer: mean and log variance are fixed linear maps of the pixels.
MAP = jax.random.normal(jax.random.key(5), (12, 2 * D))


def infer(images):
    out = jnp.matmul(images.reshape(len(images), -1) - 0.5, MAP, precision="highest")
    return DiagGaussian(out[:, :D], 0.5 * out[:, D:] - 1.0)


def links(x=None, cond=None, dim=D):
    return Links(dim, SHAPE, infer, x, cond)


def randomized(prior, cond=None, dim=D, scale=0.5):
    """Returns (params moved away from their start, state)."""
    around = links(cond=cond, dim=dim)
    params = prior.init(KEY, around)
    leaves, tree = jax.tree.flatten(params)
    noise = [scale * jax.random.normal(jax.random.fold_in(KEY, i), x.shape) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(tree, [x + e for x, e in zip(leaves, noise, strict=True)]), prior.init_state(around)


def some_images(n, seed=0):
    return support.images(n, SHAPE, seed)["x"]


def filled(prior, images):
    """Returns an exemplar state that holds these images."""
    state = prior.init_state(links())
    return prior.fit(prior.init(KEY, links()), state, KEY, links(images), context(len(images)))[1]


def context(n, **replace):
    zero = jnp.zeros((), jnp.int32)
    return Context(zero, jnp.arange(n, dtype=jnp.int32), {})._replace(**replace)


def cases():
    """Returns name -> (prior, params, state), all over two dimensions without a condition."""
    made = {
        "learned-normal": LearnedNormal(),
        "mog": MixtureOfGaussians(components=4, spread=1.5),
        "vamp": Vamp(pseudo_inputs=6),
        "exemplar": Exemplar(exemplars=8, std=0.7),
        "resampled": Resampled(truncation=6, hidden=(16,), evaluation_samples=1 << 17),
    }
    found = {
        name: (prior, *randomized(prior, scale=2.0 if name == "resampled" else 0.5)) for name, prior in made.items()
    }
    prior, params, _ = found["exemplar"]
    found["exemplar"] = (prior, params, filled(prior, some_images(5)))
    return found


CASES = cases()
every_prior = pytest.mark.parametrize("name", CASES)


def grid(reach=9.0, steps=361):
    """Returns points [N, 2] of a grid and the area of a cell."""
    axis = np.linspace(-reach, reach, steps)
    first, second = np.meshgrid(axis, axis)
    return jnp.asarray(np.stack([first.ravel(), second.ravel()], -1), jnp.float32), (axis[1] - axis[0]) ** 2


@functools.cache
def moments(name):
    """Returns (integral, mean [2], second moments [2, 2]) of the density, by quadrature."""
    prior, params, state = CASES[name]
    z, cell = grid()
    p = np.exp(np.float64(jax.jit(lambda z: prior.distribution(params, state, links()).log_prob(z))(z))) * cell
    points = np.asarray(z, np.float64)
    return p.sum(), p @ points, np.einsum("n,ni,nj->ij", p, points, points)


@every_prior
def test_the_density_integrates_to_one(name):
    # The normalizer of the resampled prior is a Monte Carlo mean over 131,072 draws.
    np.testing.assert_allclose(moments(name)[0], 1.0, atol=3e-3 if name == "resampled" else 1e-4)


@every_prior
def test_samples_have_the_moments_of_the_density(name):
    """Mean and second moments of 40,000 draws are those of exp(log_prob) by quadrature, within 5 standard errors."""
    prior, params, state = CASES[name]
    n = 40_000
    z = np.float64(jax.jit(lambda key: prior.sample(params, state, key, n, links()))(jax.random.key(3)))
    total, mean, second = moments(name)
    products = z[:, :, None] * z[:, None]
    slack = 0.005 if name == "resampled" else 0.0
    for got, want in ((z, mean / total), (products, second / total)):
        error = np.abs(got.mean(0) - want)
        assert np.all(error < 5 * got.std(0) / np.sqrt(n) + slack), (got.mean(0), want)


@every_prior
def test_temperature_zero_leaves_no_noise_inside_a_component(name):
    prior, params, state = CASES[name]
    if name == "resampled":
        z = prior.sample(params, state, KEY, 50, links(), 0.0)
        np.testing.assert_array_equal(z, 0.0)
        return
    z = np.asarray(prior.sample(params, state, KEY, 200, links(), 0.0))
    centers = {"learned-normal": 1, "mog": 4, "vamp": 6, "exemplar": 5}[name]
    assert len(np.unique(z.round(5), axis=0)) == centers


@every_prior
@pytest.mark.parametrize("far", [1e4, -1e4, 0.0])
def test_finite_far_away(name, far):
    prior, params, state = CASES[name]

    def value(params, z):
        return jnp.sum(prior.distribution(params, state, links()).log_prob(z))

    out, grads = jax.jit(jax.value_and_grad(value, (0, 1)))(params, jnp.full((3, D), far))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((out, grads)))


def test_mixture_is_that_of_scipy():
    weights, mean, log_var = np.log([0.2, 0.5, 0.3]), np.random.default_rng(0).normal(size=(3, 4)), np.zeros((3, 4))
    log_var[1], log_var[2] = -6.0, 2.0  # narrow and wide
    z = np.random.default_rng(1).normal(size=(7, 4)) * 2
    parts = [
        w + stats.multivariate_normal.logpdf(z, m, np.diag(np.exp(v)))
        for w, m, v in zip(weights, mean, log_var, strict=True)
    ]
    p = GaussianMixture(*(jnp.asarray(a, jnp.float32) for a in (weights, mean, log_var)))
    np.testing.assert_allclose(p.log_prob(jnp.asarray(z, jnp.float32)), logsumexp(parts, axis=0), rtol=1e-5)


def test_one_component_is_a_gaussian():
    prior = MixtureOfGaussians(components=1)
    params, state = randomized(prior, dim=5)
    z = jax.random.normal(KEY, (6, 5))
    want = DiagGaussian(params["mean"], 2 * params["log_std"]).log_prob(z)
    np.testing.assert_allclose(prior.distribution(params, state, links(dim=5)).log_prob(z), want, rtol=1e-5)
    vamp = Vamp(pseudo_inputs=1)
    params, state = randomized(vamp)
    z = jax.random.normal(KEY, (6, D))
    want = infer(vamp.images(params)).log_prob(z)
    np.testing.assert_allclose(vamp.distribution(params, state, links()).log_prob(z), want, rtol=1e-5)


def test_narrow_mixtures_keep_float32_precision():
    """Components of deviation e^-6 a long way from 0: an expanded square would lose every digit."""
    rng = np.random.default_rng(0)
    mean, log_var = rng.normal(size=(20, 8)) * 3, np.full((20, 8), -12.0)
    z = mean[rng.integers(20, size=50)] + np.exp(-6.0) * rng.normal(size=(50, 8))
    z, mean = np.float32(z), np.float32(mean)
    want = logsumexp([stats.norm.logpdf(np.float64(z), m, np.exp(-6.0)).sum(-1) for m in np.float64(mean)], axis=0)
    p = GaussianMixture(jnp.full(20, -np.log(20.0)), jnp.asarray(mean), jnp.asarray(log_var, jnp.float32))
    np.testing.assert_allclose(p.log_prob(jnp.asarray(z)), want - np.log(20), rtol=1e-4)


def test_the_learned_normal_reaches_the_aggregate_posterior():
    """The rate's minimum over m and s is at the moments of the aggregate posterior; there its gradient is 0."""
    q = infer(some_images(40))
    mean = jnp.mean(q.mean, 0)
    variance = jnp.mean(jnp.exp(q.log_var) + jnp.square(q.mean - mean[None]), 0)
    prior = LearnedNormal()

    def rate(params):
        from vae_jax.distributions import closed_kl

        return jnp.mean(jnp.sum(closed_kl(q, prior.distribution(params, {}, links())), -1))

    best = {"mean": mean, "log_std": 0.5 * jnp.log(variance)}
    for grad in jax.tree.leaves(jax.grad(rate)(best)):
        np.testing.assert_allclose(grad, 0.0, atol=1e-6)
    assert rate(best) < rate(prior.init(KEY, links()))


def test_the_vamp_prior_with_data_for_pseudo_inputs_is_the_aggregate_posterior():
    images = some_images(9)
    prior = Vamp(pseudo_inputs=9)
    params = {"logits": jnp.log(images) - jnp.log1p(-images)}
    q = infer(images)
    z = jax.random.normal(KEY, (5, D))
    std = np.exp(0.5 * np.float64(q.log_var))
    by_hand = [stats.norm.logpdf(np.float64(z), np.float64(m), s).sum(-1) for m, s in zip(q.mean, std, strict=True)]
    want = logsumexp(by_hand, axis=0) - np.log(9)
    p = prior.distribution(params, {}, links())
    assert isinstance(p, GaussianMixture)
    np.testing.assert_allclose(p.log_prob(z), want, rtol=1e-4)
    # The general form, which asks nothing of q but its density, is the same function.
    general = AggregatePosterior(q, 9)
    np.testing.assert_allclose(general.log_prob(z), want, rtol=1e-4)
    np.testing.assert_allclose(general.log_components(z), p.log_components(z) + np.log(9), rtol=1e-4, atol=1e-5)
    # The number of pseudo-inputs is a shape: it stays a number where gradients are stopped in a traced program.
    stopped = jax.jit(lambda q, z: jax.lax.stop_gradient(AggregatePosterior(q, 9)).log_prob(z))
    np.testing.assert_allclose(stopped(q, z), want, rtol=1e-4)


def test_pseudo_inputs_stay_inside_with_live_gradients():
    prior = Vamp(pseudo_inputs=5, level=0.1)
    params = prior.init(KEY, links())
    assert abs(float(jnp.mean(prior.images(params))) - 0.1) < 0.1
    far = {"logits": params["logits"] + jnp.asarray([8.0, -8.0, 3.0, 0.0, -3.0])[:, None, None, None]}
    images = prior.images(far)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    # Of the images: a component far from every z has a responsibility, and so a gradient, of 0 in float32.
    grad = jax.grad(lambda p: jnp.sum(prior.images(p)))(far)["logits"]
    assert np.all(grad > 0)


def test_exemplars_are_the_last_images_in_a_ring():
    prior = Exemplar(exemplars=5)
    params, state = prior.init(KEY, links()), prior.init_state(links())
    seen = []
    for step in range(4):
        batch = some_images(3, seed=step)
        p, new = prior.fit(params, state, KEY, links(batch), context(3))
        # Scored before the batch went in: no image of the batch is a component.
        support.assert_trees_equal(p, prior.distribution(params, state, links()))
        live = np.asarray(p.mean)[np.exp(np.asarray(p.log_weights)) > 0]
        own = np.asarray(infer(batch).mean)
        assert np.abs(live[:, None] - own[None]).sum(-1).min() > 1e-4
        seen += list(np.asarray(batch))
        state = new
        kept = min(len(seen), 5)
        assert state["count"] == kept
        held = {x.tobytes() for x in np.asarray(state["images"])[:kept]}
        assert held == {x.tobytes() for x in seen[-kept:]}
    # A batch larger than the buffer leaves its last images.
    big = some_images(8, seed=9)
    _, state = prior.fit(params, state, KEY, links(big), context(8))
    assert {x.tobytes() for x in np.asarray(state["images"])} == {x.tobytes() for x in np.asarray(big[3:])}


def test_exemplar_density_is_the_mixture_by_hand():
    prior, images = Exemplar(exemplars=9, std=0.6), some_images(5)
    params = prior.init(KEY, links())
    state = filled(prior, images)
    z = jax.random.normal(KEY, (6, D))
    by_hand = [stats.norm.logpdf(np.float64(z), np.float64(m), 0.6).sum(-1) for m in infer(images).mean]
    p = prior.distribution(params, state, links())
    np.testing.assert_allclose(p.log_prob(z), logsumexp(by_hand, axis=0) - np.log(5), rtol=1e-4)
    empty = prior.distribution(params, prior.init_state(links()), links())
    np.testing.assert_allclose(empty.log_prob(z), stats.norm.logpdf(np.float64(z), 0, 0.6).sum(-1), rtol=1e-5)
    drawn = prior.sample(params, state, KEY, 4000, links(), 0.0)
    centers, counts = np.unique(np.asarray(drawn).round(4), axis=0, return_counts=True)
    assert len(centers) == 5
    assert stats.chisquare(counts).pvalue > 1e-4


def line(reach=10.0, steps=20_001):
    z = np.linspace(-reach, reach, steps)
    return jnp.asarray(z[:, None], jnp.float32), z[1] - z[0]


def filter_of(hidden=(16,), dim=1, scale=3.0):
    """Returns an acceptance net that rejects a good part of the line."""
    prior = Resampled(hidden=hidden)
    net = randomized(prior, dim=dim, scale=scale)[0]["net"]
    logits = dense.apply(net, jax.random.normal(KEY, (1000, dim)))
    last = net[f"layer{len(hidden)}"]
    return net | {f"layer{len(hidden)}": last | {"b": last["b"] - jnp.mean(logits) - 2.0}}


@pytest.mark.parametrize("truncation", [2, 5, 100])
def test_lars_with_its_exact_normalizer_integrates_to_one(truncation):
    net, (z, cell) = filter_of(), line()
    accept = expit(np.float64(dense.apply(net, z)[:, 0]))
    total = np.sum(accept * stats.norm.pdf(np.asarray(z)[:, 0])) * cell
    p = ResampledNormal(net, jnp.asarray(total, jnp.float32), truncation)
    density = np.exp(np.float64(p.log_prob(z)))
    np.testing.assert_allclose(density.sum() * cell, 1.0, rtol=1e-4)
    # The formula of the truncated density, tried out by summing over the tries.
    tries = sum(accept * (1 - total) ** t for t in range(truncation - 1)) + (1 - total) ** (truncation - 1)
    np.testing.assert_allclose(density, stats.norm.pdf(np.asarray(z, np.float64)[:, 0]) * tries, rtol=2e-3, atol=1e-12)


@pytest.mark.parametrize("truncation", [2, 4])
def test_lars_samples_follow_the_truncated_density(truncation):
    """Kolmogorov-Smirnov against the cumulative quadrature, in one dimension, and T matters."""
    prior = Resampled(truncation=truncation, hidden=(16,))
    params, (z, cell) = {"net": filter_of()}, line()
    accept = expit(np.float64(dense.apply(params["net"], z)[:, 0]))
    base = stats.norm.pdf(np.asarray(z, np.float64)[:, 0])
    total = np.sum(accept * base) * cell
    axis = np.asarray(z, np.float64)[:, 0]

    def cumulative(t):
        last = (1 - total) ** (t - 1)
        density = base * (accept * (1 - last) / total + last)
        return lambda x: np.interp(x, axis, np.cumsum(density) * cell)

    drawn = np.asarray(prior.sample(params, {}, jax.random.key(8), 20_000, links(dim=1)))[:, 0]
    assert stats.kstest(drawn, cumulative(truncation)).pvalue > 1e-3
    assert stats.kstest(drawn, cumulative(6 if truncation == 2 else 2)).pvalue < 1e-6


@pytest.mark.parametrize("dim", [1, 2])
def test_the_normalizer_and_its_gradient_are_those_of_quadrature(dim):
    prior = Resampled(hidden=(16,), samples=1 << 16, evaluation_samples=1 << 16)
    params = {"net": filter_of(dim=dim)}
    z, cell = line() if dim == 1 else grid(6.0, 241)
    weight = jnp.asarray(np.exp(stats.norm.logpdf(np.float64(z)).sum(-1)) * cell, jnp.float32)

    def exact(params):
        return jnp.sum(weight * jax.nn.sigmoid(dense.apply(params["net"], z)[:, 0]))

    want, slope = jax.value_and_grad(exact)(params)
    assert 0.05 < want < 0.95
    np.testing.assert_allclose(prior.distribution(params, {}, links(dim=dim)).normalizer, want, atol=6 * 0.5 / 256)

    def fitted(params):
        return prior.fit(params, prior.init_state(links()), KEY, links(dim=dim), context(1))[0].normalizer

    got, estimate = jax.value_and_grad(fitted)(params)
    np.testing.assert_allclose(got, want, atol=6 * 0.5 / 256)
    largest = max(float(jnp.max(jnp.abs(s))) for s in jax.tree.leaves(slope))
    for g, s in zip(jax.tree.leaves(estimate), jax.tree.leaves(slope), strict=True):
        np.testing.assert_allclose(g, s, atol=0.05 * largest)


def test_the_moving_average_of_the_normalizer():
    """At fixed weights it is the weighted mean of all estimates, and its error falls below that of one of them."""
    prior = Resampled(hidden=(8,), samples=64, decay=0.95)
    params = {"net": filter_of((8,))}
    exact = prior.estimate(params, jax.random.key(99), 1 << 18, 1)
    state, singles, averages = prior.init_state(links()), [], []
    fit = jax.jit(lambda state, key: prior.fit(params, state, key, links(dim=1), context(1)))
    for i in range(60):
        p, state = fit(state, jax.random.fold_in(KEY, i))
        averages.append(float(p.normalizer))
        singles.append(float(prior.estimate(params, jax.random.fold_in(KEY, i), 64, 1)))
    weights = 0.95 ** np.arange(59, -1, -1.0)
    np.testing.assert_allclose(averages[-1], np.average(singles, weights=weights), rtol=1e-4)
    np.testing.assert_allclose(averages[0], singles[0], rtol=1e-6)
    assert abs(averages[-1] - exact) < 0.5 * np.std(singles)


def test_lars_that_accepts_everything_is_the_proposal():
    prior = Resampled(hidden=())
    params = jax.tree.map(jnp.zeros_like, prior.init(KEY, links()))
    z = 2 * jax.random.normal(KEY, (5, D))
    want = stats.norm.logpdf(np.float64(z)).sum(-1)
    np.testing.assert_allclose(prior.distribution(params, {}, links()).log_prob(z), want, rtol=1e-5)


def test_the_conditional_normal_is_its_net():
    cond = jax.nn.one_hot(jnp.arange(3), 3)
    prior = ConditionalNormal(hidden=(8,))
    params, state = randomized(prior, cond=cond)
    p = prior.distribution(params, state, links(cond=cond))
    mean, raw = np.split(np.asarray(dense.apply(params["net"], cond)), 2, axis=-1)
    np.testing.assert_allclose(p.mean, mean)
    np.testing.assert_allclose(p.log_var, 20 * np.tanh(raw / 10), rtol=1e-5)
    z = np.float64(prior.sample(params, state, KEY, 30_000, links(cond=cond)))
    for c in range(3):
        own = z[c::3]
        std = np.exp(0.5 * np.asarray(p.log_var[c]))
        assert np.all(np.abs(own.mean(0) - np.asarray(p.mean[c])) < 5 * std / 100)
        np.testing.assert_allclose(own.std(0), std, rtol=0.05)


def test_a_conditional_model_samples_each_class_from_its_own_prior():
    config = VAE(D, MLP((8,)), prior=ConditionalNormal((8,)), condition=Condition("label"))
    model = config.build(support.spec(SHAPE))
    batch = support.images(6, SHAPE)
    params, state = model.init(KEY, batch)
    assert params["vae"]["prior"]["net"]
    moved = jax.tree.map(lambda x: x + 0.3, params)
    same, other = (model.terms(p, state, KEY, batch, support.context(model, 6, train=False)) for p in (params, moved))
    assert np.all(same["rate"] != other["rate"])
    assert model.sample(params, state, KEY, 7).mean().shape == (7, *SHAPE)


def optimizer(model, batch):
    shapes = jax.eval_shape(model.init, KEY, batch)[0]
    return support.optimizer(shapes, train.Optimizer("sgd", lr=1e-2))


@pytest.mark.parametrize(("name", "layout"), [("exemplar", "mesh"), ("exemplar", "pmap"), ("resampled", "mesh")])
def test_eight_devices_equal_one(name, layout):
    """Three steps over 8 devices: parameters, the running state of the prior, and every metric."""
    made = {
        "exemplar": Exemplar(exemplars=24),
        "resampled": Resampled(hidden=(8,), samples=64),
    }
    model = VAE(D, MLP((8,)), prior=made[name]).build(spec.images(*SHAPE))
    batches = [{"x": some_images(16, seed=i)} for i in range(3)]
    tx = optimizer(model, batches[0])

    def over_mesh(config):
        mesh = train.make_mesh(config)
        state = train.init_state(model, tx, jax.random.key(1), batches[0], mesh=mesh)
        step = train.jit_step(train.make_train_step(model, tx), state, mesh)
        return follow(step, state, lambda b: jax.device_put(b, batch_sharding(mesh)))

    def follow(step, state, placed):
        history = []
        for batch in batches:
            state, metrics = step(state, placed(batch))
            history.append(metrics)
        return jax.device_get(state), jax.device_get(history)

    want = over_mesh(MeshConfig(data=1))
    if layout == "mesh":
        got = over_mesh(MeshConfig(data=4, fsdp=2))
    else:
        start = jax.jit(train.make_init(model, tx))(jax.random.key(1), batches[0])
        step = train.pmap_step(model, tx)
        got = follow(step, start, lambda b: {"x": b["x"].reshape(8, 2, *SHAPE)})
    support.assert_trees_close(got, want, rtol=2e-4, atol=1e-5)
    if name == "exemplar":
        assert want[0].model_state["prior"]["count"] == 24
        held = np.sort(np.asarray(got[0].model_state["prior"]["images"]).ravel())
        last = np.concatenate([np.asarray(b["x"]) for b in batches])[-24:]
        np.testing.assert_allclose(held, np.sort(last.ravel()), rtol=1e-6)


def test_the_importance_weighted_bound_uses_the_rich_prior():
    """IW-1000 of a model with a mixture prior is log p(x) of a quadrature, within its own noise."""
    prior = MixtureOfGaussians(components=3)
    model = VAE(D, MLP((8,)), prior=prior).build(spec.images(*SHAPE))
    batch = {"x": jnp.round(some_images(4))}
    params, state = model.init(jax.random.key(4), batch)
    params["vae"]["encoder"] = jax.tree.map(jnp.zeros_like, params["vae"]["encoder"])  # q = N(0, I): wide enough
    z, cell = grid(6.0, 81)
    p = prior.distribution(params["vae"]["prior"], {}, links())
    log_x = jax.vmap(lambda x: model.decode(params, state, z).log_prob(jnp.broadcast_to(x[None], (len(z), *SHAPE))))(
        batch["x"]
    )
    exact = jax.nn.logsumexp(log_x + p.log_prob(z)[None], axis=1) + np.log(cell)
    ctx = support.context(model, 4, train=False)
    bound = model.density.bound(params, state, prng.site_key(KEY, "iw"), batch, ctx, 1000)
    np.testing.assert_allclose(bound, exact, atol=0.1)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (MixtureOfGaussians(components=0), "model.prior.components: 0 is out of range; it must be 1 or more"),
        (MixtureOfGaussians(spread=-1.0), "model.prior.spread: -1.0 is out of range; it must be positive"),
        (Vamp(pseudo_inputs=0), "model.prior.pseudo_inputs: 0 is out of range"),
        (Vamp(level=1.0), "model.prior.level: 1.0 is out of range"),
        (Exemplar(exemplars=0), "model.prior.exemplars: 0 is out of range"),
        (Exemplar(std=0.0), "model.prior.std: 0.0 is out of range"),
        (Resampled(truncation=1), "model.prior.truncation: 1 is out of range; it must be 2 or more"),
        (Resampled(decay=1.0), "model.prior.decay: 1.0 is out of range"),
        (Resampled(hidden=(0,)), "model.prior.hidden: 0 is out of range"),
        (ConditionalNormal(), "does not provide; set --model.condition.on label"),
    ],
)
def test_bad_options_are_one_line(prior, message):
    with pytest.raises(InputError) as caught:
        configs.check(Config(model=VAE(prior=prior)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_prior_cannot_do_is_said():
    with pytest.raises(InputError, match=r"accumulate: the exemplar prior keeps examples.*set --accumulate 1"):
        configs.check(Config(model=VAE(prior=Exemplar()), accumulate=4))
    for prior in (Vamp(), Exemplar()):
        with pytest.raises(InputError, match=r"needs a model without a condition.*set --model.condition.on none"):
            configs.check(Config(model=VAE(prior=prior, condition=Condition("label"))))


def test_every_prior_here_is_registered():
    assert {"learned-normal", "mog", "vamp", "exemplar", "resampled", "conditional-normal"} <= set(PRIORS)
