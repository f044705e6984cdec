"""Flows against their own Jacobians, their inverses and quadrature; priors that are flows; the committed-rate prior."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from vae_jax import prng
from vae_jax.distributions import ar1, closed_kl, dense, flows, made
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.errors import InputError
from vae_jax.models import VAE
from vae_jax.posteriors import POSTERIORS
from vae_jax.priors import PRIORS, Links
from vae_jax.runs.config import Config, check

B = 5
POSTERIOR_NAMES = ("planar", "radial", "iaf", "coupling")
PRIOR_CASES = {
    "realnvp": PRIORS["flow"](layers=2, hidden=(16,)),
    "maf": PRIORS["flow"]("maf", layers=2, hidden=(16,)),
    "autoregressive": PRIORS["autoregressive"](hidden=(16, 16)),
}


def small(name):
    """Returns a flow posterior config with narrow nets."""
    config = POSTERIORS[name]()
    narrow = {"layers": 2, "hidden": (16,), "context": 4}
    return dataclasses.replace(config, **{k: v for k, v in narrow.items() if hasattr(config, k)})


def random_params(tree, seed=3, scale=1.0):
    """Returns parameters of a curved map: what training may reach, far from the identity of the start."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), max(len(leaves), 1))
    new = [scale * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(structure, new)


def posterior(name, dim, n=B, scale=1.0, seed=0):
    config = small(name)
    params = random_params(config.init(jax.random.key(1), dim), scale=0.35)
    out = scale * jax.random.normal(jax.random.key(seed), (n, config.outputs(dim)))
    return config.build(params, out, jnp.zeros((), jnp.int32), True)


def prior(name, dim, scale=0.2):
    config = PRIOR_CASES[name]
    links = Links(dim, (4, 4, 1), lambda x: None)
    params = random_params(config.init(jax.random.key(1), links), scale=scale)
    return config, params, links


def assert_exact(flow, z):
    """Asserts the log-determinants, the inverse, and the gradient of log p through the inverse, in float64."""

    @jax.jit
    def whole(flow, z):
        jacobian = jax.jacfwd(lambda z: flow.forward(z)[0])(z)
        own = jnp.stack([jacobian[i, :, i] for i in range(B)])
        across = jnp.max(jnp.abs(jacobian.at[jnp.arange(B), :, jnp.arange(B)].set(0.0)))
        (out, log_det), slope = flow.forward(z), jax.grad(lambda z: jnp.sum(flow.forward(z)[1]))(z)
        # What `stl` needs: d/dz' log p(z') by the inverse is J^-T d/dz [log base(z) - log|det J|].
        score = jnp.linalg.solve(own.mT, (jax.grad(lambda z: jnp.sum(flow.base.log_prob(z)))(z) - slope)[..., None])
        by_inverse = jax.grad(lambda out: jnp.sum(flow.log_prob(out)))(out)
        return out, log_det, jnp.linalg.slogdet(own)[1], across, *flow.inverse(out), score[..., 0], by_inverse

    with jax.enable_x64(True):
        flow, z = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (flow, z))
        found = [np.asarray(x) for x in whole(flow, z)]
    out, log_det, want, across, back, inverse_log_det, score, by_inverse = found
    z = np.asarray(z)
    np.testing.assert_allclose(log_det, want, rtol=2e-6, atol=2e-6)  # planar parameters were made in float32
    np.testing.assert_allclose(back, z, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(by_inverse, score, rtol=1e-5, atol=1e-5)
    assert across == 0.0, "the examples see each other"
    assert np.ptp(log_det) > 0.02, "a map of constant volume would not test this"
    assert np.max(np.abs(out - z)) > 0.3, "close to the identity"


@pytest.mark.parametrize(("name", "dim"), [*((n, 4) for n in POSTERIOR_NAMES), ("iaf", 1)])
def test_posterior_map_is_exact(name, dim):
    assert_exact(posterior(name, dim), jax.random.normal(jax.random.key(9), (B, dim)))


@pytest.mark.parametrize("name", PRIOR_CASES)
def test_prior_map_is_exact(name):
    config, params, links = prior(name, 4)
    assert_exact(config.distribution(params, {}, links), jax.random.normal(jax.random.key(9), (B, 4)))


@pytest.mark.parametrize("name", POSTERIOR_NAMES)
def test_sample_and_log_prob_agree_with_log_prob(name):
    q = posterior(name, 4)
    keys = prng.example_keys(jax.random.key(2), jnp.arange(B))

    @jax.jit
    def draw(q):
        z, log_q = q.sample_and_log_prob(keys)
        return z, log_q, q.sample(keys), q.log_prob(z), q.mode(), q.forward(q.base.mean)[0], q.variance()

    z, log_q, again, by_inverse, mode, mapped, variance = draw(q)
    np.testing.assert_array_equal(z, again)
    np.testing.assert_allclose(log_q, by_inverse, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(mode, mapped)
    np.testing.assert_allclose(variance, jnp.exp(q.base.log_var), rtol=1e-6)


def integral(log_prob, half=14.0, n=281):
    """Returns the integral of exp(log_prob) over a square, by the midpoint rule."""
    grid = np.linspace(-half, half, n)
    z = jnp.asarray(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2), jnp.float32)
    return np.exp(np.asarray(jax.jit(log_prob)(z), np.float64)).sum() * (grid[1] - grid[0]) ** 2


@pytest.mark.parametrize("name", POSTERIOR_NAMES)
def test_posterior_integrates_to_one(name):
    config = small(name)
    params = random_params(config.init(jax.random.key(1), 2), scale=0.35)
    out = 0.5 * jax.random.normal(jax.random.key(0), (1, config.outputs(2)))

    def log_prob(z):
        same = jnp.broadcast_to(out, (len(z), out.shape[1]))
        return config.build(params, same, jnp.zeros((), jnp.int32), True).log_prob(z)

    np.testing.assert_allclose(integral(log_prob), 1.0, atol=2e-3)


@pytest.mark.parametrize("name", PRIOR_CASES)
def test_prior_integrates_to_one(name):
    config, params, links = prior(name, 2)
    np.testing.assert_allclose(integral(config.distribution(params, {}, links).log_prob), 1.0, atol=2e-3)


@pytest.mark.parametrize("name", PRIOR_CASES)
def test_prior_samples_have_the_density(name):
    """E_p[r(z) / p(z)] = 1 for draws of p and any normalized r: here a Gaussian inside the bulk of p."""
    config, params, links = prior(name, 2)
    p = config.distribution(params, {}, links)

    @jax.jit
    def draw(key):
        z = config.sample(params, {}, key, 20_000, links)
        return z, p.log_prob(z), config.sample(params, {}, key, 3, links, temperature=0.0)

    z, log_p, cold = draw(jax.random.key(5))
    reference = scipy.stats.norm.logpdf(z, np.asarray(z).mean(0), 0.5 * np.asarray(z).std(0)).sum(-1)
    ratio = np.exp(reference - np.asarray(log_p, np.float64))
    error = ratio.std() / np.sqrt(len(ratio))
    assert abs(ratio.mean() - 1.0) < 4 * error < 0.2
    # Another temperature is the same map of scaled noise.
    np.testing.assert_allclose(cold, jnp.broadcast_to(p.forward(jnp.zeros((1, 2)))[0], (3, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dim", "context", "hidden"), [(5, 0, (16,)), (4, 3, (7, 9)), (5, 0, (3,))])
def test_made_is_strictly_triangular(dim, context, hidden):
    """Outputs see earlier inputs only, all of them where the net is wide enough, and always the context."""

    @jax.jit
    def jacobians(key):
        params = random_params(made.init(key, dim, context, hidden))
        z, h = jnp.linspace(-1.0, 1.0, dim), jnp.linspace(0.5, 1.5, context)

        def out(z, h, reverse):
            return jnp.stack(made.apply(params, z[None], h[None] if context else None, reverse))[:, 0]

        return [jax.jacfwd(lambda z, h, r=reverse: out(z, h, r), (0, 1))(z, h) for reverse in (False, True)]

    before = np.tril(np.ones((dim, dim), bool), -1)
    for (by_z, by_h), want in zip(jacobians(jax.random.key(0)), (before, before.T), strict=True):
        for seen in np.asarray(by_z) != 0:
            assert not np.any(seen & ~want)
            if min(hidden) >= dim:
                np.testing.assert_array_equal(seen, want)
        assert np.all(np.asarray(by_h) != 0)


def test_made_of_eleven_layers():
    """A dict sorted by name has layer10 before layer2."""

    def run(key):
        params = jax.tree.map(jnp.tanh, made.init(key, 3, 0, tuple(range(5, 15))))
        return made.apply(params, jnp.ones((2, 3)), None, False)

    assert [out.shape for out in jax.eval_shape(run, jax.random.key(0))] == [(2, 3), (2, 3)]


def test_dense_by_hand():
    params = random_params(dense.init(jax.random.key(0), (3, 4, 2)))
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    h = x @ params["layer0"]["w"] + np.asarray(params["layer0"]["b"])[None]
    want = (h / (1 + np.exp(-h))) @ params["layer1"]["w"] + np.asarray(params["layer1"]["b"])[None]
    np.testing.assert_allclose(dense.apply(params, jnp.asarray(x)), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dense.apply(params, jnp.asarray(x[0])), want[0], rtol=1e-4, atol=1e-5)
    wide = dense.init(jax.random.key(0), (400, 300))
    np.testing.assert_allclose(jnp.std(wide["layer0"]["w"]), 0.05, rtol=0.02)


def test_planar_by_hand():
    """z + u tanh(w.z + b) with w.u = m(w.u) of the free u, and invertible for the worst of free numbers."""
    w, u, b = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(B, 1, 4), (B, 1, 4), (B, 1)]))
    layer = flows.planar(w, u, b)
    np.testing.assert_allclose(layer.along, jnp.sum(layer.w * layer.u, -1), rtol=1e-4, atol=1e-5)
    # Only the component along w moved.
    moved = np.asarray(layer.u - 10 * jnp.tanh(u / 10))
    across = moved - np.sum(moved * w, -1, keepdims=True) / np.sum(w * w, -1, keepdims=True) * w
    np.testing.assert_allclose(across, 0, atol=1e-5)
    z = jax.random.normal(jax.random.key(7), (B, 4))
    bend = np.tanh(np.sum(w[:, 0] * z, -1) + b[:, 0])
    np.testing.assert_allclose(flows.planar_forward(layer, z)[0], z + layer.u[:, 0] * bend[:, None], rtol=1e-5)
    for size in (0.0, 1e-8, 1e-4, 1e-2, 1.0, 1e4):
        assert np.all(flows.planar(size * w, -100.0 * w, b).along > -1.0)
    zero = flows.planar(0 * w, 0 * u, 0 * b)
    np.testing.assert_array_equal(flows.planar_forward(zero, z)[0], z)


def test_radial_by_hand():
    center, alpha, beta = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate([(B, 1, 4), (B, 1), (B, 1)]))
    layer = flows.radial(center, alpha, beta)
    z = jax.random.normal(jax.random.key(7), (B, 4))
    a, s = (np.asarray(x[:, 0]) for x in (layer.alpha, layer.inner))
    r = np.linalg.norm(np.asarray(z - center[:, 0]), axis=-1)
    want = z + ((s - a) / (a + r))[:, None] * (z - center[:, 0])
    np.testing.assert_allclose(flows.radial_forward(layer, z)[0], want, rtol=1e-5, atol=1e-6)
    # Equal free numbers: beta = 0, the identity.
    same = flows.radial(center, alpha, alpha)
    out, log_det = flows.radial_forward(same, z)
    np.testing.assert_allclose(out, z, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(log_det, 0, atol=1e-6)


@pytest.mark.parametrize("name", ["coupling", "realnvp", "maf", "autoregressive", "iaf"])
def test_trained_maps_start_near_the_identity(name):
    """At initialization z moves little; IAF gates start at sigmoid(2), a factor of .88 a layer."""
    z = jax.random.normal(jax.random.key(0), (B, 4))
    if name in POSTERIORS and name != "autoregressive":
        config = small(name)
        out = jax.random.normal(jax.random.key(1), (B, config.outputs(4)))
        q = config.build(config.init(jax.random.key(2), 4), out, jnp.zeros((), jnp.int32), True)
    else:
        config = PRIOR_CASES[name]
        links = Links(4, (4, 4, 1), lambda x: None)
        q = config.distribution(config.init(jax.random.key(2), links), {}, links)
    factor = 0.8808**2 if name == "iaf" else 1.0
    np.testing.assert_allclose(q.forward(z)[0], factor * z, atol=0.75)
    assert np.mean(np.abs(q.forward(z)[0] - factor * z)) < 0.25


@pytest.mark.parametrize("name", POSTERIOR_NAMES)
def test_finite_at_extreme_encoder_outputs(name):
    """Samples, densities and all gradients, with encoder outputs +-1e4 and 0."""
    config = small(name)
    params = config.init(jax.random.key(1), 3)
    keys = prng.example_keys(jax.random.key(2), jnp.arange(B))
    signs = jnp.sign(jax.random.normal(jax.random.key(4), (B, config.outputs(3))))

    def value(params, out):
        q = config.build(params, out, jnp.zeros((), jnp.int32), True)
        z, log_q = q.sample_and_log_prob(keys)
        return jnp.sum(log_q + jnp.sum(jnp.tanh(z), -1)), (z, q.log_prob(z), q.mode(), q.variance())

    run = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))
    for out in (0.0 * signs, signs, 1e4 * signs, -1e4 * signs, 1e4 * jnp.abs(signs), -1e4 * jnp.abs(signs)):
        for leaf in jax.tree.leaves(run(params, out)):
            assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("name", PRIOR_CASES)
def test_prior_finite_far_out(name):
    config, params, links = prior(name, 3, scale=0.3)
    run = jax.jit(jax.value_and_grad(lambda p, z: jnp.sum(config.distribution(p, {}, links).log_prob(z)), (0, 1)))
    for z in (1e4 * jnp.ones((B, 3)), -1e4 * jnp.ones((B, 3)), jnp.zeros((B, 3))):
        for leaf in jax.tree.leaves(run(params, z)):
            assert np.all(np.isfinite(leaf))


def test_radial_gradient_at_the_center():
    layer = flows.radial(jnp.zeros((1, 1, 3)), jnp.zeros((1, 1)), jnp.ones((1, 1)))
    for f in (flows.radial_forward, flows.radial_inverse):
        grads = jax.grad(lambda z, f=f: jnp.sum(f(layer, z)[0]) + jnp.sum(f(layer, z)[1]))(jnp.zeros((1, 3)))
        assert np.all(np.isfinite(grads))


def ar1_precision(noise, dim):
    """Returns the inverse of the covariance alpha^|i - j|, built without the formula of the library."""
    alpha = np.sqrt(1 - noise)
    return np.linalg.inv(alpha ** np.abs(np.subtract.outer(np.arange(dim), np.arange(dim))))


@pytest.mark.parametrize(("noise", "dim"), [(1.0, 3), (0.75, 1), (0.5, 2), (0.3, 6), (0.02, 4)])
def test_ar1_density_and_kl(noise, dim):
    """Against scipy's Gaussian with covariance alpha^|i - j|, and the KL of two full Gaussians."""
    rng = np.random.default_rng(0)
    precision = ar1_precision(noise, dim)
    p = ar1.AR1(jnp.asarray(noise, jnp.float32))
    z = rng.normal(size=(7, dim))
    want = scipy.stats.multivariate_normal(np.zeros(dim), np.linalg.inv(precision)).logpdf(z)
    np.testing.assert_allclose(p.log_prob(jnp.asarray(z, jnp.float32)), want, rtol=1e-4, atol=1e-4)
    mean, log_var = rng.normal(size=(2, 7, dim))
    got = closed_kl(DiagGaussian(*(jnp.asarray(x, jnp.float32) for x in (mean, log_var))), p)
    assert got is not None
    assert got.shape == (7, 1)
    trace = np.sum(np.diag(precision)[None] * np.exp(log_var), -1)
    square = np.einsum("bi,ij,bj->b", mean, precision, mean)
    full = 0.5 * (trace + square - dim - np.linalg.slogdet(precision)[1] - log_var.sum(-1))
    np.testing.assert_allclose(got[:, 0], full, rtol=1e-4)


@pytest.mark.parametrize(("delta", "dim"), [(0.3, 2), (2.0, 10)])
def test_committed_rate(delta, dim):
    """No diagonal q has a smaller KL than delta; a numerical search finds exactly it, at the stated minimizer."""
    noise = ar1.noise_of_rate(delta, dim)
    np.testing.assert_allclose(ar1.least_rate(noise, dim), delta, rtol=1e-9)
    p = PRIORS["ar1"](delta=delta).distribution({}, {}, Links(dim, (4, 4, 1), lambda x: None))
    keys = jax.random.split(jax.random.key(0), 2)
    mean, log_var = (jax.random.normal(k, (500, dim)) * 0.3 * jnp.arange(500)[:, None] / 500 for k in keys)
    precision = np.diag(ar1_precision(noise, dim))
    best = -np.log(precision)
    # A cloud about the minimizer, from on it to far from it.
    rates = closed_kl(DiagGaussian(mean, log_var + jnp.asarray(best, jnp.float32)[None]), p)
    assert rates is not None
    assert np.min(rates) > delta - 1e-4
    np.testing.assert_allclose(rates[0, 0], delta, rtol=1e-4)

    @jax.jit
    @jax.value_and_grad
    def slope(free):
        return ar1.diagonal_kl(DiagGaussian(*(x[None] for x in jnp.split(free, 2))), p)[0, 0]

    def rate(free):
        return tuple(np.asarray(x, float) for x in slope(jnp.asarray(free, jnp.float32)))

    found = scipy.optimize.minimize(rate, np.random.default_rng(0).normal(size=2 * dim), jac=True, method="L-BFGS-B")
    np.testing.assert_allclose(found.fun, delta, rtol=1e-3)
    np.testing.assert_allclose(found.x[dim:], best, atol=0.05)
    np.testing.assert_allclose(found.x[:dim], 0, atol=0.05)


def test_ar1_samples():
    config = PRIORS["ar1"](delta=3.0)
    links = Links(5, (4, 4, 1), lambda x: None)
    z = np.asarray(config.sample({}, {}, jax.random.key(0), 40_000, links))
    alpha = np.sqrt(1 - ar1.noise_of_rate(3.0, 5))
    want = alpha ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    np.testing.assert_allclose(np.cov(z.T), want, atol=0.03)
    cold = config.sample({}, {}, jax.random.key(0), 40_000, links, temperature=0.5)
    np.testing.assert_allclose(cold, 0.5 * z, rtol=1e-6)
    assert config.unit() == (0.0, 1.0)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (VAE(1, posterior=POSTERIORS["coupling"]()), "too few for the coupling posterior"),
        (VAE(1, prior=PRIORS["flow"]()), r'use 2 or more, or \*\*{"model.prior.family": "maf"}$'),
        (VAE(1, prior=PRIORS["ar1"]()), "too few for the ar1 prior"),
        (VAE(4, prior=PRIORS["ar1"](delta=50.0)), "model.prior.delta: 50 nats"),
        (VAE(4, prior=PRIORS["ar1"](delta=-1.0)), "model.prior.delta: -1.0 is out of range"),
        (VAE(4, prior=PRIORS["flow"](layers=0)), "model.prior.layers: 0 is out of range"),
        (VAE(4, posterior=POSTERIORS["iaf"](layers=0)), "model.posterior.layers: 0 is out of range"),
        (VAE(4, posterior=POSTERIORS["iaf"](context=0)), "model.posterior.context: 0 is out of range"),
        (VAE(4, posterior=POSTERIORS["coupling"](hidden=(0,))), "model.posterior.hidden: 0 is out of range"),
    ],
)
def test_refused_in_words(model, words):
    with pytest.raises(InputError, match=words) as caught:
        check(Config(model=model))
    assert "\n" not in str(caught.value)
    check(Config(model=VAE(1, prior=PRIORS["flow"]("maf"))))
