"""Generators of real latents: exact answers for Gaussian data, orders of the samplers, densities, statistics."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats as scipy_stats

from vae_jax import prng
from vae_jax.errors import InputError
from vae_jax.models.stage2 import Around, Choices, Diffusion, FlowMatching, diffusion, ode, statistics
from vae_jax.models.stage2.flow_matching import velocity_loss
from vae_jax.spaces import Codes, Real

# Gaussian data N(MEAN, COV), whose denoiser and velocity are known in closed form.
MEAN = np.array([0.5, -0.3, 0.1])
ROTATION = np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2 + np.eye(3))[0]
COV = ROTATION @ np.diag([1.5, 0.6, 0.3]) @ ROTATION.T
EYE = np.eye(3)
STATS = (np.array([1.0, -2.0, 0.5], np.float32), np.array([2.0, 0.5, 3.0], np.float32))
PAIR = [Diffusion(width=16, blocks=1), FlowMatching(width=16, blocks=1)]
both = pytest.mark.parametrize("generator", PAIR, ids=["diffusion", "flow-matching"])


def gaussian_denoiser(x, sigma):
    """E[x0 | x0 + sigma e = x]."""
    gain = jax.vmap(lambda s: COV @ jnp.linalg.inv(COV + s**2 * EYE))(sigma)
    return MEAN[None] + jnp.einsum("bij,bj->bi", gain, x - MEAN[None])


def gaussian_velocity(x, t):
    """E[x1 - e | (1 - t) e + t x1 = x]."""
    gain = jax.vmap(lambda s: (s * COV - (1 - s) * EYE) @ jnp.linalg.inv(s**2 * COV + (1 - s) ** 2 * EYE))(t)
    return MEAN[None] + jnp.einsum("bij,bj->bi", gain, x - t[:, None] * MEAN[None])


def exact_flow(noise, generator, low=0.0):
    """The end of the flow from noise, at noise level `low`: linear in the noise, as the data are Gaussian."""
    values, vectors = np.linalg.eigh(COV)
    x, high = np.asarray(noise, np.float64) @ vectors, getattr(generator, "sigma_max", None)
    if high is None:
        return MEAN + x * np.sqrt(values) @ vectors.T
    return MEAN + (high * x - MEAN @ vectors) * np.sqrt((values + low**2) / (values + high**2)) @ vectors.T


def as_network(generator):
    """The closed form as the network of a generator."""
    if isinstance(generator, FlowMatching):
        return gaussian_velocity

    def network(inner, time):
        sigma = jnp.exp(4 * time)
        c = diffusion.precondition(sigma)
        x = inner / c.into[:, None]
        return (gaussian_denoiser(x, sigma) - c.skip[:, None] * x) / c.out[:, None]

    return network


def trained_at_random(generator, around, key=0):
    """Parameters of which none is zero."""
    params = generator.init(jax.random.key(key), around)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(key + 1), len(leaves))
    return tree.unflatten([p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys)])


def keys(n):
    return prng.example_keys(jax.random.key(7), jnp.arange(n))


@both
def test_samples_of_the_exact_network_are_the_data(generator):
    noise = jax.random.normal(jax.random.key(0), (4096, 3))
    x = np.asarray(jax.jit(lambda e: generator.solve(as_network(generator), e, 64))(noise))
    np.testing.assert_allclose(x, exact_flow(noise, generator), atol=0.02)
    np.testing.assert_allclose(x.mean(0), MEAN, atol=0.07)
    np.testing.assert_allclose(np.cov(x.T), COV, atol=0.1)


@pytest.mark.parametrize(
    ("generator", "order"),
    [(Diffusion(), 2), (FlowMatching(), 2), (FlowMatching(method="euler"), 1)],
    ids=["edm", "heun", "euler"],
)
def test_order_of_the_samplers(generator, order):
    noise = jax.random.normal(jax.random.key(0), (64, 3))
    goal, network = exact_flow(noise, generator), as_network(generator)
    coarse, fine = (np.abs(generator.solve(network, noise, n) - goal).mean() for n in (32, 64))
    assert coarse / fine == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_order_of_the_methods(method, order):
    """dx/dt = x cos t, whose solution is x(0) e^(sin t)."""
    coarse, fine = (
        ode.integrate(lambda x, t: x * jnp.cos(t)[:, None], jnp.ones((1, 1)), jnp.linspace(0.0, 2.0, n + 1), method)
        - np.exp(np.sin(2.0))
        for n in (32, 64)
    )
    assert float(coarse[0, 0] / fine[0, 0]) == pytest.approx(2**order, rel=0.1)


@both
def test_ode_log_prob_of_the_exact_network_is_the_density(generator):
    velocity, span, scale = generator.flow(as_network(generator))
    x = np.random.default_rng(0).multivariate_normal(MEAN, COV, 16)
    log_p = jax.jit(jax.vmap(lambda k, x: ode.ode_log_prob(velocity, k, x, span, scale)))(keys(16), jnp.asarray(x))
    # What the flow makes of N(0, I): the data, up to what `sigma_max` leaves of their mean and `sigma_min` adds.
    mean = exact_flow(np.zeros(3), generator, low=0.002)
    factor = exact_flow(EYE, generator, low=0.002) - mean
    np.testing.assert_allclose(mean, MEAN, atol=0.01)
    np.testing.assert_allclose(factor.T @ factor, COV, atol=0.001)
    np.testing.assert_allclose(log_p, scipy_stats.multivariate_normal(mean, factor.T @ factor).logpdf(x), atol=1e-3)


def test_hutchinson_is_right_on_average():
    x, many = jnp.asarray(MEAN + 0.5, jnp.float32), keys(512)
    estimate = jax.jit(jax.vmap(lambda k: ode.ode_log_prob(gaussian_velocity, k, x, (1.0, 0.0), probes=2, exact=2)))(
        many
    )
    exact = scipy_stats.multivariate_normal(MEAN, COV).logpdf(x)
    error = estimate.std() / np.sqrt(512)
    assert 0.005 < error < 0.05  # it is an estimate
    assert abs(estimate.mean() - exact) < 4 * error


def test_a_solver_that_gives_up_has_no_answer():
    # dx/dt = x^2 is infinite at t = 1.
    x = jnp.ones(1)
    assert np.isnan(ode.ode_log_prob(lambda x, t: x**2, jax.random.key(0), x, (0.0, 2.0)))


@both
def test_a_new_network_is_a_gaussian_of_the_statistics(generator):
    """Its output is zero, which is the exact answer for data N(0, I)."""
    generator = dataclasses.replace(generator, blocks=0)
    around = Around(Real((3,)), stats=STATS)
    params = generator.init(jax.random.key(0), around)
    z = STATS[0][None] + STATS[1][None] * jax.random.normal(jax.random.key(1), (5, 3))
    rate = jax.jit(lambda z, stats: generator.rate(params, keys(5), z, None, around._replace(stats=stats)))(z, STATS)
    np.testing.assert_allclose(rate, -scipy_stats.norm(*STATS).logpdf(z).sum(-1), atol=1e-3)
    draw = jax.jit(lambda t: generator.sample(params, jax.random.key(2), 2048, None, around, Choices(temperature=t)))
    x, colder = draw(1.0), draw(0.5)
    np.testing.assert_allclose(x.mean(0), STATS[0], atol=0.1)
    np.testing.assert_allclose(x.std(0), STATS[1], rtol=0.05)
    np.testing.assert_allclose((np.asarray(colder) - STATS[0]) * 2, np.asarray(x) - STATS[0], atol=1e-4)


@both
def test_loss_of_a_new_network(generator):
    around = Around(Real((3,)), stats=STATS)
    params = generator.init(jax.random.key(0), around)
    z = STATS[0][None] + STATS[1][None] * jax.random.normal(jax.random.key(1), (20_000, 3))
    loss, logged = generator.loss(params, keys(20_000), z, None, around, True)
    assert loss.shape == (20_000,)
    assert logged == {}
    # The target of EDM has variance 1; x - e has 2.
    assert loss.mean() == pytest.approx(1.0 if isinstance(generator, Diffusion) else 2.0, rel=0.02)


def test_losses_are_those_of_the_papers():
    x, e = jnp.array([[1.0, 2.0]]), jnp.array([[0.5, -1.0]])
    # At t = 1/4: x_t = 3/4 e + 1/4 x, and the velocity is x - e.
    loss = velocity_loss(lambda at, t: at + t[:, None], x, jnp.array([0.25]), e)
    assert loss[0] == pytest.approx(np.mean((np.array([0.625 + 0.25, -0.25 + 0.25]) - np.array([0.5, 3.0])) ** 2))
    # At sigma = 1/2 the weight is 5.
    loss = diffusion.edm_loss(lambda at, s: at, x, jnp.array([0.5]), e)
    assert loss[0] == pytest.approx(5 * np.mean((0.5 * np.array([0.5, -1.0])) ** 2))


@pytest.mark.parametrize("sigma", [0.002, 0.5, 80.0])
def test_preconditioning_has_unit_variances(sigma):
    c = diffusion.precondition(jnp.array([sigma]))
    x, e = np.random.default_rng(0).standard_normal((2, 200_000))
    target = (x - c.skip * (x + sigma * e)) / c.out
    assert np.std(c.into * (x + sigma * e)) == pytest.approx(1.0, rel=0.01)
    assert np.std(target) == pytest.approx(1.0, rel=0.01)
    assert c.noise[0] == pytest.approx(np.log(sigma) / 4)


def test_noise_levels_run_from_the_highest_to_the_lowest():
    levels = np.asarray(diffusion.noise_levels(18, 0.002, 80.0))
    np.testing.assert_allclose(levels[[0, -1]], [80.0, 0.002], rtol=1e-5)
    np.testing.assert_allclose(np.diff(levels ** (1 / 7), 2), 0.0, atol=1e-5)
    one = diffusion.noise_levels(1, 0.002, 80.0)
    np.testing.assert_allclose(one, [80.0], rtol=1e-5)
    # One step is D itself.
    noise = jnp.array([[1.0, -1.0, 0.5]])
    np.testing.assert_allclose(
        diffusion.edm_sample(gaussian_denoiser, noise, one), gaussian_denoiser(80.0 * noise, one), rtol=1e-5
    )


def test_statistics_there_and_back():
    stats = (jnp.array([1.0, 0.0, 5.0]), jnp.array([2.0, 0.0, 1e-9]))
    z = jnp.array([[3.0, 0.0, 5.0], [-1.0, 1e-3, 5.0]])
    v = statistics.normalized(z, stats)
    np.testing.assert_allclose(v[:, 0], [1.0, -1.0])
    assert np.all(np.abs(v[:, 1:]) < 1.0)  # a dead dimension is not blown up
    np.testing.assert_allclose(statistics.denormalized(v, stats), z, rtol=1e-6)
    assert statistics.log_volume(stats) == pytest.approx(np.log(statistics.scale(stats)).sum())
    np.testing.assert_allclose(statistics.scale((stats[0], jnp.zeros(3))), 1.0)  # nothing varies at all
    np.testing.assert_allclose(statistics.normalized(z, None), z)


@both
def test_guidance(generator):
    around, cond = Around(Real((3,)), 2), jnp.eye(2)
    params = trained_at_random(generator, around)
    x, t = jnp.array([[0.3, -1.0, 0.5]] * 2), jnp.array([0.2, 0.7])
    with_cond, free, none, guided, close = (
        generator.network(params, c, around, guidance=s)(x, t)
        for c, s in ((cond, 1.0), (0 * cond, 1.0), (None, 3.0), (cond, 3.0), (cond, 1.0 + 1e-6))
    )
    assert np.abs(with_cond - free).max() > 0.01
    np.testing.assert_allclose(none, free, atol=1e-6)  # a row of zeros is no condition
    np.testing.assert_allclose(guided, free + 3.0 * (with_cond - free), atol=1e-5)
    np.testing.assert_allclose(close, with_cond, atol=1e-4)  # one pass, or two
    draw = functools.partial(generator.sample, params, jax.random.key(3), 2, around=around)
    without = draw(cond=0 * cond, choices=Choices(passes=2))
    np.testing.assert_allclose(draw(cond=cond, choices=Choices(passes=2, guidance=0.0)), without, atol=1e-3)


def test_a_sample_does_not_depend_on_how_many_there_are():
    generator, around = PAIR[1], Around(Real((3,)))
    params = trained_at_random(generator, around)
    few, more = (generator.sample(params, jax.random.key(3), n, None, around, Choices(passes=3)) for n in (2, 5))
    np.testing.assert_allclose(few, more[:2], atol=1e-5)


def test_grids_go_through_convolutions():
    """Conditioned, in bfloat16 with dropout, and with a density in float32."""
    around = Around(Real((4, 3, 2)), 2, jnp.bfloat16, (jnp.zeros(24), jnp.ones(24)))
    generator = FlowMatching(width=8, blocks=1, dropout=0.5, tolerance=1e-2)
    params = trained_at_random(generator, around)
    assert params["layer_0a"]["kernel"].shape == (3, 3, 8, 8)
    z, cond = jax.random.normal(jax.random.key(0), (2, 24)), jnp.eye(2)
    noisy, clean = jax.jit(
        lambda z: [generator.loss(params, keys(2), z, cond, around, train)[0] for train in (True, False)]
    )(z)
    assert noisy.dtype == clean.dtype == jnp.float32
    assert np.all(noisy != clean)
    rate = jax.jit(lambda z, c: generator.rate(params, keys(2), z, c, around))
    assert "bf16" not in str(jax.make_jaxpr(rate)(z, cond))
    both_ways = rate(z, cond), rate(z[::-1], cond[::-1])
    assert np.all(np.isfinite(both_ways[0]))
    # An example's density depends on no other, nor on its place.
    np.testing.assert_allclose(both_ways[1][::-1], both_ways[0], rtol=1e-5)


def test_what_cannot_be_built_is_refused(monkeypatch):
    around = Around(Real((3,)))
    with pytest.raises(
        InputError, match=r"generates real vectors, but .* indices into a codebook; choose .*transformer"
    ):
        Diffusion().check(Around(Codes((3,), codes=4)))
    with pytest.raises(InputError, match=r"sigma_min: 1.0 is not below model.generator.sigma_max, 0.5; .*: 0.0005}$"):
        Diffusion(sigma_min=1.0, sigma_max=0.5).check(around)
    Diffusion(sigma_min=0.0005, sigma_max=0.5).check(around)
    monkeypatch.setitem(__import__("sys").modules, "diffrax", None)
    with pytest.raises(InputError, match=r"needs diffrax, which is not installed; run pip install 'vae_jax\[ode\]'"):
        FlowMatching().rate(FlowMatching().init(jax.random.key(0), around), keys(2), jnp.zeros((2, 3)), None, around)


def mixture(key, n):
    """Draws of 0.7 N((2, 0), 0.3^2 I) + 0.3 N((-2, 0), 0.3^2 I)."""
    which, noise = jax.random.split(key)
    sign = jnp.where(jax.random.bernoulli(which, 0.7, (n, 1)), 1.0, -1.0)
    return jnp.concatenate([2 * sign, 0 * sign], -1) + 0.3 * jax.random.normal(noise, (n, 2))


@pytest.mark.slow
@both
def test_training_recovers_a_mixture(generator):
    generator = dataclasses.replace(generator, width=64, blocks=2)
    data = mixture(jax.random.key(0), 4096)
    around = Around(Real((2,)), stats=(data.mean(0), data.std(0)))
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, 600))
    params = generator.init(jax.random.key(1), around)

    @jax.jit
    def train(params):
        def one(held, step):
            key = prng.step_key(jax.random.key(2), step)
            z = mixture(key, 256)
            grad = jax.grad(
                lambda p: generator.loss(p, prng.example_keys(key, jnp.arange(256)), z, None, around, True)[0].mean()
            )
            change, state = optimizer.update(grad(held[0]), held[1])
            return (optax.apply_updates(held[0], change), state), None

        return jax.lax.scan(one, (params, optimizer.init(params)), jnp.arange(600))[0][0]

    params = train(params)
    z = np.asarray(generator.sample(params, jax.random.key(3), 2048, None, around, Choices()))
    right = z[:, 0] > 0
    assert right.mean() == pytest.approx(0.7, abs=0.05)
    assert z[right].mean(0) == pytest.approx([2.0, 0.0], abs=0.1)
    assert z[right].std(0) == pytest.approx([0.3, 0.3], abs=0.1)
    # The density is that of the samples: -log p of fresh data is the entropy, and a little more.
    fresh = np.asarray(mixture(jax.random.key(4), 256))
    parts = [scipy_stats.norm.logpdf(fresh, mean, 0.3).sum(-1) for mean in ([2.0, 0.0], [-2.0, 0.0])]
    exact = -np.logaddexp(np.log(0.7) + parts[0], np.log(0.3) + parts[1]).mean()
    rate = jax.jit(lambda z: generator.rate(params, keys(256), z, None, around))(jnp.asarray(fresh)).mean()
    assert -0.02 < rate - exact < 0.2
