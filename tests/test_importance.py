"""Multi-sample bounds against hand examples and the linear-Gaussian model, whose log p(x) is exact."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from jax.flatten_util import ravel_pytree
from scipy import special, stats

from vae_jax import schedules, spec
from vae_jax.errors import InputError
from vae_jax.likelihoods import Gaussian
from vae_jax.models import VAE, importance
from vae_jax.networks import MLP, Linear
from vae_jax.objectives import CIWAE, IWAE, MIWAE, PIWAE, Beta, DoublyReparameterized, Elbo, StickingTheLanding, Terms
from vae_jax.objectives.importance import log_mean_exp
from vae_jax.objectives.score import LeaveOneOut
from vae_jax.posteriors import POSTERIORS
from vae_jax.priors import PRIORS
from vae_jax.runs.config import Config, check

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the messages below are

SHAPE, STD = (2, 2, 1), 0.7
W = np.asarray([[1.0, 0.5, -0.3, 0.2], [0.0, 0.6, 0.9, -0.5]])
X = np.asarray([[0.4, -0.2, 0.9, 0.1], [1.2, 0.3, -0.7, 0.5]])
BATCH = {"x": jnp.asarray(X.reshape(-1, *SHAPE), jnp.float32)}
BOUNDS = {"iwae": IWAE(k=6), "miwae": MIWAE(m=2, k=3), "piwae": PIWAE(m=2, k=3), "ciwae": CIWAE(elbo_weight=0.3, k=6)}


def exact_log_p():
    """Returns log N(x; 0, W^T W + std^2 I) of both images."""
    return stats.multivariate_normal(np.zeros(4), W.T @ W + STD**2 * np.eye(4)).logpdf(X)


def linear(objective, gradient=None, *, scale=1.0, shift=0.0):
    """Returns (model, params): decoder W z, and the exact posterior where W has orthogonal rows.

    `scale` multiplies its variance and `shift` is added to its mean; W's rows are not orthogonal, so the diagonal
    posterior is never quite exact.
    """
    config = VAE(2, Linear(), Gaussian(STD), objective=objective)
    if gradient is not None:
        config = VAE(2, Linear(), Gaussian(STD), objective=objective, gradient=gradient)
    model = config.build(spec.images(*SHAPE))
    return model, parameters(W, scale, shift)


def parameters(w, scale=1.0, shift=0.0):
    m = w @ w.T + STD**2 * np.eye(2)
    v = np.linalg.solve(m, w)
    log_var = np.log(scale * STD**2 / np.diag(m))
    group = {
        "encoder": {
            "out": {"kernel": np.concatenate([v.T, np.zeros_like(v.T)], 1), "bias": [shift, shift, *log_var.tolist()]}
        },
        "decoder": {"out": {"kernel": w, "bias": np.zeros(4)}},
    }
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), {"vae": group}, is_leaf=lambda x: isinstance(x, list))


@functools.lru_cache(maxsize=32)
def gradients(objective, gradient=None, scale=2.0, shift=0.3, n=4000, exact=False):
    """Returns gradients of the loss for n keys: (encoder's [n, P], decoder's [n, Q])."""
    model, params = linear(objective, gradient, scale=scale, shift=shift)
    if exact:  # orthogonal rows: the diagonal posterior is p(z|x) itself
        params = parameters(np.asarray([[1.0, 0, 0, 0], [0, 0.8, 0, 0]]))
    ctx = support.context(model, 2)

    def one(key):
        grad = jax.grad(lambda p: model.loss(p, {}, key, BATCH, ctx)[0])(params)["vae"]
        return ravel_pytree(grad["encoder"])[0], ravel_pytree(grad["decoder"])[0]

    return jax.device_get(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), n)))


def scores(differences):
    """Returns the mean of each column of [n, P] in units of its standard error."""
    error = differences.std(0) / math.sqrt(len(differences))
    return differences.mean(0) / np.maximum(error, 1e-12)


# --- values ---


def hand(*w):
    """Returns the Terms of one example with these importance weights, split over the three densities."""
    log_w = jnp.log(jnp.asarray(w, jnp.float32))[:, None]
    log_p_x, log_p_z, log_q = log_w - 5.0, jnp.full_like(log_w, 2.0), jnp.full_like(log_w, -3.0)
    zero = jnp.zeros(1)
    return Terms(
        zero, zero, None, None, zero, zero, None, None, log_p_x, log_p_z, log_q, (log_p_x, log_p_z), None
    )  # fmt: skip


def hand_context(step=0):
    return support.context(linear(Elbo())[0], 1, step=step)


def test_bounds_of_the_weights_one_and_three():
    """w = (1, 3): L_2 = ln 2, the ELBO 1/2 ln 3; reported is the bound itself, never its gradient's surrogate."""
    ln2, half_ln3 = math.log(2), 0.5 * math.log(3)
    cases = [
        (IWAE(k=2), ln2, ln2),
        (MIWAE(m=2, k=1), half_ln3, half_ln3),
        (MIWAE(m=1, k=2), ln2, ln2),
        (PIWAE(m=2, k=1), ln2, ln2),
        (CIWAE(elbo_weight=1.0, k=2), half_ln3, ln2),
        (CIWAE(elbo_weight=0.25, k=2), 0.25 * half_ln3 + 0.75 * ln2, ln2),
    ]
    for objective, value, bound in cases:
        loss, metrics = objective.loss(hand(1, 3), hand_context())
        np.testing.assert_allclose(loss, [-value], rtol=1e-5, err_msg=str(objective))
        np.testing.assert_allclose(metrics["iw_bound"], bound, rtol=1e-5, err_msg=str(objective))
    _, metrics = PIWAE(m=2, k=1).loss(hand(1, 3), hand_context())
    np.testing.assert_allclose(metrics["miwae_bound"], half_ln3, rtol=1e-5)


def test_groups_of_miwae_are_consecutive_samples():
    loss, _ = MIWAE(m=2, k=2).loss(hand(1, 3, 2, 10), hand_context())
    np.testing.assert_allclose(loss, [-0.5 * (math.log(2) + math.log(6))], rtol=1e-5)


def test_mean_of_the_leave_one_out_bounds_is_never_above():
    log_w = np.random.default_rng(0).normal(0, 5, (7, 200))
    rest = np.mean([log_mean_exp(jnp.asarray(np.delete(log_w, i, 0))) for i in range(7)], 0)
    whole = np.asarray(log_mean_exp(jnp.asarray(log_w, jnp.float32)))
    np.testing.assert_allclose(whole, special.logsumexp(log_w, 0) - math.log(7), rtol=1e-4, atol=1e-5)
    assert np.all(rest <= whole + 1e-5)


def test_extreme_weights_are_finite_with_finite_gradients():
    """Weights e^10000 apart, in the bounds and in the factors of `dreg`."""
    terms = hand(1, 1, 1, 1, 1, 1)
    far = terms._replace(log_p_x=jnp.asarray([0.0, 1e4, -1e4, 3.0, -1e4, -1e4])[:, None])

    for objective in BOUNDS.values():

        def loss(log_p_x, objective=objective):
            changed = far._replace(log_p_x=log_p_x, path=(log_p_x, far.log_p_z))
            return jnp.sum(objective.loss(changed, hand_context())[0])

        value, grad = jax.value_and_grad(loss)(far.log_p_x)
        factor = objective.path_factor(far.log_p_x)
        assert np.all(np.isfinite(np.concatenate([np.ravel(value), np.ravel(grad), np.ravel(factor)])))


def test_annealing_weighs_the_kl_part_of_the_weights_and_not_the_report():
    for cls, options in ((IWAE, {"k": 2}), (MIWAE, {"m": 1, "k": 2}), (PIWAE, {"m": 1, "k": 2}), (CIWAE, {"k": 2})):
        objective = cls(schedules.Linear(10), **options)
        loss, metrics = objective.loss(hand(1, 3), hand_context(0))
        plain, _ = cls(**options).loss(hand(1, 3), hand_context(0))
        # By hand log p(x|z) is log w - 5 and log p(z) / q(z|x) is 5.
        np.testing.assert_allclose(loss, plain + 5.0, rtol=1e-5)
        np.testing.assert_allclose(objective.loss(hand(1, 3), hand_context(5))[0], plain + 2.5, rtol=1e-5)
        np.testing.assert_allclose(metrics["iw_bound"], math.log(2), rtol=1e-5)


def test_training_bound_rises_with_k_and_stays_below_log_p():
    """Means over 3000 keys. The bound of MIWAE(4, K) is that of IWAE-K on average, with less spread."""
    means, errors = {}, {}
    objectives = {"1": IWAE(k=1), "4": IWAE(k=4), "32": IWAE(k=32), "miwae": MIWAE(m=4, k=4)}
    for name, objective in objectives.items():
        model, params = linear(objective, scale=2.0, shift=0.3)
        run = jax.vmap(lambda key, m=model, p=params: m.loss(p, {}, key, BATCH, support.context(m, 2))[1].metrics)
        values = np.asarray(jax.jit(run)(jax.random.split(jax.random.key(1), 3000))["iw_bound"])
        means[name], errors[name] = values.mean(), values.std() / math.sqrt(3000)
    exact = exact_log_p().mean()
    assert means["1"] + 4 * errors["1"] < means["4"] < means["32"] - 4 * errors["32"]
    assert means["32"] < exact + 4 * errors["32"]
    assert exact - means["32"] < 0.1 * (exact - means["1"])
    assert abs(means["miwae"] - means["4"]) < 4 * (errors["miwae"] + errors["4"])
    assert errors["miwae"] < errors["4"]


# --- gradients ---


@pytest.mark.parametrize("name", BOUNDS)
def test_dreg_has_the_mean_of_the_plain_gradient(name):
    """Same draws, so the differences are compared: every encoder weight within 4.5 standard errors of no difference.

    The decoder's gradients are the very same, draw by draw, and DReG varies less.
    """
    (encoder, decoder), (want, want_decoder) = (
        gradients(BOUNDS[name], DoublyReparameterized()),
        gradients(BOUNDS[name]),
    )
    np.testing.assert_allclose(decoder, want_decoder, rtol=1e-3, atol=1e-4)
    assert np.max(np.abs(scores(encoder - want))) < 4.5
    assert encoder.var(0).sum() < want.var(0).sum()
    assert np.max(np.abs(scores(want))) > 8, "there is no gradient to agree on"


def test_sticking_the_landing_is_biased_for_several_samples_and_not_for_one():
    """For IWAE the weights w_k stand where DReG has their squares."""
    encoder, _ = gradients(IWAE(k=6), StickingTheLanding())
    want, _ = gradients(IWAE(k=6))
    assert np.max(np.abs(scores(encoder - want))) > 20
    single, _ = gradients(IWAE(k=1), StickingTheLanding())
    plain, _ = gradients(IWAE(k=1))
    assert np.max(np.abs(scores(single - plain))) < 4.5
    dreg, _ = gradients(IWAE(k=1), DoublyReparameterized())
    elbo, _ = gradients(Elbo(), StickingTheLanding())
    np.testing.assert_allclose(dreg, single, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(elbo, single, rtol=1e-4, atol=1e-4)


def test_exact_posterior_has_no_encoder_gradient_under_dreg_and_stl():
    """q = p(z|x): the path derivative of log w is 0 at every draw; the plain estimator still has variance."""
    for objective, gradient in (
        (Elbo(), StickingTheLanding()),
        (IWAE(k=6), StickingTheLanding()),
        *((bound, DoublyReparameterized()) for bound in BOUNDS.values()),
    ):
        encoder, decoder = gradients(objective, gradient, n=50, exact=True)
        assert np.max(np.abs(encoder)) < 1e-5
        assert np.max(np.abs(decoder)) > 0.1
    assert gradients(IWAE(k=6), n=50, exact=True)[0].std(0).max() > 0.05


@pytest.mark.parametrize("gradient", [None, DoublyReparameterized()])
def test_piwae_gives_each_side_its_own_bound(gradient):
    """The encoder's gradient is MIWAE(M, K)'s, the decoder's that of all M * K samples, draw by draw."""
    encoder, decoder = gradients(PIWAE(m=2, k=3), gradient, n=200)
    np.testing.assert_allclose(encoder, gradients(MIWAE(m=2, k=3), gradient, n=200)[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(decoder, gradients(IWAE(k=6), gradient, n=200)[1], rtol=1e-3, atol=1e-4)
    assert np.max(np.abs(decoder - gradients(MIWAE(m=2, k=3), gradient, n=200)[1])) > 0.01


# --- the bound at evaluation ---


def test_samples_at_once_change_no_draw(monkeypatch):
    """1, 3, 5 and 7 of 7 samples a scan step: the same bound to the last digits."""
    model, params = linear(Elbo(), scale=3.0)
    found = []
    for rows in (2, 7, 10, 10_000):
        monkeypatch.setattr(importance, "BOUND_ROWS", rows)
        bound = functools.partial(model.density.bound, ctx=support.context(model, 2, train=False), k=7)
        found.append(np.asarray(jax.jit(lambda key, f=bound: f(params, {}, key, BATCH))(jax.random.key(5))))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-6)
    fewer = model.density.bound(params, {}, jax.random.key(5), BATCH, support.context(model, 2, train=False), 6)
    assert np.all(fewer != found[0])


def test_memory_of_the_bound_is_bounded():
    """Samples at once times batch stay near 4000 small images, or as many pixels; one sample at least."""
    assert importance.samples_at_once((500, 28, 28, 1)) == 8
    assert importance.samples_at_once((500, 8, 8, 1)) == 8
    assert importance.samples_at_once((64, 64, 64, 3)) == 3
    assert importance.samples_at_once((5000, 64, 64, 3)) == 1


def test_five_thousand_samples_reach_log_p():
    model, params = linear(Elbo(), scale=2.0, shift=0.3)
    bound = jax.jit(functools.partial(model.density.bound, ctx=support.context(model, 2, train=False), k=5000))
    np.testing.assert_allclose(bound(params, {}, jax.random.key(0), BATCH), exact_log_p(), atol=0.02)


# --- bad input ---


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (IWAE(k=0), r"model.objective.k: 0 is out of range; it must be 1 or more"),
        (MIWAE(m=0), r"model.objective.m: 0 is out of range"),
        (PIWAE(k=-1), r"model.objective.k: -1 is out of range"),
        (CIWAE(elbo_weight=1.5), r"model.objective.elbo_weight: 1.5 is out of range; it must be in \[0, 1\]"),
        (CIWAE(elbo_weight=math.nan), r"model.objective.elbo_weight: nan"),
    ],
)
def test_options_out_of_range(objective, words):
    with pytest.raises(InputError, match=words):
        check(Config(model=VAE(objective=objective)))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"gradient": DoublyReparameterized()}, r"dreg needs importance weights, which the objective \(elbo\)"),
        (
            {"gradient": LeaveOneOut(), "objective": IWAE()},
            r"rloo needs a single-sample ELBO, which the objective \(iwae\)",
        ),
        (
            {"gradient": DoublyReparameterized(), "objective": IWAE(schedules.Linear())},
            r"dreg needs a KL weight that stays constant, which the objective \(iwae\)",
        ),
        (
            {"posterior": POSTERIORS["categorical"](), "prior": PRIORS["categorical"](), "objective": IWAE()},
            r"iwae needs real vectors .* which the posterior \(categorical\)",
        ),
    ],
)
def test_pairs_without_meaning(parts, words):
    with pytest.raises(InputError, match=words):
        check(Config(model=VAE(network=MLP((8,)), **parts)))
    assert check(Config(model=VAE(objective=Beta())))
