"""Objectives that match q(z) to the prior, or that weigh errors: distances by double loops, fixed points, Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import prng, spec
from vae_jax.distributions import kernels
from vae_jax.errors import InputError
from vae_jax.evaluation.needs import has_bound
from vae_jax.model import Context
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import Geco, InfoVAE, RaeGP, RaeL2, SlicedWAE, Terms, WaeGAN, WaeMMD
from vae_jax.posteriors import Delta, Diagonal

B, D = 8, 3


def context(objective, step=0, train=True, **hyper):
    values = {n: jnp.asarray(hyper.get(n, v), jnp.float32) for n, v in objective.hyper().items()}
    return Context(jnp.asarray(step, jnp.int32), jnp.arange(B), values, train)


def terms(z, prior_mean=0.0, **more) -> Terms:
    rate = more.pop("rate", jnp.zeros(len(z)))
    return Terms(
        None, z, None, None, jnp.zeros(len(z)), rate, None,
        key=jax.random.key(3),
        sample_prior=lambda key, n: prior_mean + jax.random.normal(key, (n, z.shape[-1])),
        **more,
    )  # fmt: skip


def drawn(t: Terms) -> jax.Array:
    """Returns the prior's draws that the objective sees."""
    return t.sample_prior(prng.site_key(t.key, "prior"), len(t.z))


@pytest.mark.parametrize("name", ["imq", "rbf"])
def test_mmd_is_a_double_loop(name):
    rng = np.random.default_rng(0)
    x, y, widths = rng.normal(size=(7, D)), 1 + rng.normal(size=(5, D)), (0.5, 2.0)

    def k(a, b):
        d = np.sum((a - b) ** 2)
        scales = [2 * D * s for s in widths]
        return sum(c / (c + d) if name == "imq" else np.exp(-d / c) for c in scales)

    want = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (7 * 6)
    want += sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (5 * 4)
    want -= 2 * sum(k(a, b) for a in x for b in y) / (7 * 5)
    got = kernels.mmd(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), kernels.kernel(name, D, widths))
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize("name", ["imq", "rbf"])
def test_mmd_is_unbiased(name):
    """Its mean over draws of one density is 0 within its error, and of two shifted ones it is not."""
    k = kernels.kernel(name, D, (0.5, 1.0))

    def one(key, shift):
        x, y = jax.random.normal(jax.random.fold_in(key, 0), (2, 10, D))
        return kernels.mmd(x, y + shift, k)

    values = jax.jit(jax.vmap(one, (0, None)))
    keys = jax.random.split(jax.random.key(0), 3000)
    same, apart = values(keys, 0.0), values(keys, 0.5)
    assert abs(np.mean(same)) < 3.5 * np.std(same) / np.sqrt(3000)
    assert np.mean(apart) > 10 * np.std(apart) / np.sqrt(3000)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_distances_are_finite_with_finite_gradients(scale):
    x = scale * jax.random.normal(jax.random.key(0), (B, D))
    y = jax.random.normal(jax.random.key(1), (B, D))
    ways = kernels.directions(jax.random.key(2), 5, D)
    np.testing.assert_allclose(jnp.linalg.norm(ways, axis=-1), 1.0, rtol=1e-5)
    for name in ("imq", "rbf"):
        k = kernels.kernel(name, D, (0.1, 10.0))
        value, grad = jax.jit(jax.value_and_grad(lambda x, k=k: kernels.mmd(x, y, k)))(x)
        assert np.isfinite(value)
        assert np.all(np.isfinite(grad))
    value, grad = jax.value_and_grad(lambda x: kernels.sliced_wasserstein(x, y, ways))(x)
    assert np.isfinite(value)
    assert np.all(np.isfinite(grad))


def test_squared_distances_do_not_cancel():
    x = jnp.asarray([[1000.0, 0.0]])
    np.testing.assert_allclose(kernels.squared_distances(x, x + jnp.asarray([[0.01, 0.0]])), 1e-4, rtol=0.02)


def test_sliced_distance_of_gaussians():
    """E (w.m)^2 + (s - 1)^2 for N(m, s^2 I) and N(0, I), and 0 for a permutation of the same points."""
    x, y = jax.random.normal(jax.random.key(0), (2, 4000, D))
    m = jnp.asarray([[1.0, -2.0, 0.5]])
    ways = kernels.directions(jax.random.key(1), 60, D)
    got = jax.jit(kernels.sliced_wasserstein)(m + 1.5 * x, y, ways)
    np.testing.assert_allclose(got, np.mean((ways @ m[0]) ** 2) + 0.25, rtol=0.06)
    # Uniform directions: E (w.m)^2 = |m|^2 / D.
    many = kernels.directions(jax.random.key(2), 4000, D)
    np.testing.assert_allclose(np.mean((many @ m[0]) ** 2), 5.25 / 3, rtol=0.06)
    np.testing.assert_allclose(kernels.sliced_wasserstein(x[:50], x[:50][::-1], ways), 0.0, atol=1e-9)


def test_weights_of_the_discrepancies():
    z = 2.0 + jax.random.normal(jax.random.key(0), (B, D))
    t = terms(z, rate=jnp.arange(B, dtype=jnp.float32))
    o = InfoVAE(alpha=0.25, lam=5.0)
    mmd = o.discrepancy(t, context(o))
    np.testing.assert_allclose(mmd, kernels.mmd(z, drawn(t), kernels.kernel("imq", D, o.bandwidths)), rtol=1e-6)
    np.testing.assert_allclose(o.loss(t, context(o))[0], 0.75 * t.rate + 4.25 * mmd, rtol=1e-5)
    np.testing.assert_allclose(o.loss(t, context(o, lam=2.0))[0], 0.75 * t.rate + 1.25 * mmd, rtol=1e-5)
    np.testing.assert_allclose(WaeMMD(lam=3.0).loss(t, context(WaeMMD(lam=3.0)))[0], jnp.full(B, 3 * mmd), rtol=1e-5)
    s = SlicedWAE(lam=2.0, projections=4)
    ways = kernels.directions(prng.site_key(t.key, "directions"), 4, D)
    want = 2 * kernels.sliced_wasserstein(z, drawn(t), ways)
    np.testing.assert_allclose(s.loss(t, context(s))[0], jnp.full(B, want), rtol=1e-5)


@pytest.mark.parametrize("o", [InfoVAE(alpha=1.5), InfoVAE(alpha=0.25, lam=0.5)])
def test_negative_weights_of_infovae_are_refused(o):
    with pytest.raises(InputError, match=r"model.objective.*negative weight.*choose at"):
        VAE(D, objective=o).build(spec.images(6, 5, 1))


class Pixels:
    """A decoded mean, with nothing else of a likelihood."""

    def __init__(self, mean):
        self._mean = mean

    def mean(self):
        return self._mean


def test_geco_settles_where_the_error_is_the_tolerance():
    """A model whose squared error answers as 0.04 / (1 + lambda) a pixel: lambda = 3 gives an RMS error of 0.1."""
    o = Geco(tolerance=0.1, decay=0.9, speed=0.02)
    x = jnp.zeros((B, 4, 4, 1))

    def move(state, train=True):
        error = jnp.sqrt(0.04 / (1 + jnp.exp(state["log_lambda"])))
        t = Terms(x, None, None, Pixels(x + error), jnp.full(B, 9.0), jnp.full(B, 2.0), None)
        return o.step(t, context(o, train=train), state)

    state, _ = jax.jit(lambda s: jax.lax.scan(lambda s, _: (move(s)[2], None), s, None, length=3000))(o.init_state())
    loss, metrics, same = move(state, train=False)
    np.testing.assert_allclose(metrics["lambda"], 3.0, rtol=1e-3)
    np.testing.assert_allclose(metrics["violation"], 0.0, atol=1e-3)
    assert same is state
    np.testing.assert_allclose(loss, 2.0, atol=1e-2)
    # The loss in full, away from the fixed point: rate + lambda (16 e^2 - 16 tolerance^2).
    start = o.init_state()
    np.testing.assert_allclose(move(start)[0], 2 + 16 * (0.02 - 0.01), rtol=1e-5)
    # The first update is by the first violation: 0.02 / 0.01 - 1, at its limit of 1.
    np.testing.assert_allclose(move(start)[2]["log_lambda"], 0.02, rtol=1e-5)


def test_geco_keeps_lambda_in_bounds():
    o = Geco(tolerance=1e-3, speed=1.0, max_lambda=10.0)
    x = jnp.zeros((B, 2, 2, 1))
    for mean, limit in ((x + 0.9, 10.0), (x, 0.1)):
        state = o.init_state()
        for _ in range(5):
            t = Terms(x, None, None, Pixels(mean), jnp.zeros(B), jnp.zeros(B), None)
            state = o.step(t, context(o), state)[2]
        np.testing.assert_allclose(jnp.exp(state["log_lambda"]), limit, rtol=1e-5)


def test_rae_penalties_of_a_linear_decoder():
    """beta |z|^2 / 2 by hand; the Jacobian's estimate averages to |W|_F^2 / 2 and differs between examples."""
    z = jax.random.normal(jax.random.key(0), (B, D))
    w = jax.random.normal(jax.random.key(1), (D, 12))
    x = jnp.zeros((B, 4, 3, 1))
    t = Terms(x, z, None, None, jnp.ones(B), jnp.zeros(B), None, decode=lambda z: Pixels((z @ w).reshape(-1, 4, 3, 1)))
    plain = 1 + 0.5 * 0.3 * jnp.sum(z**2, -1)
    np.testing.assert_allclose(RaeL2(beta=0.3).loss(t, context(RaeL2(beta=0.3)))[0], plain, rtol=1e-6)
    o = RaeGP(beta=0.3, lam=2.0)

    def penalty(key):
        return (o.loss(t._replace(key=key), context(o))[0] - plain) / 2.0

    each = jax.jit(jax.vmap(penalty))(jax.random.split(jax.random.key(2), 2000))
    error = np.std(each.mean(1)) / np.sqrt(2000)
    assert abs(float(jnp.mean(each)) - 0.5 * float(jnp.sum(w**2))) < 4 * error
    assert len(np.unique(each[0])) == B


def test_rae_gp_smooths_the_decoder():
    """The penalty's gradient reaches the decoder: its derivative by the weights is lam W, on average."""
    w = jax.random.normal(jax.random.key(1), (D, 12))
    z, o = jnp.zeros((B, D)), RaeGP(beta=0.0, lam=1.0)

    def loss(w, key):
        decode = lambda z: Pixels((z @ w).reshape(-1, 4, 3, 1))  # noqa: E731
        t = Terms(jnp.zeros((B, 4, 3, 1)), z, None, None, jnp.zeros(B), jnp.zeros(B), None, key=key, decode=decode)
        return jnp.mean(o.loss(t, context(o))[0])

    grads = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(w, jax.random.split(jax.random.key(2), 4000))
    np.testing.assert_allclose(jnp.mean(grads, 0), w, atol=0.15)


def test_point_codes():
    """The code is the encoder's output; what is matched to the prior can be sampled, the others cannot."""
    q = Delta().build({}, jnp.ones((B, D)), jnp.zeros((), jnp.int32), True)
    np.testing.assert_array_equal(q.sample(jax.random.split(jax.random.key(0), B)), q.mode())
    np.testing.assert_array_equal(q.variance(), 0)
    for density in (lambda: q.log_prob(q.mode()), lambda: q.sample_and_log_prob(jax.random.key(0))):
        with pytest.raises(TypeError, match="no density"):
            density()
    for objective, posterior, sampled in (
        (WaeMMD(), Delta(), True),
        (WaeGAN(), Delta(), True),
        (SlicedWAE(), Diagonal(), True),
        (RaeL2(), Delta(), False),
    ):
        model = VAE(D, MLP((8,)), objective=objective, posterior=posterior).build(spec.images(6, 5, 1, examples=10))
        assert (model.prior is not None) == sampled
        assert (not has_bound(model)) == posterior.deterministic
