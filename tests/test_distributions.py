"""Densities, divergences, samples and priors against scipy, closed forms and numbers worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax.distributions import DiagGaussian, closed_kl, kl
from vae_jax.distributions.special import cross_entropy
from vae_jax.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    BernoulliPixels,
    Gaussian,
    GaussianLearned,
    GaussianOptimal,
    GaussianPixels,
    GaussianPixelwise,
)
from vae_jax.priors import Links, Normal


def links(code_dim):
    return Links(code_dim, (1, 1, 1), lambda images: None)


RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def gaussian(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return DiagGaussian(
        jnp.asarray(rng.normal(size=shape), jnp.float32), jnp.asarray(rng.normal(size=shape), jnp.float32)
    )


def test_gaussian_log_prob_is_scipys():
    q, z = gaussian(5, 3), np.random.default_rng(1).normal(size=(5, 3))
    want = stats.norm.logpdf(z, q.mean, np.exp(0.5 * np.asarray(q.log_var, np.float64))).sum(-1)
    np.testing.assert_allclose(q.log_prob(jnp.asarray(z, jnp.float32)), want, rtol=1e-5)


def test_gaussian_sample_has_its_moments():
    q = DiagGaussian(
        jnp.tile(jnp.asarray([[1.0, -2.0]]), (40_000, 1)), jnp.tile(jnp.log(jnp.asarray([[4.0, 0.25]])), (40_000, 1))
    )
    z = np.asarray(q.sample(jax.random.split(KEY, 40_000)))
    np.testing.assert_allclose(z.mean(0), [1, -2], atol=4 * 2 / 200)
    np.testing.assert_allclose(z.var(0), [4, 0.25], rtol=0.04)
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.02


def test_gaussian_sample_is_reparameterized():
    """dz/dmean = 1 and dz/dlog_var = (z - mean) / 2, the pathwise gradient."""
    q, keys = gaussian(4, 3), jax.random.split(KEY, 4)
    z, pull = jax.vjp(lambda q: q.sample(keys), q)
    (grad,) = pull(jnp.ones_like(z))
    np.testing.assert_allclose(grad.mean, 1.0)
    np.testing.assert_allclose(grad.log_var, 0.5 * (z - q.mean), rtol=1e-4, atol=1e-6)


def test_kl_is_the_closed_form_in_float64():
    q, p = gaussian(6, 4, seed=1), gaussian(6, 4, seed=2)
    m, lv, n, lw = (np.asarray(x, np.float64) for x in (*q, *p))
    want = 0.5 * ((np.exp(lv) + (m - n) ** 2) / np.exp(lw) - 1 + lw - lv)
    got = kl(q, p)
    assert got.shape == (6, 4)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)
    assert np.all(np.asarray(got) >= 0)
    np.testing.assert_array_equal(kl(q, q), 0.0)


def test_kl_is_the_mean_log_ratio():
    q, p, n = gaussian(1, 4, seed=3), gaussian(1, 4, seed=4), 100_000
    many = DiagGaussian(*(jnp.repeat(x, n, 0) for x in q))
    z = many.sample(jax.random.split(KEY, n))
    ratio = np.asarray(many.log_prob(z) - DiagGaussian(*(jnp.repeat(x, n, 0) for x in p)).log_prob(z))
    assert abs(ratio.mean() - float(jnp.sum(kl(q, p)))) < 4 * ratio.std() / math.sqrt(n)


@pytest.mark.parametrize(
    ("mean", "log_var", "want"),
    [
        (0.0, 0.0, 0.0),
        (1.0, 0.0, 0.5),
        (0.0, math.log(4.0), 0.5 * (3 - math.log(4.0))),
        (1e4, 0.0, 5e7),
        (0.0, -1e4, 0.5 * (1e4 - 1)),
        (0.0, 80.0, 0.5 * (math.expm1(80.0) - 80.0)),
        # Here r - 1 - ln r in float32 is 0 or rounding; the true value is (log r)^2 / 4.
        (0.0, 1e-3, 0.5 * (math.expm1(1e-3) - 1e-3)),
        (1e-4, 0.0, 5e-9),
    ],
)
def test_kl_to_the_unit_gaussian(mean, log_var, want):
    q = DiagGaussian(jnp.full((1, 1), mean), jnp.full((1, 1), log_var))
    got = closed_kl(q, Normal().distribution({}, {}, links(1)))
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-12)
    grads = jax.grad(lambda q: jnp.sum(closed_kl(q, Normal().distribution({}, {}, links(1)))))(q)
    np.testing.assert_allclose(grads.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(grads.log_var, 0.5 * math.expm1(log_var), rtol=1e-3)


def test_bernoulli_log_prob_is_scipys():
    logits = RNG.normal(size=(4, 3, 2, 1)) * 4
    x = RNG.integers(0, 2, size=logits.shape)
    want = stats.bernoulli.logpmf(x, 1 / (1 + np.exp(-logits))).sum((1, 2, 3))
    p_x = BernoulliPixels(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(p_x.log_prob(jnp.asarray(x, jnp.float32)), want, rtol=1e-5)


def test_cross_entropy_and_its_gradients_are_exact_to_float32():
    """Over the whole range of logits and gray levels, against float64."""
    logits = np.concatenate([np.linspace(-30, 30, 601), [-1e4, -200.0, -1e-6, 0.0, 1e-6, 200.0, 1e4]])
    l, x = (a.ravel() for a in np.meshgrid(logits, [0.0, 0.3, 1.0]))
    l32, x32 = jnp.asarray(l, jnp.float32), jnp.asarray(x, jnp.float32)
    # What the function sees is the rounded input.
    l, x = np.asarray(l32, np.float64), np.asarray(x32, np.float64)
    p = np.exp(-np.logaddexp(0, -l))
    np.testing.assert_allclose(
        cross_entropy(l32, x32), x * np.logaddexp(0, -l) + (1 - x) * np.logaddexp(0, l), rtol=3e-6, atol=1e-40
    )
    by_logit, by_x = jax.grad(lambda l, x: jnp.sum(cross_entropy(l, x)), (0, 1))(l32, x32)
    np.testing.assert_allclose(by_logit, p - x, rtol=1e-5, atol=2e-7)
    np.testing.assert_allclose(by_x, -l, rtol=1e-6)
    curvature = jax.vmap(jax.grad(jax.grad(cross_entropy)))(l32, x32)
    np.testing.assert_allclose(curvature, p * (1 - p), rtol=1e-4, atol=2e-7)


def test_uniform_bernoulli_on_mnist_costs_784_ln_2():
    """The anchor of every binary MNIST likelihood: sums over pixels, never means (reference 7.7)."""
    x = jnp.asarray(RNG.uniform(size=(3, 28, 28, 1)), jnp.float32)
    got = -Bernoulli().build(jnp.zeros((3, 28, 28, 1)), {}, {}).log_prob(x)
    np.testing.assert_allclose(got, 784 * math.log(2.0), rtol=1e-6)
    np.testing.assert_allclose(got[0], 543.43, atol=0.005)


def test_gaussian_pixels_log_prob_is_scipys():
    loc, x = RNG.normal(size=(2, 4, 3, 2, 2))
    for log_std in (np.float64(-1.3), RNG.normal(size=loc.shape)):
        want = stats.norm.logpdf(x, loc, np.exp(log_std)).sum((1, 2, 3))
        p_x = GaussianPixels(jnp.asarray(loc, jnp.float32), jnp.asarray(log_std, jnp.float32))
        np.testing.assert_allclose(p_x.log_prob(jnp.asarray(x, jnp.float32)), want, rtol=1e-5)


def test_pixel_samples_have_their_moments():
    n, probability = 20_000, jnp.asarray([0.1, 0.5, 0.93])
    logits = jnp.tile(jnp.log(probability / (1 - probability)).reshape(1, 1, 3, 1), (n, 1, 1, 1))
    keys = jax.random.split(KEY, n)
    p_x = BernoulliPixels(logits)
    drawn = np.asarray(p_x.sample(keys))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_allclose(drawn.mean((0, 1, 3)), probability, atol=4 * 0.5 / math.sqrt(n))
    np.testing.assert_allclose(p_x.mean()[0, 0, :, 0], probability, rtol=1e-6)
    np.testing.assert_array_equal(p_x.mode()[0, 0, :, 0], [0, 0, 1])

    p_x = GaussianPixels(logits, jnp.log(jnp.asarray([0.5, 1.0, 2.0]).reshape(1, 1, 3, 1)))
    drawn = np.asarray(p_x.sample(keys))
    np.testing.assert_allclose(drawn.mean((0, 1, 3)), logits[0, 0, :, 0], atol=4 * 2 / math.sqrt(n))
    np.testing.assert_allclose(drawn.std((0, 1, 3)), [0.5, 1, 2], rtol=0.03)
    np.testing.assert_array_equal(p_x.mean(), p_x.mode())


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_stay_finite_at_extreme_outputs(name):
    config = LIKELIHOODS[name]()
    x = jnp.asarray(RNG.uniform(size=(2, 3, 3, 1)), jnp.float32)
    for value in (1e4, -1e4, 0.0):
        out = jnp.full((2, 3, 3, config.outputs(1)), value)

        def loss(out, fit):
            params, state = config.params_for((3, 3, 1)), config.init_state()
            p_x = config.fit(out, x, params, state, None)[0] if fit else config.build(out, params, state)
            return jnp.sum(p_x.log_prob(x)), p_x.mean()

        for fit in (True, False):
            (value_, mean), grad = jax.value_and_grad(loss, has_aux=True)(out, fit)
            assert np.all(np.isfinite(value_))
            assert np.all(np.isfinite(mean))
            assert np.all(np.isfinite(grad))


def test_perfect_reconstruction_stays_finite():
    """Where every pixel is right the fitted and the learned variance would go to 0; the floor is e^-6."""
    x = jnp.full((2, 3, 3, 1), 0.25)
    optimal = GaussianOptimal().fit(x, x, {}, GaussianOptimal().init_state(), None)[0]
    np.testing.assert_allclose(optimal.log_std, -6.0, rtol=1e-5)
    learned = GaussianLearned().build(x, {"log_std": jnp.asarray(-1e3)}, {})
    pixelwise = GaussianPixelwise().build(jnp.concatenate([x, jnp.full_like(x, -1e3)], -1), {}, {})
    for p_x in (optimal, learned, pixelwise):
        np.testing.assert_allclose(p_x.log_std, -6.0, rtol=1e-5)
        np.testing.assert_allclose(p_x.log_prob(x), 9 * (6 - 0.5 * math.log(2 * math.pi)), rtol=1e-5)


def test_fixed_learned_and_pixelwise_gaussians_agree():
    out, x = (jnp.asarray(RNG.normal(size=(2, 3, 2, 2)), jnp.float32) for _ in range(2))
    fixed = Gaussian(0.3).build(out, {}, {}).log_prob(x)
    want = stats.norm.logpdf(x, out, 0.3).sum((1, 2, 3))
    np.testing.assert_allclose(fixed, want, rtol=1e-5)
    learned = GaussianLearned(init_std=0.3, min_log_std=-20.0)
    np.testing.assert_allclose(learned.build(out, learned.init_params(), {}).log_prob(x), want, rtol=1e-5)
    pixelwise = GaussianPixelwise(min_log_std=-20.0)
    both = jnp.concatenate([out, jnp.full_like(out, math.log(0.3))], -1)
    assert pixelwise.outputs(2) == both.shape[-1]
    np.testing.assert_allclose(pixelwise.build(both, {}, {}).log_prob(x), want, rtol=1e-5)


def test_optimal_variance_is_the_profile_likelihood():
    """Value D/2 (log 2 pi sigma*^2 + 1), and the gradient of D/2 log MSE though sigma* is held fixed."""
    out, x = (jnp.asarray(RNG.normal(size=(5, 4, 3, 1)) * 0.1, jnp.float32) for _ in range(2))
    config, pixels = GaussianOptimal(), 12

    def fitted(out):
        return -jnp.mean(config.fit(out, x, {}, config.init_state(), None)[0].log_prob(x))

    def profiled(out):
        return 0.5 * pixels * (jnp.log(2 * math.pi * jnp.mean(jnp.square(out - x))) + 1)

    np.testing.assert_allclose(fitted(out), profiled(out), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(fitted)(out), jax.grad(profiled)(out), rtol=1e-4, atol=1e-7)


def test_optimal_variance_of_evaluation_is_the_running_mean():
    """Bias-corrected, so the first update is the first variance; and x never chooses its own."""
    config, state = GaussianOptimal(decay=0.8), GaussianOptimal(decay=0.8).init_state()
    x = jnp.zeros((2, 2, 2, 1))
    np.testing.assert_array_equal(config.build(x, {}, state).log_std, 0.0)
    variances, weights = [], []
    for i, error in enumerate((0.5, 1.0, 0.25)):
        _, state = config.fit(jnp.full_like(x, error), x, {}, state, None)
        variances.append(error**2)
        weights = [0.8 ** (i - j) for j in range(i + 1)]
        want = 0.5 * math.log(np.average(variances, weights=weights))
        np.testing.assert_allclose(config.build(x + 7, {}, state).log_std, want, rtol=1e-5)


def test_normal_prior():
    prior = Normal(mean=0.5, std=2.0)
    z = np.random.default_rng(3).normal(size=(4, 3))
    want = stats.norm.logpdf(z, 0.5, 2.0).sum(-1)
    np.testing.assert_allclose(
        prior.distribution({}, {}, links(3)).log_prob(jnp.asarray(z, jnp.float32)), want, rtol=1e-5
    )
    p = DiagGaussian(jnp.full((1, 2), 0.5), jnp.full((1, 2), 2 * math.log(2.0)))
    np.testing.assert_allclose(closed_kl(p, prior.distribution({}, {}, links(2))), 0.0, atol=1e-6)
    for temperature in (1.0, 0.5, 0.0):
        drawn = np.asarray(prior.sample({}, {}, KEY, 20_000, links(2), temperature))
        np.testing.assert_allclose(drawn.mean(0), 0.5, atol=4 * 2 / math.sqrt(20_000))
        np.testing.assert_allclose(drawn.std(0), 2.0 * temperature, rtol=0.03)
    assert jax.tree.leaves(prior.init(KEY, links(2))) == []
