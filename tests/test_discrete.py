"""Discrete codes: Gumbel-max, the Concrete density, straight-through, divergences by enumeration, exact log p(x)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from jax.flatten_util import ravel_pytree
from scipy import integrate, stats

from vae_jax import prng, spec
from vae_jax.distributions import DiagGaussian, closed_kl, concrete
from vae_jax.distributions.categorical import IndependentBernoulli, Joint, OneHotCategorical, expected_code
from vae_jax.errors import InputError
from vae_jax.evaluation import latents
from vae_jax.evaluation.codes import Codes
from vae_jax.likelihoods import Bernoulli
from vae_jax.models import VAE
from vae_jax.networks import Linear
from vae_jax.objectives import JointCapacity, Terms
from vae_jax.posteriors import Binary, Categorical, JointPosterior
from vae_jax.priors import BernoulliPrior, JointPrior, Links, UniformCategorical
from vae_jax.runs.config import Config, check
from vae_jax.train.metrics import to_host

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the messages below are

LOGITS = np.asarray([0.5, -1.0, 2.0, 0.0])
PI = np.exp(LOGITS) / np.exp(LOGITS).sum()
N = 20_000
STEP = jnp.zeros((), jnp.int32)


def keys(n=N, seed=0):
    return prng.example_keys(jax.random.key(seed), jnp.arange(n))


def one_hot(logits, **options):
    return OneHotCategorical(jnp.asarray(logits, jnp.float32), **options)


def warm(temperature, straight=False):
    """Returns the relaxed posterior of N examples with the logits above."""
    tiled = jnp.broadcast_to(jnp.asarray(LOGITS, jnp.float32), (N, 1, 4))
    return OneHotCategorical(tiled, jnp.asarray(temperature, jnp.float32), straight)


def links(code_dim, blocks):
    return Links(code_dim, (2, 2, 1), lambda images: None, blocks=blocks)


# --- relaxation ---


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 10.0])
def test_argmax_has_the_distribution_at_every_temperature(temperature):
    """Gumbel-max: P(argmax = i) = pi_i, by chi-square; the same codes whatever the temperature."""
    z = np.asarray(jax.jit(lambda q, k: q.sample(k))(warm(temperature), keys()))
    np.testing.assert_allclose(z.sum(-1), 1, rtol=1e-5)
    counts = np.bincount(z.argmax(-1), minlength=4)
    assert stats.chisquare(counts, N * PI).pvalue > 1e-3
    exact = OneHotCategorical(warm(1.0).logits).sample(keys())
    np.testing.assert_array_equal(z.argmax(-1), np.argmax(exact, -1))


def test_exact_binary_samples_have_their_probability():
    logits = jnp.asarray([-2.0, 0.3, 4.0])
    for temperature in (None, jnp.asarray(0.7)):
        q = IndependentBernoulli(jnp.broadcast_to(logits, (N, 3)), temperature)
        rates = np.mean(np.asarray(q.sample(keys())) > 0.5, 0)
        p = np.asarray(jax.nn.sigmoid(logits))
        assert np.all(np.abs(rates - p) < 4.5 * np.sqrt(p * (1 - p) / N))


def test_limits_of_the_temperature():
    """One-hot as it falls to 0, flat as it grows."""
    cold, hot = warm(1e-3).sample(keys()), warm(1e4).sample(keys())
    assert np.mean(np.max(cold, -1) > 0.999) > 0.99
    np.testing.assert_allclose(hot, 0.25, atol=2e-3)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_concrete_density_integrates_to_one(temperature):
    """Over the simplex: K = 2 and K = 3 by quadrature, and K = 2 is the binary density of the difference of logits."""

    @jax.jit
    def density(*y):
        y = jnp.stack(y, -1)
        logits = jnp.asarray(LOGITS[: y.shape[-1]], jnp.float32)
        return jnp.exp(concrete.concrete_log_prob(y, logits[None], temperature))

    # In u with y = sigmoid(u) the edges are no trouble: both parts of y are given, neither is 1 minus the other.
    u = np.linspace(-40, 40, 4001)
    y, rest = 1 / (1 + np.exp(-u)), 1 / (1 + np.exp(u))
    two = np.asarray(density(jnp.asarray(y, jnp.float32), jnp.asarray(rest, jnp.float32)), np.float64)
    np.testing.assert_allclose(np.trapezoid(two * y * rest, u), 1, rtol=1e-3)
    binary = np.exp(concrete.binary_concrete_log_prob(jnp.asarray(y[1700:2300]), LOGITS[0] - LOGITS[1], temperature))
    np.testing.assert_allclose(binary, two[1700:2300], rtol=2e-3)

    # y = (a, (1 - a) b, (1 - a)(1 - b)), da db (1 - a), each through a sigmoid.
    v = np.linspace(-25, 25, 501)
    a, b = np.meshgrid(v, v, indexing="ij")
    s, r = (lambda t: 1 / (1 + np.exp(-t))), (lambda t: 1 / (1 + np.exp(t)))
    parts = [jnp.asarray(p.ravel(), jnp.float32) for p in (s(a), r(a) * s(b), r(a) * r(b))]
    three = np.asarray(density(*parts)).reshape(a.shape) * r(a) * s(a) * r(a) * s(b) * r(b)
    np.testing.assert_allclose(integrate.trapezoid(integrate.trapezoid(three, v), v), 1, rtol=1e-3)


def test_relaxed_samples_follow_the_concrete_density():
    """Binary: P(y < c) = sigmoid(t logit(c) - l), by Kolmogorov-Smirnov; one-hot: E of a function by quadrature."""
    q = IndependentBernoulli(jnp.full((N, 1), 0.8), jnp.asarray(0.6))
    y = np.asarray(q.sample(keys()), np.float64)[:, 0]
    assert stats.kstest(y, lambda c: stats.logistic.cdf(0.6 * (np.log(c) - np.log1p(-c)) - 0.8)).pvalue > 1e-3

    pair = OneHotCategorical(jnp.broadcast_to(jnp.asarray([0.8, 0.0]), (N, 1, 2)), jnp.asarray(0.6)).sample(
        keys(seed=1)
    )
    assert stats.ks_2samp(np.asarray(pair)[:, 0], y).pvalue > 1e-3


def test_straight_through_is_one_hot_forwards_and_soft_backwards():
    key, direction = keys(50), jax.random.normal(jax.random.key(9), (50, 4))

    def sample(logits, straight):
        return OneHotCategorical(logits, jnp.asarray(0.7), straight).sample(key)

    logits = jnp.broadcast_to(jnp.asarray(LOGITS, jnp.float32), (50, 1, 4))
    hard, back_hard = jax.vjp(lambda l: sample(l, True), logits)
    soft, back_soft = jax.vjp(lambda l: sample(l, False), logits)
    np.testing.assert_array_equal(hard, np.eye(4)[np.argmax(soft, -1)])
    np.testing.assert_array_equal(back_hard(direction)[0], back_soft(direction)[0])
    # The soft Jacobian is (diag(y) - y y^T) / t.
    want = np.asarray(soft * (direction - jnp.sum(soft * direction, -1, keepdims=True)) / 0.7)
    np.testing.assert_allclose(back_soft(direction)[0][:, 0], want, rtol=1e-3, atol=1e-5)

    def binary(logits, straight):
        return IndependentBernoulli(logits, jnp.asarray(0.7), straight).sample(key)

    hard, back_hard = jax.vjp(lambda l: binary(l, True), logits[:, 0])
    soft, back_soft = jax.vjp(lambda l: binary(l, False), logits[:, 0])
    np.testing.assert_array_equal(hard, np.asarray(soft) > 0.5)
    np.testing.assert_array_equal(back_hard(direction)[0], back_soft(direction)[0])


def test_temperature_falls_exponentially_then_stays():
    posterior = Categorical(temperature=2.0, final_temperature=0.5, anneal_steps=100, categories=2)

    def at(step):
        return posterior.build({}, jnp.zeros((1, 4)), jnp.asarray(step), True).temperature

    np.testing.assert_allclose([at(s) for s in (0, 50, 100, 1000)], [2.0, 1.0, 0.5, 0.5], rtol=1e-5)
    assert posterior.build({}, jnp.zeros((1, 4)), jnp.asarray(0), False).temperature is None
    assert (
        dataclasses.replace(posterior, relaxation="none").build({}, jnp.zeros((1, 4)), STEP, True).temperature is None
    )


def test_evaluation_is_exact_whatever_the_relaxation():
    out = jax.random.normal(jax.random.key(0), (200, 6))
    for posterior in (Categorical(categories=3), Binary(), JointPosterior("gumbel", categories=(2,))):
        for relaxation in ("gumbel", "straight-through", "none"):
            q = dataclasses.replace(posterior, relaxation=relaxation).build({}, out, STEP, False)
            z = np.asarray(q.sample(keys(200)))[:, -2:] if isinstance(q, Joint) else np.asarray(q.sample(keys(200)))
            assert set(np.unique(z)) == {0.0, 1.0}
    soft = np.asarray(Categorical(categories=3).build({}, out, STEP, True).sample(keys(200)))
    assert np.any((soft > 0.01) & (soft < 0.99))


# --- masses and divergences ---


def every_code(sizes):
    """Returns every one-hot code of variables of these sizes [N, sum(sizes)]."""
    index = np.stack(np.meshgrid(*[np.arange(k) for k in sizes], indexing="ij"), -1).reshape(-1, len(sizes))
    rows = [np.concatenate([np.eye(k)[i] for k, i in zip(sizes, row, strict=True)]) for row in index]
    return jnp.asarray(np.asarray(rows), jnp.float32)


def test_masses_sum_to_one_and_are_those_of_scipy():
    logits = jax.random.normal(jax.random.key(0), (1, 2, 3)) * 2
    z = every_code((3, 3))
    log_p = OneHotCategorical(logits).log_prob(z)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-5)
    p = np.asarray(jax.nn.softmax(logits))[0]
    want = [math.log(p[0, i] * p[1, j]) for i in range(3) for j in range(3)]
    np.testing.assert_allclose(log_p, want, rtol=1e-5)

    bits = jnp.asarray(np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 3), jnp.float32)
    q = IndependentBernoulli(logits[:, 0])
    np.testing.assert_allclose(np.exp(q.log_prob(bits)).sum(), 1, rtol=1e-5)
    want = stats.bernoulli.logpmf(np.asarray(bits), np.asarray(jax.nn.sigmoid(logits[0, 0]))).sum(-1)
    np.testing.assert_allclose(q.log_prob(bits), want, rtol=1e-5)


def test_divergences_are_the_sums_over_all_codes():
    """By variable; to the uniform prior ln K - H(q), 0 for equal distributions."""
    q_logits = 2 * jax.random.normal(jax.random.key(0), (5, 2, 3))
    q, z = OneHotCategorical(q_logits), every_code((3, 3))
    p = UniformCategorical().distribution({}, {}, links(6, (3, 3)))
    got = closed_kl(q, p)
    assert got is not None
    assert got.shape == (5, 2)
    pi = np.asarray(jax.nn.softmax(q_logits))
    np.testing.assert_allclose(got, math.log(3) + (pi * np.log(pi)).sum(-1), rtol=1e-4)
    log_q = np.stack([q.log_prob(jnp.tile(c, (5, 1))) for c in z])
    np.testing.assert_allclose(
        got.sum(-1), (np.exp(log_q) * (log_q - np.asarray(p.log_prob(z))[:, None])).sum(0), rtol=1e-4
    )
    other = OneHotCategorical(jax.random.normal(jax.random.key(1), (1, 2, 3)))
    r = np.asarray(jax.nn.softmax(other.logits))
    np.testing.assert_allclose(closed_kl(q, other), (pi * np.log(pi / r)).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(closed_kl(q, q), 0, atol=1e-6)

    for p_one in (0.5, 0.1):
        b = IndependentBernoulli(q_logits[:, 0])
        p = BernoulliPrior(p_one).distribution({}, {}, links(3, (1, 1, 1)))
        s = np.asarray(jax.nn.sigmoid(b.logits), np.float64)
        want = s * np.log(s / p_one) + (1 - s) * np.log((1 - s) / (1 - p_one))
        np.testing.assert_allclose(closed_kl(b, p), want, rtol=1e-4, atol=1e-6)


def test_joint_is_the_sum_of_its_parts():
    """z is the real variables and then each one-hot vector; KL by variable in the same order."""
    out = jax.random.normal(jax.random.key(0), (6, 2 * 2 + 3 + 4))
    posterior = JointPosterior(categories=(3, 4))
    assert posterior.outputs(2) == 11
    assert posterior.code_dim(2) == 9
    assert posterior.blocks(2) == (1, 1, 3, 4)
    q = posterior.build({}, out, STEP, False)
    z, log_q = q.sample_and_log_prob(keys(6))
    gaussian = DiagGaussian(out[:, :2], out[:, 2:4])
    first, second = OneHotCategorical(out[:, None, 4:7]), OneHotCategorical(out[:, None, 7:])
    want = gaussian.log_prob(z[:, :2]) + first.log_prob(z[:, 2:5]) + second.log_prob(z[:, 5:])
    np.testing.assert_allclose(log_q, want, rtol=1e-5)
    np.testing.assert_array_equal(z[:, 2:5].sum(-1), 1)
    np.testing.assert_array_equal(q.mode(), jnp.concatenate([out[:, :2], first.mode(), second.mode()], -1))
    p = JointPrior().distribution({}, {}, links(9, (1, 1, 3, 4)))
    kl = closed_kl(q, p)
    uniform = [
        math.log(k) - stats.entropy(np.asarray(jax.nn.softmax(part.logits[:, 0])).T)
        for k, part in ((3, first), (4, second))
    ]
    normal = closed_kl(gaussian, DiagGaussian(jnp.zeros((1, 2)), jnp.zeros((1, 2))))
    np.testing.assert_allclose(kl, np.concatenate([normal, np.stack(uniform, -1)], -1), rtol=1e-4, atol=1e-6)
    # The two parts of z have noise of their own.
    same = jnp.zeros((N, 4 + 2 + 2))
    z = np.asarray(JointPosterior(categories=(2, 2)).build({}, same, STEP, False).sample(keys()))
    assert np.max(np.abs(np.corrcoef(z[:, [0, 1, 2, 4]].T) - np.eye(4))) < 4.5 / math.sqrt(N)


@pytest.mark.parametrize("value", [1e4, -1e4, 0.0])
def test_extreme_outputs_are_finite_with_finite_gradients(value):
    sign = jnp.asarray([1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
    for posterior, prior, blocks in (
        (Categorical(categories=3), UniformCategorical(), (3, 3)),
        (Categorical("straight-through", categories=3), UniformCategorical(), (3, 3)),
        (Binary(), BernoulliPrior(0.01), (1,) * 6),
        (Binary("straight-through"), BernoulliPrior(), (1,) * 6),
    ):

        def numbers(out, posterior=posterior, prior=prior, blocks=blocks):
            q = posterior.build({}, out, STEP, True)
            p = prior.distribution({}, {}, links(6, blocks))
            z, log_q = q.sample_and_log_prob(keys(2))
            kl = closed_kl(q, p)
            assert kl is not None
            return jnp.sum(z) + jnp.sum(log_q) + jnp.sum(p.log_prob(z)) + jnp.sum(kl) + jnp.sum(jnp.log(q.variance()))

        got, grad = jax.value_and_grad(numbers)(jnp.tile(value * sign, (2, 1)))
        assert np.isfinite(got)
        assert np.all(np.isfinite(grad))


def test_priors_draw_what_their_mass_says():
    z = np.asarray(UniformCategorical().sample({}, {}, jax.random.key(0), N, links(6, (3, 3))))
    counts = np.bincount(z[:, :3].argmax(-1) * 3 + z[:, 3:].argmax(-1), minlength=9)
    assert stats.chisquare(counts).pvalue > 1e-3
    prior = BernoulliPrior(0.2)
    z = np.asarray(prior.sample({}, {}, jax.random.key(0), N, links(2, (1, 1))))
    assert np.all(np.abs(z.mean(0) - 0.2) < 4.5 * math.sqrt(0.16 / N))
    np.testing.assert_allclose(
        prior.distribution({}, {}, links(2, (1, 1))).log_prob(jnp.asarray([[1.0, 0.0]])), math.log(0.16), rtol=1e-5
    )
    z = np.asarray(JointPrior().sample({}, {}, jax.random.key(0), N, links(7, (1, 1, 2, 3)), 0.5))
    np.testing.assert_allclose(z[:, :2].std(0), 0.5, rtol=0.03)
    np.testing.assert_array_equal(z[:, 2:4].sum(-1) + z[:, 4:].sum(-1), 2)
    assert stats.chisquare(z[:, 4:].sum(0)).pvalue > 1e-3


# --- whole models ---


@pytest.mark.parametrize(
    ("latents", "posterior", "prior"),
    [(2, Categorical(categories=3), UniformCategorical()), (3, Binary(), BernoulliPrior(0.3))],
    ids=["categorical", "binary"],
)
def test_importance_bound_reaches_the_exact_log_p(latents, posterior, prior):
    """log p(x) = log sum_z p(z) p(x|z) over all codes, and ELBO = log p(x) - KL(q || p(z|x)) on average."""
    shape, b = (2, 2, 1), 3
    model = VAE(latents, Linear(), Bernoulli(), posterior=posterior, prior=prior).build(spec.images(*shape))
    batch = {"x": jnp.asarray(np.random.default_rng(0).integers(0, 2, (b, *shape)), jnp.float32)}
    params, state = model.init(jax.random.key(0), batch)
    flat, back = ravel_pytree(params)
    params = back(jax.random.normal(jax.random.key(1), flat.shape))
    sizes = (3, 3) if latents == 2 else (2, 2, 2)
    z = every_code(sizes)
    if latents == 3:
        z = z[:, 1::2]
    p = prior.distribution({}, {}, links(z.shape[-1], posterior.blocks(latents)))
    log_p_z = np.asarray(p.log_prob(z), np.float64)
    log_p_x = np.stack([model.decode(params, state, jnp.tile(c, (b, 1))).log_prob(batch["x"]) for c in z])
    log_p = np.logaddexp.reduce(log_p_z[:, None] + log_p_x, axis=0)
    ctx = support.context(model, b, train=False)
    bound = functools.partial(model.density.bound, ctx=ctx)
    big = jax.jit(functools.partial(bound, k=20_000))(params, state, jax.random.key(2), batch)
    np.testing.assert_allclose(big, log_p, atol=0.03)
    few = jax.jit(jax.vmap(lambda key: bound(params, state, key, batch, k=3)))(jax.random.split(jax.random.key(3), 500))
    assert np.all(np.mean(few, 0) < log_p + 4 * np.std(few, 0) / math.sqrt(500))

    q = model.encode(params, state, None, batch).posterior
    log_q = np.stack([q.log_prob(jnp.tile(c, (b, 1))) for c in z])
    elbo = (np.exp(log_q) * (log_p_z[:, None] + log_p_x - log_q)).sum(0)
    terms = jax.jit(jax.vmap(lambda key: model.terms(params, state, key, batch, ctx)))
    got = np.asarray(terms(jax.random.split(jax.random.key(4), 2000))["elbo"])
    assert np.all(np.abs(got.mean(0) - elbo) < 4.5 * got.std(0) / math.sqrt(2000))


def joint_terms():
    out = jax.random.normal(jax.random.key(0), (4, 2 * 2 + 3))
    q = JointPosterior(categories=(3,)).build({}, out, STEP, False)
    kl = closed_kl(q, JointPrior().distribution({}, {}, links(5, (1, 1, 3))))
    assert kl is not None
    x = jnp.zeros((4, 2, 2, 1))
    return Terms(x, q.mode(), q, None, jnp.arange(4.0), jnp.sum(kl, -1), kl)


def test_joint_capacity_by_hand():
    """distortion + gamma (|KL_z - C_z| + |KL_c - C_c|), with the discrete capacity no more than ln 3."""
    terms = joint_terms()
    kl = np.asarray(terms.kl_per_dim).mean(0)
    objective = JointCapacity(gamma=7.0, capacity=6.0, discrete_capacity=50.0, capacity_steps=100)
    model = VAE(2, Linear(), posterior=JointPosterior(categories=(3,)), prior=JointPrior(), objective=objective)
    model = model.build(spec.images(2, 2, 1))
    for step, c_z, c_c in ((0, 0.0, 0.0), (1, 0.06, 0.5), (50, 3.0, math.log(3)), (1000, 6.0, math.log(3))):
        loss, metrics = objective.loss(terms, support.context(model, 4, step=step))
        want = np.arange(4) + 7 * (abs(kl[:2].sum() - c_z) + abs(kl[2] - c_c))
        np.testing.assert_allclose(loss, want, rtol=1e-5)
        np.testing.assert_allclose(
            [metrics[n] for n in ("rate_continuous", "rate_discrete", "capacity", "discrete_capacity")],
            [kl[:2].sum(), kl[2], c_z, c_c],
            rtol=1e-4,
            atol=1e-6,
        )


# --- bad input ---


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"posterior": Categorical(temperature=0.0)}, "model.posterior.temperature: 0.0 is out of range"),
        ({"posterior": Binary(final_temperature=-1.0)}, "model.posterior.final_temperature: -1.0 is out of range"),
        ({"posterior": Categorical(anneal_steps=0)}, "model.posterior.anneal_steps: 0 is out of range"),
        ({"posterior": Categorical(categories=1)}, "model.posterior.categories: 1 .* 2 or more values"),
        ({"posterior": JointPosterior(categories=(10, 1))}, "model.posterior.categories: 10 1 .* 2 or more"),
        ({"posterior": JointPosterior(categories=())}, "model.posterior.categories:"),
        ({"prior": BernoulliPrior(1.0), "posterior": Binary()}, r"model.prior.p: 1.0 .* in \(0, 1\)"),
        ({"posterior": Categorical()}, r"posterior \(categorical\) does not provide; choose --model.prior categorical"),
        (
            {"posterior": Binary(), "prior": UniformCategorical()},
            r"posterior \(bernoulli\) does not provide; choose --model.prior bernoulli",
        ),
        ({"posterior": JointPosterior()}, r"posterior \(joint\) does not provide; choose --model.prior joint"),
        ({"objective": JointCapacity()}, "joint-capacity needs real and one-hot vectors side by side"),
        (
            {"objective": JointCapacity(discrete_capacity=-1.0), "posterior": JointPosterior(), "prior": JointPrior()},
            "model.objective.discrete_capacity: -1.0 is out of range",
        ),
    ],
)
def test_refused_in_words(parts, words):
    with pytest.raises(InputError, match=words):
        check(Config(model=VAE(**parts)))


# --- what is shown of them ---


def test_walks_go_through_the_values_of_a_variable():
    """Real variables in steps of the prior; a one-hot one value after value, the others as they are."""
    rng = np.random.default_rng(0)
    mean = np.concatenate([rng.normal(size=(20, 2)), np.eye(3)[rng.integers(3, size=20)]], -1).astype(np.float32)
    codes = Codes(mean, np.zeros_like(mean), None, np.arange(20), {})
    walk = latents.walk(codes, (0.1, 0.5, 0.9), steps=5, blocks=(1, 1, 3), base=mean[3])
    np.testing.assert_array_equal(walk.dims, [2, 1, 0])
    assert walk.variables == 3
    np.testing.assert_array_equal(walk.codes[0, :, 2:], np.eye(3)[[0, 1, 2, 0, 1]])
    np.testing.assert_array_equal(walk.codes[0, :, :2], np.tile(mean[3, :2], (5, 1)))
    np.testing.assert_allclose(walk.codes[1, :, 1], np.linspace(-2.5, 2.5, 5), rtol=1e-6)
    np.testing.assert_array_equal(walk.codes[1:, :, 2:], np.tile(mean[3, 2:], (2, 5, 1)))

    hots = np.concatenate([np.eye(3)[rng.integers(3, size=20)] for _ in range(2)], -1).astype(np.float32)
    walk = latents.walk(Codes(hots, np.zeros_like(hots), None, np.arange(20), {}), (0.5, 0.1), steps=3, blocks=(3, 3))
    np.testing.assert_array_equal(walk.marks, [0, 1, 2])
    np.testing.assert_array_equal(walk.codes[1, :, 3:], np.eye(3))


def test_active_units_count_variables_by_their_probabilities():
    """The most probable value may change while the probabilities hardly do: such a variable is not active."""
    logits = jnp.asarray([[[3.0, 0.0], [0.01, 0.0]], [[0.0, 3.0], [0.0, 0.01]]])  # two images, two variables
    joint = Joint(DiagGaussian(jnp.asarray([[1.0], [1.0]]), jnp.zeros((2, 1))), (OneHotCategorical(logits),))
    for q, want in ((OneHotCategorical(logits), 1), (joint, 1), (IndependentBernoulli(logits[..., 0]), 1)):
        code = expected_code(q)
        moments = {"code_mean": jnp.mean(code, 0), "code_square": jnp.mean(code**2, 0)}
        assert to_host(moments)["active_units"] == want
        assert np.any(np.var(q.mode()[:, -2:], 0) > 0.01)
