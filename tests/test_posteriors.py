"""Posteriors with a closed-form KL, and their priors: scipy, quadrature, enumeration of moments, Monte Carlo with bars.

Tolerances of Monte Carlo tests are 4.5 standard errors; seeds are fixed.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from vae_jax import posteriors, priors
from vae_jax.distributions import DiagGaussian, bessel, closed_kl
from vae_jax.distributions.correlated import FullGaussian
from vae_jax.distributions.gamma import Gamma
from vae_jax.distributions.laplace import Laplace
from vae_jax.distributions.special import log_beta
from vae_jax.distributions.sphere import VonMisesFisher
from vae_jax.distributions.unit import Beta, Kumaraswamy, mean_log_complement
from vae_jax.errors import InputError
from vae_jax.runs.config import Config, check, choose, put

PARTNERS = {
    "full-gaussian": "normal",
    "low-rank-gaussian": "normal",
    "laplace": "laplace",
    "gamma": "gamma",
    "beta": "beta",
    "kumaraswamy": "beta",
    "von-mises": "sphere",
}
every_posterior = pytest.mark.parametrize("name", PARTNERS)
N = 20_000


def links(code_dim):
    return priors.Links(code_dim, (1, 1, 1), lambda images: None)


def prior_of(name, dim, **options):
    return priors.PRIORS[name](**options).distribution({}, {}, links(dim))


def array(*values):
    return jnp.asarray(values, jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def build(name, out):
    return posteriors.POSTERIORS[name]().build({}, jnp.asarray(out, jnp.float32), jnp.int32(0), True)


def random_posterior(name, b, dim, seed=0):
    out = np.random.default_rng(seed).normal(size=(b, posteriors.POSTERIORS[name]().outputs(dim)))
    return build(name, out)


@jax.jit
def density(q, z):
    """Returns log q(z) of every z [n, D], for q of one example or of n."""
    z = jnp.asarray(z, jnp.float32)
    return repeat(q, len(z)).log_prob(z) if len(jax.tree.leaves(q)[0]) == 1 else q.log_prob(z)


rate = jax.jit(closed_kl)
moments = jax.jit(lambda q: (q.mode(), q.variance()))


def repeat(q, n):
    """Returns q of one example, n times."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x[:1], (n, *x.shape[1:])), q)


@functools.partial(jax.jit, static_argnums=1)
def draws(q, n):
    """Returns z [n, D] and log q(z) [n] of the first example."""
    return repeat(q, n).sample_and_log_prob(jax.random.split(jax.random.key(3), n))


def assert_mean(values, want, floor=1e-6):
    """Asserts that the mean over axis 0 is `want` within 4.5 standard errors."""
    values = np.asarray(values, np.float64)
    error = 4.5 * values.std(0) / math.sqrt(len(values)) + floor
    assert np.all(np.abs(values.mean(0) - want) < error), (values.mean(0), want, error)


def covariance(q):
    """Returns the float64 covariance [D, D] of the first example of a correlated Gaussian, from its definition."""
    w, std = np.asarray(q.weights[0], np.float64), np.asarray(q.std[0], np.float64)
    scale = np.diag(std / np.sqrt(1 + np.square(w).sum(-1)))
    inner = (w + np.eye(len(w))) @ (w + np.eye(len(w))).T if isinstance(q, FullGaussian) else np.eye(len(w)) + w @ w.T
    return scale @ inner @ scale


# Densities.


@pytest.mark.parametrize("name", ["full-gaussian", "low-rank-gaussian"])
def test_correlated_gaussians_are_scipys(name):
    dim = 5
    q, p = random_posterior(name, 1, dim), DiagGaussian(array([0.3] * dim), array([0.5] * dim))
    mean, cov = np.asarray(q.mean[0], np.float64), covariance(q)
    assert np.abs(np.corrcoef(cov)).max() <= 1.0 + 1e-12
    np.testing.assert_allclose(moments(q)[1][0], np.diag(cov), rtol=1e-5)
    z = np.random.default_rng(1).normal(size=(50, dim))
    want = stats.multivariate_normal(mean, cov).logpdf(z)
    np.testing.assert_allclose(density(q, z), want, rtol=2e-5, atol=1e-4)
    # KL in full matrix form (reference 7.2), to Gaussian and Laplace priors.
    m, s = np.full(dim, 0.3), np.diag(np.exp(np.full(dim, 0.5)))
    gap = m - mean
    want = 0.5 * (
        np.trace(np.linalg.solve(s, cov))
        + gap @ np.linalg.solve(s, gap)
        - dim
        + np.linalg.slogdet(s)[1]
        - np.linalg.slogdet(cov)[1]
    )
    kl = rate(q, p)
    assert kl.shape == (1, 1)
    np.testing.assert_allclose(kl[0, 0], want, rtol=1e-5)
    z, log_q = draws(q, N)
    np.testing.assert_allclose(np.cov(np.asarray(z).T), cov, atol=0.06 * np.diag(cov).max())
    laplace = prior_of("laplace", dim)
    assert_mean(log_q - density(laplace, z), rate(q, laplace)[0, 0])


@pytest.mark.parametrize("name", ["full-gaussian", "low-rank-gaussian"])
def test_correlation_reaches_99_percent_and_no_further(name):
    """Everything that a Cholesky factor can say, up to a multiple correlation of 100/101; the KL stays exact there."""
    out = np.zeros((1, posteriors.POSTERIORS[name]().outputs(2)))
    out[0, 4:] = 1e6
    q = build(name, out)
    cov = covariance(q)
    assert 0.98 < cov[0, 1] / math.sqrt(cov[0, 0] * cov[1, 1]) < 0.996
    total = -0.5 * math.log(np.linalg.det(cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov)))))
    np.testing.assert_allclose(q.total_correlation()[0], total, rtol=1e-4)


SCIPY = {
    "laplace": lambda q: stats.laplace(q.mean, q.scale),
    "gamma": lambda q: stats.gamma(np.asarray(q.concentration, np.float64), scale=1 / np.asarray(q.rate, np.float64)),
    "beta": lambda q: stats.beta(np.asarray(q.a, np.float64), np.asarray(q.b, np.float64)),
}


@pytest.mark.parametrize("name", SCIPY)
def test_log_prob_mean_and_variance_are_scipys(name):
    q = random_posterior(name, 40, 3)
    law = SCIPY[name](q)
    z = np.asarray(law.ppf(np.random.default_rng(2).uniform(0.01, 0.99, size=(40, 3))), np.float32)
    if name == "beta":
        z = np.clip(z, 1e-4, 1 - 1e-3)  # where float32 still tells z from 1
    np.testing.assert_allclose(density(q, z), law.logpdf(z).sum(-1), rtol=2e-5, atol=2e-5)
    mean, variance = moments(q)
    np.testing.assert_allclose(mean, law.mean(), rtol=1e-5)
    np.testing.assert_allclose(variance, law.var(), rtol=1e-5)


def test_gamma_family_keeps_float32_for_large_concentrations():
    """ln Gamma(1e4) is 82,100; a difference of such terms would leave two digits."""
    a = np.asarray([1e-2, 0.3, 7.99, 8.01, 50.0, 1e4], np.float32)
    law = stats.gamma(a.astype(np.float64))
    z = np.maximum(law.ppf(0.7), 1e-3).astype(np.float32)
    got = density(Gamma(a[:, None], np.ones((6, 1), np.float32)), z[:, None])
    np.testing.assert_allclose(got, law.logpdf(z), rtol=2e-5, atol=2e-3)
    x, y = (m.ravel() for m in np.meshgrid(a, np.asarray([0.4, 3.0, 2e3], np.float32)))
    want = special.betaln(x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_allclose(jax.jit(log_beta)(x, y), want, rtol=3e-6, atol=1e-5)


def test_kumaraswamy_is_its_definition():
    q = random_posterior("kumaraswamy", 30, 2)
    a, b = (np.asarray(x, np.float64) for x in q)
    z = np.random.default_rng(3).uniform(0.02, 0.98, size=(30, 2)).astype(np.float32)
    x = z.astype(np.float64)
    want = (np.log(a * b) + (a - 1) * np.log(x) + (b - 1) * np.log(1 - x**a)).sum(-1)
    np.testing.assert_allclose(density(q, z), want, rtol=2e-5, atol=2e-5)
    mean = b * special.beta(1 + 1 / a, b)
    got, variance = moments(q)
    np.testing.assert_allclose(got, mean, rtol=1e-5)
    np.testing.assert_allclose(variance, b * special.beta(1 + 2 / a, b) - mean**2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dim", [2, 3, 40])
def test_von_mises_fisher_is_scipys(dim):
    q = random_posterior("von-mises", 1, dim)._replace(concentration=array([17.0]))
    np.testing.assert_allclose(jnp.linalg.norm(q.mean, axis=-1), 1.0, rtol=1e-6)
    mean = np.asarray(q.mean[0], np.float64)
    law = stats.vonmises_fisher(mean / np.linalg.norm(mean), 17.0)
    z = law.rvs(20, random_state=1).astype(np.float32)
    np.testing.assert_allclose(density(q, z), law.logpdf(z), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(rate(q, prior_of("sphere", dim))[0, 0], area(dim) - law.entropy(), rtol=1e-4)


def area(dim):
    return math.log(2) + 0.5 * dim * math.log(math.pi) - special.gammaln(0.5 * dim)


@every_posterior
def test_samples_have_mean_variance_and_kl(name):
    """Monte Carlo: E z, Var z and E log q/p, against the closed forms; log q of a sample is that of its value."""
    q, p = random_posterior(name, 1, 4, seed=5), prior_of(PARTNERS[name], 4)
    z, log_q = draws(q, N)
    np.testing.assert_allclose(log_q, density(q, z), rtol=1e-4, atol=2e-4)
    np.testing.assert_allclose(q.sample(jax.random.split(jax.random.key(3), N)[:1]), z[:1], rtol=1e-5)
    z, mean, variance = np.asarray(z), *(np.asarray(m)[:1] for m in moments(q))
    if name == "von-mises":
        mean = mean * np.asarray(sphere_facts(4, q.concentration[0])["length"])
    assert_mean(z, mean)
    assert_mean(np.square(z - mean), variance)
    kl = rate(q, p)
    factorized = posteriors.POSTERIORS[name].factorized
    assert kl.shape == ((1, 4) if factorized else (1, 1))
    assert np.all(np.asarray(kl) >= 0)
    assert_mean(log_q - density(p, z), float(jnp.sum(kl)))


@pytest.mark.parametrize(
    ("q", "law"),
    [
        (Gamma(array(0.1, 1.0, 400.0), array(3.0, 1.0, 0.1)), lambda a, r: stats.gamma(a, scale=1 / r).cdf),
        (Beta(array(0.2, 60.0), array(0.3, 1.5)), lambda a, b: stats.beta(a, b).cdf),
        (Kumaraswamy(array(0.2, 20.0), array(0.7, 9.0)), lambda a, b: lambda z: 1 - (1 - z**a) ** b),
    ],
    ids=["gamma", "beta", "kumaraswamy"],
)
def test_samples_follow_the_distribution_function(q, law):
    z = np.asarray(draws(type(q)(*(x[None] for x in q)), N)[0], np.float64)
    for j in range(z.shape[1]):
        assert stats.kstest(z[:, j], law(*(float(x[j]) for x in q))).pvalue > 1e-3


def test_samples_of_tiny_concentrations_are_in_range():
    """Nearly all mass of these lies under the smallest float, or at 0 and 1: no zero, no one, no infinite density."""
    for q, highest in (
        (Gamma(array([1e-3]), array([1.0])), np.inf),
        (Beta(array([1e-3]), array([1e-3])), 1),
        (Kumaraswamy(array([1e-2]), array([1e-2])), 1),
    ):
        z, log_q = draws(q, 500)
        assert np.all(np.asarray(z) > 0)
        assert np.all(np.asarray(z) < highest)
        assert np.all(np.isfinite(log_q))


# Divergences in one dimension, by quadrature in float64.


def quadrature(log_q, log_p, low, high, points=()):
    def integrand(z):
        value = log_q(z)
        return math.exp(value) * (value - log_p(z)) if value > -700 else 0.0

    edges = [low, *points, high]
    return sum(integrate.quad(integrand, a, b, limit=200)[0] for a, b in itertools.pairwise(edges))


def test_kl_of_laplace_and_normal_by_quadrature():
    means, scales = np.asarray([0.0, 0.7, -2.0, 3.0, 1e-3]), np.asarray([1.0, 0.5, 0.01, 4.0, 1.0])
    mean, scale = array(*means)[None], array(*scales)[None]
    q_l, q_n = Laplace(mean, scale), DiagGaussian(mean, 2 * jnp.log(scale))
    p_l, p_n = prior_of("laplace", 5, mean=0.2, scale=1.5), prior_of("normal", 5, mean=0.2, std=1.5)
    for q, law_q in ((q_l, stats.laplace), (q_n, stats.norm)):
        for p, law_p in ((p_l, stats.laplace(0.2, 1.5)), (p_n, stats.norm(0.2, 1.5))):
            got = rate(q, p)[0]
            for j, (m, s) in enumerate(zip(means, scales, strict=True)):
                breaks = [x for x in sorted({m, 0.2}) if abs(x - m) < 40 * s]
                want = quadrature(law_q(m, s).logpdf, law_p.logpdf, m - 40 * s, m + 40 * s, breaks)
                np.testing.assert_allclose(got[j], want, rtol=1e-4, atol=1e-6)
    # Reference 7.2, to Laplace(0, 1).
    want = np.abs(means) + scales * np.exp(-np.abs(means) / scales) - np.log(scales) - 1
    np.testing.assert_allclose(rate(q_l, prior_of("laplace", 5))[0], want, rtol=1e-4, atol=1e-6)


def gamma_kl(a, r, c, s):
    return (a - c) * special.psi(a) - special.gammaln(a) + special.gammaln(c) + c * np.log(r / s) + a * (s - r) / r


def test_kl_of_gammas():
    a, r = np.float64(np.float32([[1.0, 0.01, 0.6, 8.0, 30.0, 1e4], [1.0, 0.3, 5.0, 2.0, 20.0, 1e4]]))
    q = Gamma(array(*a)[None], array(*r)[None])
    for c, s in ((1.0, 1.0), (2.5, 0.5)):
        got = rate(q, prior_of("gamma", 6, concentration=c, rate=s))[0]
        np.testing.assert_allclose(got, gamma_kl(a, r, c, s), rtol=3e-5, atol=3e-6)
    for j in (0, 2, 3, 4):
        law = stats.gamma(a[j], scale=1 / r[j])
        want = quadrature(law.logpdf, stats.gamma(2.5, scale=2).logpdf, 0, law.ppf(1 - 1e-14), [law.ppf(0.01)])
        np.testing.assert_allclose(got[j], want, rtol=1e-4)
    np.testing.assert_allclose(rate(q, q), 0.0, atol=1e-6)


def beta_kl(a, b, c, d):
    digammas = (a - c) * special.psi(a) + (b - d) * special.psi(b) + (c + d - a - b) * special.psi(a + b)
    return special.betaln(c, d) - special.betaln(a, b) + digammas


def test_kl_of_betas():
    a, b = np.float64(np.float32([[1.0, 0.01, 0.5, 20.0, 1e4, 1e4], [1.0, 0.01, 3.0, 5.0, 10.0, 1e4]]))
    q = Beta(array(*a)[None], array(*b)[None])
    for c, d in ((1.0, 1.0), (2.0, 0.5)):
        got = rate(q, prior_of("beta", 6, a=c, b=d))[0]
        np.testing.assert_allclose(got, beta_kl(a, b, c, d), rtol=3e-5, atol=5e-6)
    np.testing.assert_allclose(rate(q, q), 0.0, atol=3e-6)


def test_kl_of_kumaraswamy_to_beta():
    """The quadrature of E ln(1 - z) against adaptive quadrature, and against the series where that converges."""
    grid = np.meshgrid([0.02, 0.4, 1.0, 3.0, 80.0], [0.02, 0.5, 1.0, 6.0, 300.0])
    a, b = (np.float64(np.float32(x.ravel())) for x in grid)
    q = Kumaraswamy(array(*a)[None], array(*b)[None])

    def log_complement(s, a, b):
        power = math.log(-math.expm1(-s / b)) / a if s / b < 30 else -math.exp(-s / b) / a
        return math.log(-math.expm1(power)) if power < -1e-12 else -s / b - math.log(a)

    def exactly(a, b):  # in ln s, where the integrand is smooth
        return integrate.quad(
            lambda y: log_complement(math.exp(y), a, b) * math.exp(y - math.exp(y)), -30, 4, limit=400
        )[0]

    exact = np.asarray([exactly(*ab) for ab in zip(a, b, strict=True)])
    np.testing.assert_allclose(jax.jit(mean_log_complement)(q)[0], exact, rtol=2e-4, atol=1e-6)
    m = np.arange(1, 200_000)
    for j in np.flatnonzero(b >= 1):
        series = -b[j] * np.exp(special.betaln(m / a[j], b[j]) - np.log(m + a[j] * b[j])).sum()
        np.testing.assert_allclose(exact[j], series, rtol=1e-4, atol=5e-4 if b[j] == 1 else 1e-5)
    for c, d in ((1.0, 1.0), (0.7, 2.5)):
        want = (a - c) / a * (-np.euler_gamma - special.psi(b) - 1 / b) + np.log(a * b) + special.betaln(c, d)
        want += -(b - 1) / b - (d - 1) * exact
        got = rate(q, prior_of("beta", 25, a=c, b=d))[0]
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


# The sphere.


@functools.partial(jax.jit, static_argnums=0)
def sphere_facts(dim, k):
    kl = functools.partial(bessel.uniform_kl, dim)
    return {
        "deficit": bessel.mean_deficit(dim, k),
        "length": bessel.mean_length(dim, k),
        "slope": bessel.length_slope(dim, k),
        "peak": bessel.log_peak(dim, k),
        "kl": kl(k),
        "kl_slope": jax.vmap(jax.grad(kl))(k),
    }


@pytest.mark.parametrize("dim", [2, 3, 11, 400])
def test_bessel_functions_over_seven_decades(dim):
    """1 - A, A, A' and KL to the uniform density, k from 1e-3 to 1e4; A and ln I by scipy, the rest by identities."""
    k = jnp.asarray(np.geomspace(1e-3, 1e4, 29), jnp.float32)
    x, order = np.asarray(k, np.float64), dim / 2 - 1
    usable = special.ive(order, x) > 1e-280
    k, x = k[usable], x[usable]
    ratio = special.ive(order + 1, x) / special.ive(order, x)
    got = sphere_facts(dim, k)
    np.testing.assert_allclose(got["length"], ratio, rtol=1e-6)
    np.testing.assert_allclose(got["deficit"], 1 - ratio, rtol=2e-5)
    slope = 1 - ratio**2 - (dim - 1) * ratio / x
    np.testing.assert_allclose(got["slope"], slope, rtol=1e-4, atol=1e-9)
    log_f = np.log(special.ive(order, x)) + x + special.gammaln(order + 1) - order * np.log(x / 2)
    np.testing.assert_allclose(got["kl"], x * ratio - log_f, rtol=1e-3, atol=1e-7)
    assert np.all(np.diff(got["kl"]) > 0)
    np.testing.assert_allclose(got["peak"], x - log_f, rtol=2e-5)
    np.testing.assert_allclose(got["kl_slope"], x * slope, rtol=1e-4, atol=1e-8)


def test_kl_of_von_mises_fisher_vanishes_with_the_concentration():
    """KL -> k^2 / (2 m); on S^2, where everything is elementary, KL = k coth k - 1 + ln(k / sinh k)."""
    np.testing.assert_allclose(sphere_facts(7, array(0.01))["kl"], 0.01**2 / 14, rtol=1e-3)
    k = np.asarray([0.5, 3.0, 40.0])
    want = k / np.tanh(k) - 1 + np.log(k / np.sinh(k))
    np.testing.assert_allclose(sphere_facts(3, array(*k))["kl"], want, rtol=1e-5)


def tangent(dim, k, nodes=40_001):
    """Returns (w, F(w)) on a grid: the law of w = mean.z in float64."""
    angle = np.linspace(0, math.pi, nodes)
    log_p = k * (np.cos(angle) - 1) + (dim - 2) * np.log(np.maximum(np.sin(angle), 1e-300))
    total = integrate.cumulative_simpson(np.exp(log_p - log_p.max()), x=angle, initial=0)
    return np.cos(angle), 1 - total / total[-1]


@functools.partial(jax.jit, static_argnums=1)
def heights(q, n):
    """Returns z [n, m], w = mean.z and dw/dk [n] of the first example."""
    many, keys = repeat(q, n), jax.random.split(jax.random.key(3), n)

    def height(k):
        z = many._replace(concentration=k).sample(keys)
        return jnp.sum(z * many.mean, -1), z

    w, slope, z = jax.jvp(height, (many.concentration,), (jnp.ones((n, 1)),), has_aux=True)
    return z, w, slope


@pytest.mark.parametrize(("dim", "ks"), [(2, (1.0, 300.0)), (5, (0.05, 2e3)), (60, (1.0, 90.0))])
def test_von_mises_fisher_samples(dim, ks):
    """On the sphere; w = mean.z follows its law; the rest is symmetric; dw/dk keeps the quantile."""
    mean = np.random.default_rng(dim).normal(size=dim)
    mean /= np.linalg.norm(mean)
    for k in ks:
        z, w, slope = (np.asarray(x, np.float64) for x in heights(VonMisesFisher(array(mean), array([k])), N))
        np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1.0, rtol=1e-5)
        grids = [tangent(dim, k * s) for s in (1 - 1e-3, 1.0, 1 + 1e-3)]
        grid, cdf = grids[1]
        assert stats.kstest(w, lambda x, g=grid, c=cdf: np.interp(x, g[::-1], c[::-1])).pvalue > 1e-3
        assert_mean(z - w[:, None] * mean, 0.0)
        # E[(v.z)^2] = (1 - E w^2) / (m - 1) for every unit vector v across the mean.
        across = np.linalg.svd(mean[None])[2][1]
        assert_mean(np.square(z @ across), float(sphere_facts(dim, array(k))["length"][0]) / k)
        # The implicit derivative against the float64 quantile function.
        level = np.interp(w, grid[::-1], cdf[::-1])
        low, high = (np.interp(level, c[::-1], g[::-1]) for g, c in (grids[0], grids[2]))
        inside = (level > 0.01) & (level < 0.99)
        want = (high - low) / (2e-3 * k)
        np.testing.assert_allclose(slope[inside], want[inside], rtol=0.02, atol=0.01 * np.abs(want).max())


def test_von_mises_fisher_gradients_are_unbiased():
    """d/dk E[c.z] = A'(k) c.mean and d/dmean E[c.z] = A(k) c across the mean, from samples."""
    dim, k = 4, 6.0
    mean = np.asarray([0.1, -0.7, 0.3, 0.4])
    mean /= np.linalg.norm(mean)
    c = np.asarray([0.5, 1.0, -2.0, 0.3])
    many = repeat(VonMisesFisher(array(mean), array([k])), N)
    keys = jax.random.split(jax.random.key(9), N)

    @jax.jit
    def gradients(v, k):
        def value(v, k):
            q = VonMisesFisher(v / jnp.linalg.norm(v, axis=-1, keepdims=True), k)
            return jnp.sum(q.sample(keys) * jnp.asarray(c, jnp.float32)[None])

        return jax.grad(value, (0, 1))(v, k)

    by_mean, by_k = gradients(many.mean, many.concentration)
    facts = sphere_facts(dim, array(k))
    assert_mean(by_k[:, 0], float(facts["slope"][0]) * (c @ mean))
    assert_mean(by_mean, float(facts["length"][0]) * (c - mean * (c @ mean)))


# Pathwise gradients of expectations.


def test_gamma_gradients_are_those_of_the_moments():
    """E z = a/r and E ln z = psi(a) - ln r."""
    keys, shapes = jax.random.split(jax.random.key(4), N), np.asarray([0.3, 1.0, 5.0, 60.0])

    @jax.jit
    def gradients(a, r):
        z, pull = jax.vjp(lambda a, r: Gamma(a, r).sample(keys), a, r)
        return pull(jnp.ones_like(z)), pull(1.0 / z)

    linear, log = gradients(jnp.broadcast_to(array(shapes), (N, 4)), jnp.full((N, 4), 2.0))
    assert_mean(linear[0], 1 / 2.0)
    assert_mean(linear[1], -shapes / 4.0)
    assert_mean(log[0], special.polygamma(1, shapes))
    assert_mean(log[1], -1 / 2.0)


@pytest.mark.parametrize("cls", [Beta, Kumaraswamy])
def test_unit_gradients_are_those_of_the_moments(cls):
    """d E[z] and d E[z^2], from samples, against differences of the closed-form moments in float64."""
    keys, a, b = jax.random.split(jax.random.key(4), N), np.asarray([0.6, 4.0]), np.asarray([1.7, 9.0])

    def moment(n, a, b):
        if cls is Beta:
            return special.beta(a + n, b) / special.beta(a, b)
        return b * special.beta(1 + n / a, b)

    @jax.jit
    def gradients(a, b):
        z, pull = jax.vjp(lambda a, b: cls(a, b).sample(keys), a, b)
        return pull(jnp.ones_like(z)), pull(2.0 * z)

    for n, (by_a, by_b) in enumerate(gradients(*(jnp.broadcast_to(array(x), (N, 2)) for x in (a, b))), 1):
        assert_mean(by_a, (moment(n, a + 1e-5, b) - moment(n, a - 1e-5, b)) / 2e-5)
        assert_mean(by_b, (moment(n, a, b + 1e-5) - moment(n, a, b - 1e-5)) / 2e-5)


@pytest.mark.parametrize("name", ["full-gaussian", "low-rank-gaussian", "laplace"])
def test_location_families_have_the_gradients_of_their_moments(name):
    """d E[z_i z_j]: through the encoder's outputs, samples against the covariance."""
    dim, n = 3, N
    out = np.random.default_rng(8).normal(size=(1, posteriors.POSTERIORS[name]().outputs(dim)))

    def second(out):
        q = build(name, out)
        if name == "laplace":
            return q.mean[0, 0] * q.mean[0, 1] + q.variance()[0, 2]
        scale = q.std / jnp.sqrt(1.0 + jnp.sum(jnp.square(q.weights), -1))
        unit = jnp.concatenate([q.weights, jnp.eye(dim)[None]], -1)
        if name == "full-gaussian":
            unit = q.weights + jnp.eye(dim)[None]
        z = jnp.einsum("bi,bik,bjk,bj->bij", scale, unit, unit, scale)[0] + q.mean.T @ q.mean
        return z[0, 1] + z[2, 2] - q.mean[0, 2] ** 2

    keys = jax.random.split(jax.random.key(6), n)

    @jax.jit
    def sampled(out):
        def total(out):
            q = build(name, out)
            z = q.sample(keys)
            return jnp.sum(z[:, 0] * z[:, 1] + jnp.square(z[:, 2] - q.mean[:, 2]))

        return jax.grad(total)(out)

    got = sampled(jnp.broadcast_to(jnp.asarray(out, jnp.float32), (n, out.shape[1])))
    assert_mean(got, np.asarray(jax.grad(second)(jnp.asarray(out, jnp.float32)))[0], floor=1e-5)


# Robustness, pairs, options.


@every_posterior
def test_everything_is_finite_at_extreme_encoder_outputs(name):
    dim = 4
    config, p = posteriors.POSTERIORS[name](), prior_of(PARTNERS[name], dim)
    size = config.outputs(dim)
    mixed = np.random.default_rng(0).choice([-1e4, 0.0, 1e4], size=(61, size))
    outs = np.concatenate([np.zeros((1, size)), np.full((1, size), 1e4), np.full((1, size), -1e4), mixed])
    keys = jax.random.split(jax.random.key(2), len(outs))

    @jax.jit
    def value_and_gradients(out):
        def values(out):
            q = build(name, out)
            z, log_q = q.sample_and_log_prob(keys)
            given = jax.lax.stop_gradient(q).log_prob(z)
            parts = (z, log_q, given, closed_kl(q, p), p.log_prob(z), q.mode(), q.variance())
            return jnp.stack([jnp.sum(x) for x in parts])

        value, pull = jax.vjp(values, out)
        return value, jax.vmap(pull)(jnp.eye(len(value)))

    value, gradients = value_and_gradients(jnp.asarray(outs, jnp.float32))
    assert np.all(np.isfinite(value)), value
    assert np.all(np.isfinite(gradients[0]))


def test_every_factorized_pair_has_its_kl_by_dimension():
    """Objectives that read `kl_per_dim` are allowed for any factorized pair, so it must be there."""
    for name in (*PARTNERS, "gaussian"):
        for prior in ("normal", "laplace", "gamma", "beta", "sphere"):
            q, p = posteriors.POSTERIORS[name], priors.PRIORS[prior]
            if q.space == p.space:
                kl = rate(random_posterior(name, 2, 3), prior_of(prior, 3))
                assert kl is not None, (name, prior)
                assert kl.shape == ((2, 3) if q.factorized and p.factorized else (2, 1))


@pytest.mark.parametrize(
    ("name", "law", "options"),
    [
        ("laplace", stats.laplace(0.5, 2.0), {"mean": 0.5, "scale": 2.0}),
        ("gamma", stats.gamma(0.7, scale=1 / 1.5), {"concentration": 0.7, "rate": 1.5}),
        ("beta", stats.beta(0.5, 2.0), {"a": 0.5, "b": 2.0}),
    ],
)
def test_priors_are_scipys_and_temperature_scales_the_deviation(name, law, options):
    prior = priors.PRIORS[name](**options)
    z = law.ppf(np.random.default_rng(0).uniform(0.05, 0.95, size=(30, 3)))
    got = prior.distribution({}, {}, links(3)).log_prob(jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(got, law.logpdf(z).sum(-1), rtol=1e-4, atol=1e-4)
    for temperature in (1.0, 0.5):
        drawn = np.asarray(prior.sample({}, {}, jax.random.key(0), N, links(2), temperature))
        assert_mean(drawn, law.mean())
        assert_mean(np.square(drawn - law.mean()), law.var() * temperature**2)
        if temperature == 1.0:
            assert stats.kstest(drawn[:, 0], law.cdf).pvalue > 1e-3
    cold = np.asarray(prior.sample({}, {}, jax.random.key(0), 50, links(2), 0.0))
    np.testing.assert_allclose(cold, law.mean(), atol=0.02)


def test_uniform_sphere_prior():
    prior = priors.PRIORS["sphere"]()
    z = prior.sample({}, {}, jax.random.key(0), N, links(3))
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=-1), 1.0, rtol=1e-5)
    # Archimedes: a coordinate of a uniform point of S^2 is uniform on (-1, 1).
    assert stats.kstest(np.asarray(z)[:, 1], stats.uniform(-1, 2).cdf).pvalue > 1e-3
    np.testing.assert_allclose(prior.distribution({}, {}, links(3)).log_prob(z), -math.log(4 * math.pi), rtol=1e-6)


def refused(*choices, **values):
    config = Config()
    for option, name in choices:
        config = choose(config, option, name)
    for option, value in values.items():
        config = put(config, option.replace("__", "."), value)
    with pytest.raises(InputError) as error:
        check(config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.usefixtures("command_line")
def test_refusals_in_words():
    sphere = (("model.posterior", "von-mises"), ("model.prior", "sphere"))
    assert "choose --model.latent-dim 2 or more" in refused(*sphere, model__latent_dim=1)
    low_rank = (("model.posterior", "low-rank-gaussian"),)
    assert "choose --model.posterior.rank 10 or less" in refused(*low_rank, model__posterior__rank=11)
    assert "1 or more" in refused(*low_rank, model__posterior__rank=0)
    assert "choose --model.prior gamma" in refused(("model.posterior", "gamma"))
    assert "choose --model.prior beta" in refused(("model.posterior", "kumaraswamy"))
    assert "choose --model.prior sphere" in refused(("model.posterior", "von-mises"))
    for kind, options in {"laplace": ["scale"], "gamma": ["concentration", "rate"], "beta": ["a", "b"]}.items():
        for option in options:
            words = refused(("model.prior", kind), **{f"model__prior__{option}": 0.0})
            assert f"model.prior.{option}: 0.0 is out of range; it must be positive" in words
