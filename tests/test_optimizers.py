"""Update rules, clipping, decay, learning-rate schedules and the separation of parameter groups."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import support

from vae_jax.train import LearningRate, Optimizer, make_optimizer
from vae_jax.train.optimizers import decay_mask

RULES = ("adam", "adamw", "adamax", "rmsprop", "sgd")


def params(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 4), "bias": (4,), "log_std": ()}
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def run(config, grads, start=None):
    """Returns params after one update for each gradient, and the last update."""
    tree = {"vae": params() if start is None else start}
    tx = make_optimizer({"vae": config}, 100)
    state = tx.init(tree)
    for grad in grads:
        updates, state = tx.update({"vae": grad}, state, tree)
        tree = optax.apply_updates(tree, updates)
    return tree["vae"], updates["vae"]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_goes_downhill(name):
    """On a quadratic, 200 steps of any rule bring the loss down a hundredfold."""
    tree, tx = {"vae": params()}, make_optimizer({"vae": Optimizer(name, lr=0.03)}, 200)

    def loss(p):
        return sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(p))

    @jax.jit
    def descend(tree):
        def body(carry, _):
            tree, state = carry
            updates, state = tx.update(jax.grad(loss)(tree), state, tree)
            return (optax.apply_updates(tree, updates), state), None

        return jax.lax.scan(body, (tree, tx.init(tree)), None, length=200)[0][0]

    assert loss(descend(tree)) < 0.01 * loss(tree)


@pytest.mark.parametrize("name", RULES)
def test_rules_are_optax_rules(name):
    """Five updates with gradients of very different sizes."""
    b1, b2, eps, lr = 0.8, 0.95, 1e-6, 0.1
    want_tx = {
        "adam": optax.adam(lr, b1, b2, eps),
        "adamw": optax.adamw(lr, b1, b2, eps, weight_decay=0.0),
        "adamax": optax.adamax(lr, b1, b2, eps),
        "rmsprop": optax.chain(optax.scale_by_rms(b2, eps), optax.trace(b1), optax.scale(-lr)),
        "sgd": optax.sgd(lr, b1),
    }[name]
    grads = [jax.tree.map(lambda x, s=s: x * s, params(i)) for i, s in enumerate((1.0, 1e3, 1e-4, 0.0, 10.0))]
    want, state = params(), want_tx.init(params())
    for grad in grads:
        updates, state = want_tx.update(grad, state, want)
        want = optax.apply_updates(want, updates)
    got, _ = run(Optimizer(name, lr=lr, b1=b1, b2=b2, eps=eps), grads)
    support.assert_trees_close(got, want, rtol=1e-5, atol=1e-6)


def test_adam_by_hand():
    """The first step is lr in the direction of -sign(g) when eps is negligible; eps counts as Kingma & Ba's."""
    start = {"w": jnp.asarray([1.0, 1.0, 1.0])}
    grad = {"w": jnp.asarray([1e-4, -3.0, 0.0])}
    got, _ = run(Optimizer(lr=0.1, eps=1e-12), [grad], start)
    np.testing.assert_allclose(got["w"], [0.9, 1.1, 1.0], rtol=1e-5)
    got, _ = run(Optimizer(lr=0.1, eps=1e-4), [grad], start)
    np.testing.assert_allclose(got["w"][0], 0.95, rtol=1e-5)


def test_clip_bounds_the_norm_of_the_group():
    plain = Optimizer("sgd", lr=1.0, b1=0.0)
    clipped = Optimizer("sgd", lr=1.0, b1=0.0, clip=0.5)
    grad = params(1)
    _, update = run(clipped, [grad])
    np.testing.assert_allclose(optax.global_norm(update), 0.5, rtol=1e-5)
    norm = optax.global_norm(grad)
    support.assert_trees_close(update, jax.tree.map(lambda g: -0.5 * g / norm, grad))
    small = jax.tree.map(lambda g: 0.4 * g / norm, grad)
    support.assert_trees_close(run(clipped, [small])[1], run(plain, [small])[1])


@pytest.mark.parametrize("name", RULES)
def test_decay_spares_biases(name):
    zero = jax.tree.map(jnp.zeros_like, params())
    start = params()
    got, _ = run(Optimizer(name, lr=0.1, b1=0.0, weight_decay=0.01), [zero])
    np.testing.assert_array_equal(got["bias"], start["bias"])
    np.testing.assert_array_equal(got["log_std"], start["log_std"])
    assert np.all(np.sign(start["kernel"] - got["kernel"]) == np.sign(start["kernel"]))
    if name in ("adamw", "sgd"):  # here a step of decay alone is lr * weight_decay, exactly
        np.testing.assert_allclose(got["kernel"], start["kernel"] * (1 - 0.1 * 0.01), rtol=1e-6)


def test_decay_mask():
    assert decay_mask(params()) == {"kernel": True, "bias": False, "log_std": False}


def test_decoupled_decay_is_not_rescaled_by_adam():
    """adamw adds decay after the rule, adam before it: with a large gradient only the first still shrinks weights."""
    grad = jax.tree.map(lambda x: jnp.full_like(x, 1e6), params())
    decayed, _ = run(Optimizer("adamw", lr=0.1, weight_decay=0.5), [grad])
    plain, _ = run(Optimizer("adamw", lr=0.1), [grad])
    coupled, _ = run(Optimizer("adam", lr=0.1, weight_decay=0.5), [grad])
    np.testing.assert_allclose(plain["kernel"] - decayed["kernel"], 0.05 * params()["kernel"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(coupled["kernel"], plain["kernel"], rtol=1e-4, atol=1e-6)


def test_groups_do_not_see_each_other():
    """A gradient of 1e8, or NaN, in one group changes no bit of the other; each has its own rule and rate."""
    tx = make_optimizer({"vae": Optimizer(lr=0.1, clip=1.0), "critic": Optimizer("sgd", lr=0.5, b1=0.0, clip=1.0)}, 10)
    tree = {"vae": params(0), "critic": params(1)}

    def update(scale):
        grads = {"vae": params(2), "critic": jax.tree.map(lambda x: x * scale, params(3))}
        updates, state = tx.update(grads, tx.init(tree), tree)
        return updates, state

    quiet, _ = update(1.0)
    for scale in (1e8, np.nan):
        loud, state = update(scale)
        support.assert_trees_equal(loud["vae"], quiet["vae"])
        assert np.all(np.isfinite(jax.flatten_util.ravel_pytree(loud["vae"])[0]))
        del state
    np.testing.assert_allclose(optax.global_norm(quiet["critic"]), 0.5, rtol=1e-5)


def test_a_group_without_an_optimizer_is_an_error():
    tx = make_optimizer({"vae": Optimizer()}, 10)
    with pytest.raises(ValueError, match="critic"):
        tx.init({"vae": params(), "critic": params()})


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (LearningRate(), {0: 2.0, 50: 2.0, 100: 2.0}),
        (LearningRate("cosine"), {0: 2.0, 50: 1.0, 100: 0.0, 150: 0.0}),
        (LearningRate("cosine", final=0.1), {0: 2.0, 50: 1.1, 100: 0.2}),
        (LearningRate(warmup_steps=10), {0: 0.0, 5: 1.0, 10: 2.0, 90: 2.0}),
        (LearningRate("warmup-cosine", warmup_steps=20), {0: 0.0, 10: 1.0, 20: 2.0, 60: 1.0, 100: 0.0}),
        (LearningRate("cosine", warmup_steps=20), {0: 0.0, 10: 1.0, 20: 2.0, 60: 1.0, 100: 0.0}),
        (LearningRate("step", milestones=(30, 60)), {0: 2.0, 29: 2.0, 30: 0.2, 59: 0.2, 60: 0.02, 99: 0.02}),
        (LearningRate("step", milestones=(30,), factor=0.5, warmup_steps=10), {5: 1.0, 10: 2.0, 29: 2.0, 30: 1.0}),
        (LearningRate("step", milestones=(2, 4), factor=0.5, warmup_steps=10), {5: 1.0, 10: 0.5, 50: 0.5}),
    ],
)
def test_learning_rates(schedule, points):
    """Over 100 steps to a peak of 2; milestones count from the start of the run, warm-up or not."""
    rate = schedule.build(2.0, 100)
    got = {step: float(rate(jnp.asarray(step))) for step in points}
    assert got == pytest.approx(points, rel=1e-5, abs=1e-6)


def test_the_schedule_drives_the_updates():
    grads = [jax.tree.map(jnp.ones_like, params())] * 4
    config = Optimizer("sgd", lr=1.0, b1=0.0, schedule=LearningRate(warmup_steps=4))
    got, last = run(config, grads)
    np.testing.assert_allclose(last["bias"], -0.75)
    np.testing.assert_allclose(got["bias"], params()["bias"] - (0 + 0.25 + 0.5 + 0.75), rtol=1e-5, atol=1e-6)
