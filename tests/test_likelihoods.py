"""Likelihoods of pixels against scipy, quadrature, enumeration of the 256 levels, and an independent MS-SSIM."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from scipy import integrate, special, stats

from vae_jax import spec
from vae_jax.data import DataConfig
from vae_jax.errors import InputError, on_command_line
from vae_jax.likelihoods import LIKELIHOODS
from vae_jax.likelihoods.continuous import (
    BetaPixels,
    ContinuousBernoulliPixels,
    LaplacePixels,
    SechPixels,
    StudentTPixels,
    langevin,
    log_sinhc,
)
from vae_jax.likelihoods.discretized import (
    CategoricalPixels,
    LogisticMixturePixels,
    LogisticPixels,
    log_mass,
    mean_level,
)
from vae_jax.likelihoods.logit_laplace import LogitLaplacePixels
from vae_jax.metrics import structural
from vae_jax.metrics.structural import WEIGHTS, plan
from vae_jax.models import VAE
from vae_jax.networks import MLP, LocalAR
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config
from vae_jax.tasks import training

KEY = jax.random.key(0)
NEW = [n for n in LIKELIHOODS if not n.startswith(("gaussian", "bernoulli"))]
DISCRETE = ["logistic-256", "logistic-mixture", "categorical-256"]


def f32(x):
    return jnp.asarray(x, jnp.float32)


def pixel(*values):
    """Returns values as one image each, [N, 1, 1, 1]."""
    return f32(values).reshape(-1, 1, 1, 1)


ms_ssim = jax.jit(structural.ms_ssim)
# One compilation a call: run eagerly, every operation would be compiled by itself.
log_prob = jax.jit(lambda p, x: p.log_prob(x))
sample = jax.jit(lambda p, keys: p.sample(keys))
mean = jax.jit(lambda p: p.mean())
mode = jax.jit(lambda p: p.mode())
masses = jax.jit(log_mass)


def scored(p, x):
    return np.asarray(log_prob(p, x), np.float64)


def draws(p, n=20_000):
    return np.asarray(sample(p, jax.random.split(KEY, n)))


def alone(build, x):
    """Returns log p(x_i) [N] under the one distribution `build(n)`."""
    x = np.ravel(x)
    return scored(build(len(x)), pixel(*x))


def constant(cls, *values):
    return lambda n: cls(*(jnp.full((n, 1, 1, 1), v, jnp.float32) for v in values))


# Continuous densities: (family, parameters) -> scipy's frozen distribution.
DENSITIES = {
    "laplace": (constant(LaplacePixels, 0.3, math.log(0.2)), stats.laplace(0.3, 0.2)),
    "student-t": (constant(StudentTPixels, 0.3, math.log(0.2), 4.0), stats.t(4.0, 0.3, 0.2)),
    "student-t heavy": (constant(StudentTPixels, -1.0, math.log(2.0), 1.5), stats.t(1.5, -1.0, 2.0)),
    "log-cosh": (constant(SechPixels, 0.3, math.log(0.2)), stats.hypsecant(0.3, 0.2)),
    "beta": (constant(BetaPixels, 2.5, 0.7), stats.beta(2.5, 0.7)),
    "beta flat": (constant(BetaPixels, 1.0, 1.0), stats.uniform()),
    "beta sharp": (constant(BetaPixels, 900.0, 300.0), stats.beta(900.0, 300.0)),
}


def test_a_center_is_that_of_data_without_it():
    x = jax.random.uniform(KEY, (8, 4, 4, 1))
    plain, centered = (
        VAE(2, MLP((8,)), likelihood=LIKELIHOODS["gaussian"](std=0.3, center=c)).build(spec.images(4, 4, 1))
        for c in (0.0, 0.25)
    )
    batch, moved = {"x": x}, {"x": x + 0.25}
    params, state = jax.jit(plain.init)(KEY, batch)
    want, _ = plain.loss(params, state, KEY, batch, plain.context(batch))
    got, _ = centered.loss(params, state, KEY, moved, centered.context(moved))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    mean = [model.decode(params, state, jnp.ones((1, 2))).mean() for model in (plain, centered)]
    np.testing.assert_allclose(mean[1], mean[0] + 0.25, rtol=1e-6)


def test_a_center_is_for_decoders_that_do_not_read_x():
    def build(center):
        VAE(2, LocalAR((8,)), likelihood=LIKELIHOODS["gaussian"](center=center)).build(spec.images(4, 4, 1))

    with pytest.raises(
        InputError, match=r"^model\.likelihood: gaussian needs a decoder .* set \S*likelihood\.center\D*0"
    ):
        build(0.25)
    build(0.0)


@pytest.mark.parametrize("name", DENSITIES)
def test_densities_are_scipys(name):
    build, want = DENSITIES[name]
    x = want.ppf(np.linspace(0.01, 0.99, 41))
    x = np.clip(x, 1e-4, 1 - 1e-4) if name.startswith("beta") else x
    np.testing.assert_allclose(alone(build, x), want.logpdf(np.asarray(f32(x), np.float64)), rtol=2e-5, atol=1e-3)


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_follow_the_density(name):
    build, want = DENSITIES[name]
    n = 20_000
    drawn = np.ravel(draws(build(n), n))
    assert stats.kstest(drawn, want.cdf).pvalue > 1e-3
    np.testing.assert_allclose(np.ravel(mean(build(1))), want.mean(), rtol=1e-5)


def test_a_sample_in_the_wrong_place_would_be_seen():
    build, want = DENSITIES["laplace"]
    drawn = np.ravel(draws(build(20_000)))
    assert stats.kstest(1.05 * drawn, want.cdf).pvalue < 1e-3


def test_beta_mode():
    cases = {(3.0, 2.0): 2 / 3, (0.5, 2.0): 0.0, (2.0, 0.5): 1.0, (0.5, 0.3): 1.0, (0.3, 0.5): 0.0}
    for (a, b), want in cases.items():
        np.testing.assert_allclose(BetaPixels(pixel(a), pixel(b)).mode()[0, 0, 0, 0], want, rtol=1e-6)


def continuous_bernoulli(logit, x):
    """log p in float64 from the defining formula, C = 2 artanh(1 - 2l) / (1 - 2l), with mpmath-free care at 1/2."""
    l, x = special.expit(np.float64(logit)), np.asarray(x, np.float64)
    log_c = math.log(2.0) if abs(l - 0.5) < 1e-9 else math.log(2 * math.atanh(1 - 2 * l) / (1 - 2 * l))
    return x * math.log(l) + (1 - x) * math.log1p(-l) + log_c


@pytest.mark.parametrize("logit", [-12.0, -3.0, -2.001, -1.999, -0.5, -0.02, 0.0, 0.02, 0.7, 1.999, 2.001, 9.0])
def test_continuous_bernoulli_is_its_definition(logit):
    x = np.linspace(0, 1, 11)
    build = constant(ContinuousBernoulliPixels, logit)
    np.testing.assert_allclose(alone(build, x), continuous_bernoulli(logit, f32(x)), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("logit", [-40.0, -5.0, -1e-3, 0.0, 1.0, 2.0, 15.0])
def test_continuous_bernoulli_integrates_to_one_and_has_its_mean(logit):
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x, weights = 0.5 * (nodes + 1), 0.5 * weights
    p = np.exp(alone(constant(ContinuousBernoulliPixels, logit), x))
    np.testing.assert_allclose(weights @ p, 1.0, rtol=2e-5)
    got = float(mean(constant(ContinuousBernoulliPixels, logit)(1))[0, 0, 0, 0])
    np.testing.assert_allclose(got, weights @ (p * x), rtol=2e-5)


@jax.jit
def slope_at(t, x):
    """Returns d/dt log p(x) [N] of one pixel each."""
    return jax.vmap(jax.grad(lambda t, x: ContinuousBernoulliPixels(t[None, None, None, None]).log_prob(x)[0]))(
        t, x[:, None, None, None, None]
    )


def test_continuous_bernoulli_gradients_are_right_on_both_branches_and_at_one_half():
    """d/dt log p = x - mean(t), in closed form; against finite differences of the float64 definition."""
    t = f32([-30.0, -2.0, -1.99, -0.3, -1e-4, 0.0, 1e-4, 0.3, 1.99, 2.0, 2.01, 30.0])
    got = np.asarray(slope_at(t, jnp.full_like(t, 0.3)))
    np.testing.assert_allclose(got, 0.3 - np.ravel(mean(ContinuousBernoulliPixels(pixel(*t)))), rtol=2e-4, atol=2e-6)
    h = 1e-4
    for logit, slope in zip(np.asarray(t, np.float64), got):
        if 0.1 < abs(logit) < 10:
            want = (continuous_bernoulli(logit + h, 0.3) - continuous_bernoulli(logit - h, 0.3)) / (2 * h)
            np.testing.assert_allclose(slope, want, rtol=1e-4, atol=1e-6)
    # Around 1/2: log p = (x - 1/2) t - t^2 / 24 + O(t^4), so the slope at t is x - 1/2 - t / 12.
    t = f32([0.0, 1e-3, -1e-3, 0.05])
    np.testing.assert_allclose(slope_at(t, jnp.full_like(t, 0.5)), -t / 12, rtol=1e-3, atol=1e-9)


def test_continuous_bernoulli_sample_and_ends():
    n = 20_000
    for logit in (-8.0, -0.01, 0.0, 3.0):
        drawn = np.ravel(draws(constant(ContinuousBernoulliPixels, logit)(n), n))
        cdf = np.expm1 if logit else None
        want = (lambda x, t=logit: np.expm1(t * x) / np.expm1(t)) if cdf else (lambda x: x)
        assert stats.kstest(drawn, want).pvalue > 1e-3
    far = draws(constant(ContinuousBernoulliPixels, 1e4)(20_000))
    assert np.all((far > 0.99) & (far <= 1))


def test_log_sinhc_and_its_derivative():
    a = np.concatenate([np.linspace(-3, 3, 61), [1e4, -1e4, 1e-20, 0.999999, 1.000001]])
    with np.errstate(all="ignore"):
        far = np.abs(a) + np.log(-np.expm1(-2 * np.abs(a)) / (2 * np.abs(a)))
        want = np.where(np.abs(a) < 1e-3, a**2 / 6, far)
        slope = np.where(np.abs(a) < 1e-3, a / 3, 1 / np.tanh(a) - 1 / a)
    np.testing.assert_allclose(jax.jit(log_sinhc)(f32(a)), want, rtol=2e-5, atol=3e-7)
    np.testing.assert_allclose(jax.jit(langevin)(f32(a)), slope, rtol=1e-5, atol=3e-7)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(log_sinhc)))(f32(a)), slope, rtol=1e-5, atol=3e-7)


@pytest.mark.parametrize("name", ["laplace", "student-t", "log-cosh"])
def test_scales_are_trained_or_kept(name):
    cls = LIKELIHOODS[name]
    trained, kept = cls(init_scale=0.3), cls(init_scale=0.3, learned=False)
    assert set(trained.init_params()) == {"log_scale"}
    assert kept.init_params() == {}
    np.testing.assert_allclose(kept.build(pixel(0.0), {}, {}).log_scale, math.log(0.3), rtol=1e-6)
    np.testing.assert_allclose(trained.build(pixel(0.0), trained.init_params(), {}).log_scale, math.log(0.3), atol=0.01)
    floor = trained.build(pixel(0.0), {"log_scale": f32(-1e3)}, {})
    np.testing.assert_allclose(floor.log_scale, -6.0, rtol=1e-6)


# Discretized: every family's 256 masses.

EXTREME = [(m, s) for m in (0.0, 1.0, -1.0, 0.37, 3.0, 1e4, -1e4) for s in (-7.0, -3.0, 0.0, 4.0, 30.0, 1e4)]


def random_logistics(n=300):
    rng = np.random.default_rng(0)
    loc, log_scale = rng.normal(size=n), rng.uniform(-7, 5, size=n)
    pairs = np.concatenate([np.stack([loc, log_scale], 1), EXTREME])
    return f32(pairs[:, 0]), f32(pairs[:, 1])


def test_the_256_masses_sum_to_one_for_any_parameters():
    loc, log_scale = random_logistics()
    mass = np.exp(np.asarray(masses(jnp.arange(256.0)[:, None], loc[None], log_scale[None]), np.float64))
    np.testing.assert_allclose(mass.sum(0), 1.0, rtol=1e-5)
    assert mass[255, EXTREME.index((1e4, -7.0)) + 300] > 0.999  # a white pixel far beyond 1 is certain, not missed
    assert mass[0, EXTREME.index((-1e4, -7.0)) + 300] > 0.999


def test_masses_are_differences_of_the_distribution_function():
    rng = np.random.default_rng(1)
    loc, log_scale = f32(rng.normal(size=200) * 0.5), f32(rng.uniform(-5, 2, size=200))
    v = rng.integers(0, 256, size=200)
    m, s = np.asarray(loc, np.float64), np.exp(np.asarray(log_scale, np.float64))
    upper = np.where(v == 255, np.inf, (2 * v + 1) / 255 - 1)
    lower = np.where(v == 0, -np.inf, (2 * v - 1) / 255 - 1)
    # The upper tail from the survival function, or float64 itself would cancel.
    want = np.where(
        lower > m,
        special.expit(-(lower - m) / s) - special.expit(-(upper - m) / s),
        special.expit((upper - m) / s) - special.expit((lower - m) / s),
    )
    seen = want > 1e-290
    np.testing.assert_allclose(masses(f32(v), loc, log_scale)[seen], np.log(want[seen]), rtol=2e-5, atol=2e-5)


def test_masses_stay_finite_where_they_underflow():
    loc, log_scale = random_logistics()
    slopes = jax.jit(jax.vmap(jax.value_and_grad(log_mass, (1, 2))))
    for v in (0.0, 1.0, 128.0, 254.0, 255.0):
        values, grads = slopes(jnp.full_like(loc, v), loc, log_scale)
        assert np.all(np.isfinite(values))
        assert all(np.all(np.isfinite(g)) for g in grads)


def test_mean_level_is_the_mean_of_the_masses():
    loc, log_scale = random_logistics()
    levels = np.arange(256.0)
    mass = np.exp(np.asarray(masses(f32(levels)[:, None], loc[None], log_scale[None]), np.float64))
    np.testing.assert_allclose(jax.jit(mean_level)(loc, log_scale), levels @ mass / mass.sum(0), atol=2e-3)


def test_mode_of_a_logistic_is_its_largest_mass():
    loc, log_scale = random_logistics()
    shape = (-1, 1, 1, 1)
    mass = np.asarray(masses(jnp.arange(256.0)[:, None], loc[None], log_scale[None]))
    chosen = np.ravel(mode(LogisticPixels(loc.reshape(shape), log_scale.reshape(shape))))
    got = np.round(chosen * 255).astype(int)
    np.testing.assert_allclose(np.take_along_axis(mass, got[None], 0)[0], mass.max(0), atol=1e-4)


def families(channels: int):
    """Returns name -> one random pixel's distribution, repeated n times."""
    rng = np.random.default_rng(5)
    found = {}
    for name, options in (
        ("logistic-256", {"pixelwise": True}),
        ("logistic-mixture", {"components": 3}),
        ("logistic-mixture", {"components": 3, "coupled": False}),
        ("categorical-256", {}),
    ):
        likelihood = LIKELIHOODS[name](**options)
        out = f32(rng.normal(size=(1, 1, 1, likelihood.outputs(channels))))
        found[f"{name} {options}"] = functools.partial(
            lambda n, out, likelihood: likelihood.build(
                jnp.broadcast_to(out, (n, 1, 1, out.shape[-1])), likelihood.init_params(), {}
            ),
            out=out,
            likelihood=likelihood,
        )
    return found


@pytest.mark.parametrize("name", families(1))
def test_one_channel_sums_to_one_and_samples_have_its_masses(name):
    build = families(1)[name]
    levels = np.arange(256)
    mass = np.exp(scored(build(256), pixel(*(levels / 255))))
    np.testing.assert_allclose(mass.sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(mean(build(1))[0, 0, 0, 0], mass @ levels / 255, atol=1e-5)
    n = 20_000
    drawn = draws(build(n), n)[:, 0, 0, 0]
    seen = np.bincount(np.round(drawn * 255).astype(int), minlength=256)
    np.testing.assert_allclose(drawn, np.round(drawn * 255) / 255, atol=1e-7)
    bins = np.add.reduceat(seen, np.arange(0, 256, 8)), np.add.reduceat(mass, np.arange(0, 256, 8))
    ends = [0, 255]
    assert np.all(np.abs(seen[ends] / n - mass[ends]) < 5 * np.sqrt(mass[ends] / n) + 1e-3)
    used = bins[1] * n > 5
    assert stats.chisquare(bins[0][used], bins[1][used] / bins[1][used].sum() * bins[0][used].sum()).pvalue > 1e-3


@pytest.mark.parametrize("coupled", [True, False])
def test_two_channels_sum_to_one_and_samples_have_their_joint_moments(coupled):
    """The coupled mixture is a joint mass over (red, green): enumerated on all 65,536 pairs."""
    likelihood = LIKELIHOODS["logistic-mixture"](components=2, coupled=coupled)
    out = np.random.default_rng(6).normal(size=(1, 1, 1, likelihood.outputs(2)))
    grid = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij"), -1).reshape(-1, 1, 1, 2)

    def build(n):
        return likelihood.build(jnp.broadcast_to(f32(out), (n, 1, 1, out.shape[-1])), {}, {})

    mass = np.exp(scored(build(len(grid)), f32(grid / 255)))
    np.testing.assert_allclose(mass.sum(), 1.0, rtol=2e-5)
    x, n = grid.reshape(-1, 2) / 255, 20_000
    drawn = draws(build(n), n).reshape(n, 2)
    for want, got in ((mass @ x, drawn), (mass @ (x[:, 0] * x[:, 1]), drawn[:, 0] * drawn[:, 1])):
        np.testing.assert_allclose(got.mean(0), want, atol=4.5 * 0.4 / math.sqrt(n))
    if not coupled:
        np.testing.assert_allclose(np.ravel(mean(build(1))), mass @ x, atol=1e-5)


def test_coupled_channels_are_the_conditionals_of_pixelcnn():
    """Blue's location is loc + tanh(c1) red + tanh(c2) green in [-1, 1]; one component is a chain of conditionals."""
    likelihood = LIKELIHOODS["logistic-mixture"](components=1)
    assert likelihood.outputs(3) == 10
    assert LIKELIHOODS["logistic-mixture"](components=10).outputs(3) == 100
    rng = np.random.default_rng(7)
    loc, log_scale, c = rng.normal(size=3), rng.uniform(-2, 0, size=3), rng.normal(size=3)
    out = f32([*loc, *log_scale, 0.3, *c]).reshape(1, 1, 1, 10)
    v = np.array([10, 200, 255])
    t = 2 * v / 255 - 1
    moved = loc + np.array([0.0, np.tanh(c[0]) * t[0], np.tanh(c[1]) * t[0] + np.tanh(c[2]) * t[1]])
    floor = -7 + np.logaddexp(0, log_scale + 7)
    want = float(masses(f32(v), f32(moved), f32(floor)).sum())
    got = log_prob(likelihood.build(out, {}, {}), f32(v / 255).reshape(1, 1, 1, 3))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_mixture_mode_is_exact_for_one_component_and_near_the_best_for_more():
    rng = np.random.default_rng(8)
    for components, slack in ((1, 1e-5), (4, 0.35)):
        likelihood = LIKELIHOODS["logistic-mixture"](components=components)
        out = f32(np.repeat(rng.normal(size=(50, 1, 1, likelihood.outputs(1))), 256, 0))
        mass = scored(likelihood.build(out, {}, {}), pixel(*np.tile(np.arange(256) / 255, 50))).reshape(50, 256)
        p = likelihood.build(out[::256], {}, {})
        np.testing.assert_array_less(mass.max(1) - scored(p, mode(p)), slack)


def test_a_uniform_model_costs_eight_bits():
    x = f32(np.random.default_rng(0).integers(0, 256, (3, 4, 5, 2)) / 255)
    flat = CategoricalPixels(jnp.zeros((3, 4, 5, 2, 256)))
    np.testing.assert_allclose(-log_prob(flat, x) / (40 * math.log(2)), 8.0, rtol=1e-6)
    uniform = BetaPixels(jnp.ones((3, 4, 5, 2)), jnp.ones((3, 4, 5, 2)))
    width = LIKELIHOODS["beta"]().cell_width(256, True)
    assert width is not None
    np.testing.assert_allclose((-log_prob(uniform, x) / 40 - math.log(width)) / math.log(2), 8.0, atol=1e-5)


def test_bytes_are_read_as_their_own_level():
    """v / 255 in float32 comes back as v, for all 256: a free categorical that knows the answer pays nothing."""
    v = np.arange(256)
    x = f32(v.astype(np.float32) / np.float32(255))
    logits = 50.0 * jax.nn.one_hot(v, 256).reshape(256, 1, 1, 1, 256)
    np.testing.assert_allclose(CategoricalPixels(logits).log_prob(x.reshape(256, 1, 1, 1)), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.ravel(CategoricalPixels(logits).mode()), x, rtol=1e-6)


def test_an_extra_component_of_no_weight_changes_nothing():
    rng = np.random.default_rng(9)
    loc, scale = f32(rng.normal(size=(2, 3, 3, 1, 1))), f32(rng.uniform(-3, 0, size=(2, 3, 3, 1, 1)))
    x = f32(rng.integers(0, 256, (2, 3, 3, 1)) / 255)
    other = jnp.concatenate([loc, loc + 3], -1), jnp.concatenate([scale, scale], -1)
    logits = jnp.broadcast_to(f32([0.0, -1e4]), (2, 3, 3, 1, 2))
    mixture = LogisticMixturePixels(*other, logits, jnp.zeros((2, 3, 3, 0, 2)))
    single = LogisticPixels(loc[..., 0], scale[..., 0])
    np.testing.assert_allclose(log_prob(mixture, x), log_prob(single, x), rtol=1e-5)
    np.testing.assert_allclose(mean(mixture), mean(single), atol=1e-6)


# MS-SSIM, against loops in float64 that share nothing with the banded products.


def plain_ms_ssim(x, y, window, weights):
    offset = np.arange(window) - window // 2
    kernel = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    value = 1.0
    for scale, weight in enumerate(weights):
        ssims, contrasts = [], []
        for i in range(x.shape[0] - window + 1):
            for j in range(x.shape[1] - window + 1):
                a, b = x[i : i + window, j : j + window], y[i : i + window, j : j + window]
                ma, mb = (kernel * a).sum(), (kernel * b).sum()
                va, vb = (kernel * (a - ma) ** 2).sum(), (kernel * (b - mb) ** 2).sum()
                cs = (2 * (kernel * (a - ma) * (b - mb)).sum() + 9e-4) / (va + vb + 9e-4)
                contrasts.append(cs)
                ssims.append(cs * (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4))
        value *= np.mean(ssims if scale == len(weights) - 1 else contrasts) ** weight
        h, w = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
        x, y = ((z[:h:2, :w:2] + z[1:h:2, :w:2] + z[:h:2, 1:w:2] + z[1:h:2, 1:w:2]) / 4 for z in (x, y))
    return value


@pytest.mark.parametrize(("shape", "window", "scales"), [((8, 6), 5, 1), ((28, 28), 11, 2), ((47, 50), 11, 3)])
def test_ms_ssim_is_the_plain_loops(shape, window, scales):
    rng = np.random.default_rng(0)
    x = rng.uniform(size=shape)
    y = np.clip(x + 0.2 * rng.normal(size=shape), 0, 1)
    found = plan(*shape)
    assert (found[0], len(found[1])) == (window, scales)
    np.testing.assert_allclose(sum(found[1]), 1.0)
    np.testing.assert_allclose(np.divide(found[1], found[1][0]), np.divide(WEIGHTS[:scales], WEIGHTS[0]))
    want = plain_ms_ssim(x, y, *found)
    got = ms_ssim(f32(x)[None, ..., None], f32(y)[None, ..., None])
    np.testing.assert_allclose(got, [want], rtol=1e-4)
    rgb = ms_ssim(f32(np.stack([x, x, y], -1))[None], f32(np.stack([y, x, x], -1))[None])
    np.testing.assert_allclose(rgb, [(2 * want + 1) / 3], rtol=1e-4)


def test_ms_ssim_scales_self_similarity_and_order():
    assert [len(plan(s, s)[1]) for s in (1, 10, 11, 21, 22, 44, 88, 175, 176, 512)] == [1, 1, 1, 1, 2, 3, 4, 4, 5, 5]
    assert [plan(s, s)[0] for s in (1, 2, 7, 8, 11, 64)] == [1, 1, 7, 7, 11, 11]
    np.testing.assert_allclose(plan(200, 200)[1], np.divide(WEIGHTS, sum(WEIGHTS)))
    x = support.images(3, (28, 28, 1))["x"]
    np.testing.assert_allclose(ms_ssim(x, x), 1.0, atol=1e-5)
    noise = jax.random.normal(KEY, x.shape)
    values = [ms_ssim(x, jnp.clip(x + s * noise, 0, 1)) for s in (0.02, 0.1, 0.4)]
    assert np.all(np.diff(np.stack(values), axis=0) < 0)
    assert np.all(np.asarray(ms_ssim(x, 1 - x)) >= 0)  # negative contrast, cut


def test_ms_ssim_is_a_loss_and_no_density():
    likelihood = LIKELIHOODS["ms-ssim"](weight=0.5)
    x = support.images(2, (28, 28, 1))["x"]
    perfect = likelihood.build(jnp.log(x) - jnp.log1p(-x), {}, {})
    np.testing.assert_allclose(perfect.log_prob(x), 0.0, atol=0.05)
    blank = likelihood.build(jnp.zeros_like(x), {}, {})
    np.testing.assert_allclose(blank.log_prob(x), -0.5 * 784 * (1 - ms_ssim(x, jnp.full_like(x, 0.5))), rtol=1e-5)
    assert VAE(2, MLP((8,)), likelihood=likelihood).build(spec.images(6, 6, 1)).density is None
    assert likelihood.cell_width(256, True) is None


# Which data each takes, and where bits per dimension mean something.


def test_cell_width_is_the_likelihoods():
    wide = {n: LIKELIHOODS[n]() for n in LIKELIHOODS}
    for n in DISCRETE:
        assert wide[n].cell_width(256, False) == 1.0
        assert wide[n].cell_width(256, True) is None
        assert wide[n].cell_width(None, False) is None
    for n in ("gaussian-learned", "laplace", "student-t", "beta", "continuous-bernoulli", "logit-laplace"):
        assert wide[n].cell_width(256, True) == 1 / 256
        assert wide[n].cell_width(256, False) is None
        assert wide[n].cell_width(2, False) is None
    assert wide["bernoulli"].cell_width(2, False) == 1.0
    assert wide["bernoulli"].cell_width(256, False) is None
    assert wide["bernoulli"].cell_width(256, True) is None


def config(likelihood, tmp_path=None, **data):
    network = MLP((8,))
    return Config(steps=1, data=DataConfig(batch_size=8, **data), model=VAE(2, network, likelihood=likelihood))


@pytest.mark.parametrize("name", DISCRETE)
def test_gray_level_likelihoods_refuse_what_is_not_gray_levels(name, tmp_path):
    likelihood = LIKELIHOODS[name]()
    training.prepare(config(likelihood, name="digits"))
    with on_command_line(), pytest.raises(InputError, match=r"--data\.dequantize False"):
        training.prepare(config(likelihood, name="digits", dequantize=True))
    images = np.random.default_rng(0).uniform(size=(40, 8, 8, 1)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", images=images)
    with pytest.raises(InputError, match=f"{name} likelihood .*256 gray levels.*uint8"):
        training.prepare(config(likelihood, name="npz", source=str(tmp_path / "mine.npz")))


def test_beta_refuses_black_and_white(tmp_path):
    beta = LIKELIHOODS["beta"]()
    training.prepare(config(beta, name="digits", dequantize=True))
    with on_command_line(), pytest.raises(InputError, match=r"beta likelihood takes \(0, 1\).*--data.dequantize True"):
        training.prepare(config(beta, name="digits"))
    with pytest.raises(InputError, match=r"\(0, 1\)"):
        training.prepare(config(beta, name="digits", binarize="threshold"))
    images = np.random.default_rng(0).uniform(0.01, 0.99, size=(40, 8, 8, 1)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", images=images)
    training.prepare(config(beta, name="npz", source=str(tmp_path / "mine.npz")))


@pytest.mark.parametrize(
    ("name", "field", "value", "words"),
    [
        ("laplace", "init_scale", 0.0, "positive"),
        ("student-t", "df", 1.0, "more than 1"),
        ("beta", "min_shape", 0.0, "positive"),
        ("logit-laplace", "epsilon", 0.5, "in .0, 0.5."),
        ("logistic-256", "init_scale", -1.0, "positive"),
        ("logistic-mixture", "components", 0, "1 or more"),
        ("ms-ssim", "weight", 0.0, "positive"),
    ],
)
def test_options_out_of_range(name, field, value, words):
    likelihood = dataclasses.replace(LIKELIHOODS[name](), **{field: value})
    with pytest.raises(InputError, match=f"model.likelihood.{field}.*{words}"):
        configs.check(config(likelihood, name="digits"))


@pytest.mark.parametrize("name", NEW)
def test_ends_of_the_range_stay_finite(name):
    """Black and white pixels (the contract's images have none) at extreme outputs, and the gradient."""
    likelihood = LIKELIHOODS[name]()
    x = f32([0.0, 1.0, 1 / 255, 254 / 255]).reshape(1, 2, 2, 1)

    @jax.jit
    def looks(out, params):
        def loss(out, params):
            return likelihood.build(out, params, likelihood.init_state()).log_prob(x)[0]

        p = likelihood.build(out, params, likelihood.init_state())
        found = p.mean(), p.mode(), p.sample(jax.random.split(KEY, 1))
        return jax.value_and_grad(loss, (0, 1))(out, params), found

    params = likelihood.params_for((2, 2, 1))
    for value in (1e4, -1e4, 0.0):
        for leaf in jax.tree.leaves(looks(jnp.full((1, 2, 2, likelihood.outputs(1)), value), params)):
            assert np.all(np.isfinite(leaf)), value


def test_sech_normalizes():
    total, _ = integrate.quad(lambda t: float(np.exp(-np.log(np.cosh(t)) - math.log(math.pi))), -30, 30)
    np.testing.assert_allclose(total, 1.0, rtol=1e-8)
    np.testing.assert_allclose(alone(constant(SechPixels, 0.0, 0.0), [0.0]), -math.log(math.pi), rtol=1e-6)


@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
@pytest.mark.parametrize(("loc", "b"), [(0.3, 0.2), (-2.0, 1.0), (1.0, 3.0)])
def test_logit_laplace_is_the_density_of_a_sigmoid(epsilon, loc, b):
    build = constant(LogitLaplacePixels, loc, math.log(b), epsilon)
    # y = sigmoid(t) has the density of t over y (1 - y); x is an affine map of y.
    t = np.linspace(-5, 5, 21)
    y = special.expit(t)
    x = (y - epsilon) / (1 - 2 * epsilon)
    want = stats.laplace(loc, b).logpdf(t) - np.log(y * (1 - y)) + math.log(1 - 2 * epsilon)
    np.testing.assert_allclose(alone(build, x), want, rtol=1e-3, atol=5e-3 / b)
    # It integrates to 1 over its range, and has these mean and draws.
    t = np.linspace(-16, 16, 200_001)
    x = (special.expit(t) - epsilon) / (1 - 2 * epsilon)
    density = np.exp(stats.laplace(loc, b).logpdf(t))
    np.testing.assert_allclose(np.trapezoid(np.exp(alone(build, x)), x), np.trapezoid(density, t), atol=2e-3)
    exact = integrate.quad(lambda u: special.expit(stats.laplace(loc, b).ppf(u)), 0, 1)[0]
    exact = (exact - epsilon) / (1 - 2 * epsilon)
    np.testing.assert_allclose(np.ravel(mean(build(1))), exact, atol=2e-3)
    n = 20_000
    drawn = special.logit(np.ravel(draws(build(n), n)).astype(float) * (1 - 2 * epsilon) + epsilon)
    assert stats.kstest(drawn[np.abs(drawn) < 12], stats.laplace(loc, b).cdf).pvalue > 1e-3


def test_logit_laplace_mode_is_the_highest_point():
    x = np.linspace(-0.1249, 1.1249, 4001)
    for loc, b in ((0.3, 0.2), (-3.0, 0.6), (2.0, 1.5), (-2.0, 1.5)):
        build = constant(LogitLaplacePixels, loc, math.log(b), 0.1)
        np.testing.assert_allclose(np.ravel(mode(build(1))), x[np.argmax(alone(build, x))], atol=1e-3)


def test_logit_laplace_takes_gray_levels(tmp_path):
    # Black and white lie inside the range.
    training.prepare(config(LIKELIHOODS["logit-laplace"](), name="digits"))
