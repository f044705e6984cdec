"""Posterior collapse: the measures of it against quadrature, and aggressive training of the encoder."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from jax.scipy.special import logsumexp
from scipy import special, stats

from vae_jax import spec, train
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.errors import InputError
from vae_jax.metrics import decompose, information, mutual_information
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import Aggressive, Elbo
from vae_jax.posteriors import Diagonal
from vae_jax.train import MeshConfig
from vae_jax.train.sharding import batch_sharding

MEANS = np.array([[-1.5, 0.3], [0.2, -0.8], [1.4, 1.1]])
STDS = np.array([[0.4, 0.9], [0.7, 0.3], [0.5, 0.6]])


def mixture(repeats: int) -> tuple[DiagGaussian, jax.Array]:
    """Returns the posteriors of three images, each there `repeats` times, and one code of each."""
    q = DiagGaussian(
        jnp.asarray(np.repeat(MEANS, repeats, 0), jnp.float32),
        jnp.asarray(np.repeat(2 * np.log(STDS), repeats, 0), jnp.float32),
    )
    return q, q.sample(jax.random.split(jax.random.key(0), 3 * repeats))


def by_quadrature() -> dict[str, float]:
    """Returns the parts of the rate of the three-component mixture under N(0, I), from integrals alone."""

    axis, step = np.linspace(-8, 8, 1601, retstep=True)
    # p_nj(v) of image n, dimension j on the axis: [3, 2, 1601]. The trapezium rule is exact to rounding for such tails.
    density = stats.norm.pdf(axis, MEANS[..., None], STDS[..., None])
    joint = np.einsum("nx,ny->xy", density[:, 0], density[:, 1]) / 3
    marginal = density.mean(0)
    entropy = step**2 * np.sum(special.entr(joint))
    entropies = step * np.sum(special.entr(marginal), -1)
    conditional = np.mean(np.sum(np.log(STDS) + 0.5 * np.log(2 * np.pi * np.e), 1))
    second = (MEANS**2 + STDS**2).mean(0)  # E z_j^2
    cross = 0.5 * second + 0.5 * np.log(2 * np.pi)  # -E log p(z_j)
    return {
        "mutual_information": entropy - conditional,
        "marginal_kl": cross.sum() - entropy,
        "total_correlation": entropies.sum() - entropy,
        "dimension_kl": cross - entropies,
        "rate": np.mean(np.sum(0.5 * (MEANS**2 + STDS**2 - 1) - np.log(STDS), 1)),
    }


def test_the_parts_of_the_rate_are_those_of_quadrature():
    """Every part within five standard errors of its integral, and the sums exact on the samples themselves."""
    q, z = mixture(1000)
    log_p = jax.scipy.stats.norm.logpdf(z)
    got, want = decompose(q, z, jnp.sum(log_p, -1), log_p), by_quadrature()
    np.testing.assert_allclose(want["mutual_information"] + want["marginal_kl"], want["rate"], rtol=1e-9)
    for name in ("rate", "mutual_information", "marginal_kl", "total_correlation"):
        part = getattr(got, name)
        assert abs(part.value - want[name]) < 5 * part.stderr, name
        assert part.stderr < 0.03
    assert got.dimension_kl is not None
    np.testing.assert_allclose(got.dimension_kl, want["dimension_kl"], atol=0.06)
    np.testing.assert_allclose(got.rate.value, got.mutual_information.value + got.marginal_kl.value, rtol=1e-6)
    np.testing.assert_allclose(
        got.marginal_kl.value, got.total_correlation.value + sum(got.dimension_kl), rtol=1e-5, atol=1e-6
    )
    alone = mutual_information(q, z)
    assert alone == got.mutual_information
    assert decompose(q, z, jnp.sum(log_p, -1)).dimension_kl is None


def test_mutual_information_has_its_bounds():
    """ln N for codes that name their image, far apart or in one dimension of many; 0 for codes that say nothing."""
    n = 50
    apart = DiagGaussian(1e3 * jnp.arange(n, dtype=jnp.float32)[:, None], jnp.zeros((n, 1)))
    z = apart.sample(jax.random.split(jax.random.key(0), n))
    assert mutual_information(apart, z).value == pytest.approx(np.log(n), rel=1e-6)
    same = DiagGaussian(jnp.zeros((n, 4)), jnp.zeros((n, 4)))
    z = same.sample(jax.random.split(jax.random.key(1), n))
    assert mutual_information(same, z).value == pytest.approx(0.0, abs=1e-5)
    # However strange the codes are: no term exceeds ln N, because q(z) >= q(z|x_n) / N.
    wild = DiagGaussian(*(1e1 * jax.random.normal(k, (n, 3)) for k in jax.random.split(jax.random.key(2))))
    z = wild.sample(jax.random.split(jax.random.key(3), n))
    assert mutual_information(wild, z).value <= np.log(n) + 1e-4


def test_the_aggregate_does_not_depend_on_the_rows_at_a_time():
    q, z = mixture(7)
    direct = logsumexp(jax.vmap(lambda one: q.log_prob(one[None]))(z), 1) - jnp.log(21)
    for rows in (0, 1, 4, 21, 100):
        np.testing.assert_allclose(information.log_aggregate(q, z, rows=rows), direct, rtol=1e-5)
    one = DiagGaussian(q.mean[:, :1], q.log_var[:, :1])
    np.testing.assert_allclose(
        information.log_aggregate_per_dim(q, z, rows=4)[:, 0],
        information.log_aggregate(one, z[:, :1]),
        rtol=1e-5,
    )


def test_one_code_an_example_is_asked_for():
    q, z = mixture(2)
    with pytest.raises(InputError, match="5 codes of 6 examples; give one code of each"):
        mutual_information(q, z[:5])
    with pytest.raises(InputError, match="give one code of each example"):
        decompose(q, z[:5], jnp.zeros(5))


# Aggressive training


SHAPE, B = (4, 5, 1), 8
CONFIG = VAE(3, MLP((16,)), objective=Aggressive(inner=3, steps=6), posterior=Diagonal(shared_variance=True))


def run(steps: int, mesh: MeshConfig | None = None, state=None):
    """Returns the states after each of some steps, the first one before any."""
    model = CONFIG.build(spec.images(*SHAPE))
    batch = support.images(B, SHAPE)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)[0]
    tx = train.make_optimizer({group: train.Optimizer(lr=1e-2) for group in shapes}, 100, model.training.gates)
    devices = train.make_mesh(mesh or MeshConfig(data=1))
    if state is None:
        state = train.init_state(model, tx, jax.random.key(1), batch, mesh=devices)
    step = train.jit_step(train.make_train_step(model, tx), state, devices)
    found = [jax.device_get(state)]
    for _ in range(steps):
        at = int(found[-1].step)
        state, _ = step(state, jax.device_put(support.images(B, SHAPE, seed=at), batch_sharding(devices)))
        found.append(jax.device_get(state))
    return found


@functools.cache
def ten_steps():
    return run(10)


def moved(a, b) -> list[bool]:
    return [bool(np.any(x != y)) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)]


def test_the_decoder_waits_while_the_encoder_learns():
    """Bit for bit: the decoder moves at updates 3 and 6, then at each; the encoder at each of them."""
    states = ten_steps()
    assert set(states[0].params["encoder"]) == {"encoder", "posterior"}  # what the posterior trains is inference too
    assert set(states[0].params["vae"]) == {"decoder"}
    for number, (a, b) in enumerate(itertools.pairwise(states), 1):
        assert all(moved(a.params["encoder"], b.params["encoder"])), number
        waits = number <= 6 and number % 3 != 0
        assert any(moved(a.params["vae"], b.params["vae"])) != waits, number
        # The moments wait as well, or the next update would be made of gradients of steps that were not made.
        assert all(moved(a.params["vae"], b.params["vae"])) != waits, number


def test_the_decoder_s_updates_are_those_of_the_steps_it_makes():
    """Its Adam counts its own updates: after ten steps it has made 2 + 4, the encoder ten."""
    state = ten_steps()[-1]
    counts = {
        jax.tree_util.keystr(path): int(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if leaf.ndim == 0
    }
    of = {group: {n for path, n in counts.items() if f"'{group}'" in path} for group in ("encoder", "vae")}
    assert of["encoder"] == {10}
    assert of["vae"] == {6, 10}  # 10 is the gate's own count of steps


def test_aggressive_training_resumes_where_it_stopped():
    """A state put down in the middle of a phase goes on to the same bits: the gate's count is part of it."""
    half = run(4)[-1]
    mesh = train.make_mesh(MeshConfig(data=1))
    again = run(6, state=jax.device_put(half, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())))
    support.assert_trees_equal(again[-1], ten_steps()[-1])


def test_aggressive_training_over_a_mesh_is_that_of_one_device():
    for got, want in zip(run(4, MeshConfig(data=8)), ten_steps(), strict=False):
        support.assert_trees_close(got.params, want.params, rtol=2e-4, atol=2e-5)


def test_the_value_is_the_elbo():
    """Only who is updated differs: the loss, its parts and all gradients are those of `elbo`."""
    batch, key = support.images(B, SHAPE), jax.random.key(2)
    aggressive, plain = (
        CONFIG.build(spec.images(*SHAPE)),
        VAE(3, MLP((16,)), objective=Elbo(), posterior=CONFIG.posterior).build(spec.images(*SHAPE)),
    )
    (params, state), (joined, _) = (m.init(jax.random.key(0), batch) for m in (aggressive, plain))
    support.assert_trees_equal(joined["vae"], params["vae"] | params["encoder"])
    ctx = support.context(plain, B)

    def gradient(model, params):
        return jax.jit(jax.value_and_grad(lambda p: model.loss(p, state, key, batch, ctx), has_aux=True))(params)

    (value, aux), grad = gradient(aggressive, params)
    (want, want_aux), want_grad = gradient(plain, joined)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    support.assert_trees_close(aux.metrics, want_aux.metrics)
    support.assert_trees_close(grad["vae"] | grad["encoder"], want_grad["vae"])
