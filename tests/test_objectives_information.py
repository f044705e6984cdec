"""Objectives that weigh what the code carries: exact decompositions, enumerated batches, known density ratios."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import spec
from vae_jax.distributions.gaussian import DiagGaussian, kl
from vae_jax.errors import InputError
from vae_jax.model import Context
from vae_jax.models import VAE
from vae_jax.objectives import (
    OBJECTIVES,
    BetaTC,
    Capacity,
    DipI,
    DipII,
    FreeBits,
    MinimumKL,
    SoftFreeBits,
    Terms,
)
from vae_jax.objectives.dip import covariance
from vae_jax.objectives.factor import permuted
from vae_jax.objectives.total_correlation import stratified_log_weights
from vae_jax.runs import config as configs

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the messages below are

N = 6


def context(objective, step=0, train=True, **hyper):
    values = {n: jnp.asarray(hyper.get(n, v), jnp.float32) for n, v in objective.hyper().items()}
    return Context(jnp.asarray(step, jnp.int32), jnp.arange(N), values, train)


def terms(z=None, posterior=None, rate=None, per_dim=None, distortion=None, **more) -> Terms:
    """Returns terms that hold what a test needs; the rest is zero or missing."""
    b = next(len(v) for v in (z, rate, per_dim, distortion) if v is not None)
    if rate is None:
        rate = jnp.zeros(b) if per_dim is None else jnp.sum(per_dim, -1)
    distortion = jnp.zeros(b) if distortion is None else distortion
    return Terms(None, z, posterior, None, distortion, rate, per_dim, **more)


def posteriors(seed=0, n=N, d=2, spread=1.5) -> DiagGaussian:
    rng = np.random.default_rng(seed)
    mean, log_var = spread * rng.normal(size=(n, d)), rng.uniform(-2.0, -0.3, size=(n, d))
    return DiagGaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(log_var, jnp.float32))


def exact_information(q: DiagGaussian) -> tuple[float, float, float]:
    """Returns (MI, TC, sum of dimension-wise KL from N(0, 1)) of a two-dimensional data set, on a grid."""
    t = np.linspace(-9.0, 9.0, 721)
    cell = t[1] - t[0]
    mean, var = np.asarray(q.mean, np.float64), np.exp(np.asarray(q.log_var, np.float64))
    each = np.exp(-0.5 * (t[:, None, None] - mean) ** 2 / var) / np.sqrt(2 * np.pi * var)  # [T, N, D]
    joint = each[:, None, :, 0] * each[None, :, :, 1]  # [T, T, N]
    q_z, m0, m1 = joint.mean(-1), each[:, :, 0].mean(1), each[:, :, 1].mean(1)
    standard = np.exp(-0.5 * t**2) / np.sqrt(2 * np.pi)

    def expect(p, log_ratio, size):
        return np.sum(np.where(p > 1e-300, p * log_ratio, 0.0)) * size

    with np.errstate(divide="ignore", invalid="ignore"):
        mi = expect(joint, np.log(joint) - np.log(q_z)[..., None], cell**2) / len(mean)
        tc = expect(q_z, np.log(q_z) - np.log(m0)[:, None] - np.log(m1)[None], cell**2)
        dim = sum(expect(m, np.log(m) - np.log(standard), cell) for m in (m0, m1))
    return mi, tc, dim


def draw(q: DiagGaussian, n: int, seed=1) -> jax.Array:
    """Returns n samples for each example, [n, N, D]."""
    noise = jax.random.normal(jax.random.key(seed), (n, *q.mean.shape))
    return q.mean[None] + jnp.exp(0.5 * q.log_var)[None] * noise


def test_information_is_exact_where_the_batch_is_the_data_set():
    """E KL = MI + TC + sum_j KL_j by quadrature, and the estimators' means over draws are these numbers."""
    q = posteriors()
    mi, tc, dim = exact_information(q)
    prior = DiagGaussian(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    rate = kl(q, prior).sum(-1)
    np.testing.assert_allclose(mi + tc + dim, jnp.mean(rate), rtol=1e-5)
    assert 0 < mi < np.log(N)
    assert tc > 0.01

    o = BetaTC()

    def one(z):
        t = terms(z, q, rate, spec=spec.images(2, 2, 1, examples=N))
        return (*map(jnp.mean, o.information(t, context(o))), o.loss(t, context(o))[1])

    got_mi, got_tc, metrics = jax.jit(jax.vmap(one))(draw(q, 20_000))
    for got, want in ((got_mi, mi), (got_tc, tc), (metrics["dim_kl"], dim)):
        error = np.std(got) / np.sqrt(len(got))
        assert error < 0.01
        assert abs(np.mean(got) - want) < 4 * error
    # Without further ado they add up, draw by draw, to the rate.
    total = metrics["mi"] + metrics["tc"] + metrics["dim_kl"]
    np.testing.assert_allclose(total, jnp.mean(rate), rtol=1e-4)


def copied_weights(batch: int) -> np.ndarray:
    """Returns the log weights that are widely copied: the stride fills two columns, not the diagonal."""
    m = batch - 1
    w = np.full((batch, batch), 1.0 / m)
    w.reshape(-1)[:: m + 1] = 1.0 / N
    w.reshape(-1)[1 :: m + 1] = (N - m) / (N * m)
    w[m - 1, 0] = (N - m) / (N * m)
    return np.log(w)


def expected_ratio(log_weights, q, z, batch) -> np.ndarray:
    """Returns E[q^(z_i)] / q(z_i) for every example, over all ordered batches without replacement that hold it."""
    log_density = np.asarray(jax.vmap(lambda one: q.log_prob(jnp.broadcast_to(one, q.mean.shape)))(z), np.float64)
    exact = np.exp(log_density).mean(1)
    sums, counts = np.zeros(N), np.zeros(N)
    for chosen in itertools.permutations(range(N), batch):
        block = np.exp(log_density[np.ix_(chosen, chosen)] + log_weights)
        sums[list(chosen)] += block.sum(1)
        counts[list(chosen)] += 1
    return sums / counts / exact


@pytest.mark.parametrize("batch", [2, 3, 4, 5])
def test_stratified_weights_are_unbiased_over_all_batches(batch):
    """Enumeration of every batch: E[q^(z)] = q(z) for each sample; the weights in common use miss it."""
    q = posteriors(3)
    z = draw(q, 1)[0]
    log_w = np.asarray(stratified_log_weights(jnp.arange(batch), batch, N), np.float64)
    np.testing.assert_allclose(np.exp(log_w).sum(1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(expected_ratio(log_w, q, z, batch), 1.0, rtol=1e-5)
    if batch > 2:
        assert np.max(np.abs(expected_ratio(copied_weights(batch), q, z, batch) - 1.0)) > 0.02
    # Weighted sampling is low by as much as the data set is large.
    weighted = np.full((batch, batch), -np.log(N * batch))
    assert np.all(expected_ratio(weighted, q, z, batch) < 0.5)


def test_the_objective_uses_these_weights():
    """exp(log q(z|x) - MI) is q^ of the batch, by hand, for both estimators."""
    q, n = posteriors(5, n=4, d=3), 50
    z = draw(q, 1)[0]
    density = np.exp([[float(q.log_prob(jnp.broadcast_to(z[i], (4, 3)))[m]) for m in range(4)] for i in range(4)])
    w = np.full((4, 4), 1 / 3)
    for i in range(4):
        w[i, i], w[i, (i + 1) % 4] = 1 / n, (n - 3) / (n * 3)
    for estimator, weights in (("mss", w), ("mws", np.full((4, 4), 1 / (n * 4)))):
        o = BetaTC(estimator=estimator)
        mi, _ = o.information(terms(z, q, spec=spec.images(2, 2, 1, examples=n)), context(o))
        np.testing.assert_allclose(jnp.exp(q.log_prob(z) - mi), (weights * density).sum(1), rtol=1e-4)


def test_information_of_codes_far_apart():
    """MI = ln N and TC = (D - 1) ln N whatever D: a weight counted once per dimension would give D ln N."""
    n, b, d = 100, 10, 8
    mean = 1e4 * jnp.arange(b, dtype=jnp.float32)[:, None] * jnp.ones((1, d))
    q = DiagGaussian(mean, jnp.zeros((b, d)))
    o = BetaTC()

    def both(q):
        mi, tc = o.information(terms(q.mean, q, spec=spec.images(2, 2, 1, examples=n)), context(o))
        return jnp.sum(mi + tc), (mi, tc)

    grads, (mi, tc) = jax.jit(jax.grad(both, has_aux=True))(q)
    np.testing.assert_allclose(mi, np.log(n), rtol=1e-5)
    np.testing.assert_allclose(tc, (d - 1) * np.log(n), rtol=1e-5)
    assert all(np.all(np.isfinite(g)) for g in grads)


@pytest.mark.parametrize("estimator", ["mss", "mws"])
def test_mutual_information_stays_in_its_range(estimator):
    o, q = BetaTC(estimator=estimator), posteriors(7, n=32, d=5)
    z = draw(q, 200)
    mi = jax.jit(
        jax.vmap(lambda z: o.information(terms(z, q, spec=spec.images(2, 2, 1, examples=1000)), context(o))[0])
    )(z)
    bound = np.log(1000) + (np.log(32) if estimator == "mws" else 0.0)
    assert float(jnp.max(mi)) <= bound + 1e-3
    assert float(jnp.mean(mi)) > 0


def test_tc_weights_of_one_are_the_elbo():
    o, q = BetaTC(beta=1.0), posteriors(9)
    t = terms(
        draw(q, 1)[0], q, jnp.arange(6.0), distortion=10 + jnp.arange(6.0), spec=spec.images(2, 2, 1, examples=50)
    )
    np.testing.assert_allclose(o.loss(t, context(o))[0], 10 + 2 * np.arange(6.0), rtol=1e-5)
    mi, tc = o.information(t, context(o))
    heavy, metrics = o.loss(t, context(o, alpha=2.0, beta=3.0, gamma=0.5))
    np.testing.assert_allclose(heavy, t.distortion + 2 * mi + 3 * tc + 0.5 * (t.rate - mi - tc), rtol=1e-4)
    assert metrics["beta"] == 3.0


def correlated(key, n, rho=0.9):
    e = jax.random.normal(key, (n, 2))
    return jnp.stack([e[:, 0], rho * e[:, 0] + (1 - rho**2) ** 0.5 * e[:, 1]], -1)


def test_permuted_codes_keep_each_marginal_and_lose_the_joint():
    z = correlated(jax.random.key(0), 4000)
    p = permuted(jax.random.key(1), z)
    np.testing.assert_array_equal(np.sort(p, 0), np.sort(z, 0))
    assert abs(np.corrcoef(p.T)[0, 1]) < 0.06
    assert np.corrcoef(z.T)[0, 1] > 0.85


def test_dip_covariances_are_those_of_numpy():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(4, 4))
    mean = jnp.asarray(rng.normal(size=(50, 4)) @ mix + 3.0, jnp.float32)
    q = DiagGaussian(mean, jnp.asarray(rng.normal(size=(50, 4)), jnp.float32))
    want = np.cov(np.asarray(mean, np.float64).T, bias=True)
    np.testing.assert_allclose(covariance(mean), want, rtol=1e-4, atol=1e-4)
    both = want + np.diag(np.exp(np.asarray(q.log_var, np.float64)).mean(0))
    for o, cov in ((DipI(), want), (DipII(), both)):
        np.testing.assert_allclose(o.moments(terms(mean, q), context(o)), cov, rtol=1e-4, atol=1e-4)
        loss, metrics = o.loss(terms(mean, q, rate=jnp.ones(50)), context(o, lambda_od=2.0, lambda_d=3.0))
        off = np.sum((cov - np.diag(np.diag(cov))) ** 2)
        on = np.sum((np.diag(cov) - 1) ** 2)
        np.testing.assert_allclose(loss, 1 + 2 * off + 3 * on, rtol=1e-4)
        np.testing.assert_allclose(metrics["covariance_off_diagonal"], off, rtol=1e-4)


def test_free_bits_have_no_gradient_below_the_floor():
    """Batch means of KL (0.2, 1.0, 3.0) against floors of each dimension, of groups, and of all."""
    per_dim = jnp.asarray([[0.1, 0.5, 2.0], [0.3, 1.5, 4.0]])
    cases = [
        (FreeBits(free_nats=0.5), 0.5 + 1 + 3, (0, 0.5, 0.5)),
        (FreeBits(free_nats=1.5), 1.5 + 1.5 + 3, (0, 0, 0.5)),
        (FreeBits(free_nats=1.5, unit="group"), 1.5 + 3, (0, 0, 0.5)),
        (FreeBits(free_nats=1.0, unit="group"), 1.2 + 3, (0.5, 0.5, 0.5)),
        (FreeBits(free_nats=1.5, unit="group", groups=9), 1.5 + 1.5 + 3, (0, 0, 0.5)),
        (FreeBits(free_nats=4.0, unit="all"), 4.2, (0.5, 0.5, 0.5)),
        (FreeBits(free_nats=5.0, unit="all"), 5.0, (0, 0, 0)),
        (MinimumKL(target=4.0), 4.2, (0.5, 0.5, 0.5)),
        (MinimumKL(target=5.0), 5.0, (0, 0, 0)),
    ]
    for o, value, slopes in cases:

        def loss(kl, o=o):
            return jnp.mean(o.loss(terms(per_dim=kl, distortion=jnp.ones(2)), context(o))[0])

        np.testing.assert_allclose(loss(per_dim), 1 + value, rtol=1e-6)
        np.testing.assert_allclose(jax.grad(loss)(per_dim), jnp.asarray([slopes, slopes]), rtol=1e-6)


def test_soft_free_bits_hold_the_rate():
    """A model whose rate answers to gamma as 3 / gamma settles at the target, and evaluation moves nothing."""
    o = SoftFreeBits(target=8.0, speed=0.02)

    def move(state, rate, train=True):
        loss, metrics, new = o.step(terms(rate=jnp.full(4, rate)), context(o, train=train), state)
        np.testing.assert_allclose(loss, metrics["gamma"] * rate, rtol=1e-6)
        return new

    state = o.init_state()
    for _ in range(120):
        state = move(state, 3.0 / state["gamma"])
    assert 8.0 / 1.03 < 3.0 / state["gamma"] < 8.0 * 1.05 * 1.03
    assert move(state, 100.0, train=False) is state
    assert move(state, 8.2)["gamma"] == state["gamma"]
    np.testing.assert_allclose(move(state, 9.0)["gamma"], 1.02 * state["gamma"], rtol=1e-6)
    np.testing.assert_allclose(move(state, 7.0)["gamma"], state["gamma"] / 1.02, rtol=1e-6)
    assert move({"gamma": jnp.ones(())}, 100.0)["gamma"] == 1.0


def test_capacity_rises_and_holds():
    o = Capacity(gamma=10.0, capacity=4.0, capacity_steps=100)
    t = terms(rate=jnp.asarray([1.0, 2.0]), distortion=jnp.asarray([5.0, 6.0]))
    for step, target in ((0, 0.0), (50, 2.0), (100, 4.0), (999, 4.0)):
        loss, metrics = o.loss(t, context(o, step))
        np.testing.assert_allclose(loss, t.distortion + 10 * abs(1.5 - target), rtol=1e-6)
        assert metrics["capacity"] == target


def test_unknown_size_of_the_data_set_is_refused():
    with pytest.raises(InputError, match=r"number of training examples.*choose --model.objective factor"):
        VAE(3, objective=BetaTC()).build(spec.images(6, 5, 1))


@pytest.mark.parametrize(
    ("objective", "option", "value"),
    [
        ("capacity", "gamma", -1.0),
        ("capacity", "capacity", -1.0),
        ("capacity", "capacity_steps", 0),
        ("free-bits", "free_nats", -0.1),
        ("free-bits", "groups", 0),
        ("soft-free-bits", "target", -1.0),
        ("soft-free-bits", "speed", 0.0),
        ("minimum-kl", "target", float("nan")),
        ("beta-tc", "alpha", -1.0),
        ("beta-tc", "beta", -1.0),
        ("factor", "gamma", -1.0),
        ("factor", "hidden", (0,)),
        ("dip-i", "lambda_od", -1.0),
        ("dip-ii", "lambda_d", -1.0),
        ("mmd", "alpha", -0.5),
        ("mmd", "bandwidths", ()),
        ("mmd", "bandwidths", (0.0,)),
        ("wae-mmd", "lam", -1.0),
        ("wae-gan", "lam", -1.0),
        ("sliced-wae", "projections", 0),
        ("geco", "tolerance", 0.0),
        ("geco", "decay", 1.0),
        ("geco", "speed", -1.0),
        ("geco", "max_lambda", 1.0),
        ("rae-l2", "beta", -1.0),
        ("rae-gp", "lam", -1.0),
    ],
)
def test_options_out_of_range_are_named(objective, option, value):
    name = f"model.objective.{option}"
    base = configs.choose(configs.Config(), "model.objective", objective)
    with pytest.raises(InputError, match=f"^{name}: .*must be"):
        configs.check(configs.put(base, name, value))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            ("beta-tc", "categorical", "categorical", "pathwise"),
            "dimension at a time.*--model.objective elbo",
        ),
        (("beta-tc", "gaussian", "mog", "pathwise"), "KL of each latent variable"),
        (("dip-i", "joint", "joint", "pathwise"), r"dip-i needs q.*which the posterior \(joint\) does not provide"),
        (("free-bits", "gaussian", "mog", "pathwise"), "KL of each latent variable"),
        (
            ("factor", "categorical", "categorical", "pathwise"),
            r"factor needs real vectors .*posterior \(categorical\)",
        ),
        (
            ("wae-gan", "bernoulli", "bernoulli", "pathwise"),
            r"wae-gan needs real vectors .*posterior \(bernoulli\)",
        ),
        (("factor", "gaussian", "normal", "reinforce"), "choose --model.gradient pathwise"),
        (("wae-mmd", "gaussian", "normal", "stl"), "choose --model.gradient pathwise"),
        (
            ("elbo", "delta", "normal", "pathwise"),
            "choose --model.objective wae-mmd or wae-gan or sliced-wae or rae-l2",
        ),
        (("rae-l2", "gaussian", "normal", "pathwise"), "choose --model.posterior delta"),
        (("rae-l2", "delta", "mog", "pathwise"), "choose --model.prior normal"),
    ],
)
def test_what_an_objective_cannot_read_is_refused(parts, message):
    base = configs.Config()
    for option, name in zip(("objective", "posterior", "prior", "gradient"), parts, strict=True):
        base = configs.choose(base, f"model.{option}", name)
    with pytest.raises(InputError, match=message):
        configs.check(base)


def test_an_unknown_objective_gets_an_offer():
    with pytest.raises(InputError, match="did you mean 'beta-tc'"):
        configs.choose(configs.Config(), "model.objective", "beta-tcvae")
    assert all(cls.__doc__ for cls in OBJECTIVES.values())
