"""The train step by hand, many steps in one dispatch, and what a number that is not finite does."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import support

from vae_jax import prng, spec, train
from vae_jax.model import Aux, Context, Encoding, Model
from vae_jax.models import VAE
from vae_jax.networks import MLP

SHAPE, BATCH = (4, 3, 1), 4
SGD = train.Optimizer("sgd", lr=1e-2, b1=0.0)


@functools.cache
def small():
    """Returns (model, tx, start state, batch) of a tiny VAE."""
    model = VAE(2, MLP((5,))).build(spec.images(*SHAPE))
    tx = train.make_optimizer({"vae": SGD}, 100)
    batch = support.images(BATCH, SHAPE)
    return model, tx, jax.jit(train.make_init(model, tx, ema=True))(jax.random.key(0), batch), batch


def toy(fails_at: int = -1, where: str = "loss") -> Model:
    """Returns a model whose loss, one metric or gradient alone is not finite at one step."""

    def loss(params, state, key, batch, ctx: Context):
        w, bad = params["vae"]["w"], ctx.step == fails_at
        value = jnp.mean(jnp.square(w - batch["x"]))
        if where == "gradient":  # finite value; the derivative of sqrt at 0 is not
            value += jnp.sqrt(jnp.where(bad, w - w, 1.0)) - jnp.where(bad, 0.0, 1.0)
        shown = jnp.where(bad, jnp.inf if where == "metric" else 0.0, 1.0)
        value *= jnp.where(bad & (where == "loss"), jnp.nan, 1.0)
        return value, Aux(state, {"loss": value, "shown": shown, "step": ctx.step.astype(jnp.float32)})

    def init(key, batch):
        return {"vae": {"w": jnp.asarray(3.0)}}, {}

    return Model(init, loss, lambda *a: {}, lambda *a: Encoding(jnp.zeros(())), lambda *a, **k: None, support.about())


def toy_run(model):
    tx = train.make_optimizer({"vae": train.Optimizer("sgd", lr=0.1, b1=0.0)}, 100)
    batch = {"x": jnp.zeros(2)}
    state = train.make_init(model, tx)(jax.random.key(0), batch)
    run = train.make_multi_step(train.make_train_step(model, tx), lambda arrays, key, step: arrays)
    return jax.jit(run), state, batch


def test_a_step_by_hand():
    """Gradient of the model's loss under the step's key, one update, the moving average, and the norm."""
    model, tx, state, batch = small()
    state = dataclasses.replace(state, step=jnp.asarray(7, jnp.int32))
    new, metrics = jax.jit(train.make_train_step(model, tx, ema_decay=0.75))(state, batch)

    ctx = Context(state.step, jnp.arange(BATCH), state.hyper)
    loss = jax.jit(
        jax.value_and_grad(lambda p: model.loss(p, state.model_state, jax.random.fold_in(state.key, 7), batch, ctx)[0])
    )
    value, grads = loss(state.params)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], optax.global_norm(grads), rtol=1e-5)
    params = jax.tree.map(lambda p, g: p - 1e-2 * g, state.params, grads)
    support.assert_trees_close(new.params, params)
    support.assert_trees_close(new.ema, jax.tree.map(lambda e, p: 0.75 * e + 0.25 * p, state.ema, params))
    assert int(new.step) == 8
    assert new.eval_params is new.ema
    assert dataclasses.replace(new, ema=None).eval_params is new.params


def test_a_fresh_state():
    model, tx, state, batch = small()
    assert int(state.step) == 0
    assert state.step.dtype == jnp.int32
    support.assert_trees_equal(state.ema, state.params)
    assert train.make_init(model, tx)(jax.random.key(0), batch).ema is None
    # Parameters and training noise hang off different keys, and other seeds give other ones.
    assert not np.array_equal(jax.random.key_data(state.key), jax.random.key_data(jax.random.key(0)))
    other = jax.jit(train.make_init(model, tx))(jax.random.key(1), batch)
    kernels = [x for x in jax.tree.leaves(jax.tree.map(jnp.subtract, other.params, state.params)) if x.ndim == 2]
    assert all(np.all(k != 0) for k in kernels)
    # Initialization looks at shapes, not at values.
    blank = jax.jit(train.make_init(model, tx))(jax.random.key(0), jax.tree.map(jnp.zeros_like, batch))
    support.assert_trees_equal(blank.params, state.params)


@pytest.mark.parametrize(("decay", "keeps"), [(None, True), (0.9, False)])
def test_a_moving_average_that_would_stand_still_is_an_error(decay, keeps):
    model, tx, state, batch = small()
    step = train.make_train_step(model, tx, ema_decay=decay)
    with pytest.raises(ValueError, match="ema"):
        jax.eval_shape(step, state if keeps else dataclasses.replace(state, ema=None), batch)


def test_microbatches_must_divide_the_batch():
    model, tx, state, batch = small()
    with pytest.raises((TypeError, ValueError), match="reshape"):
        jax.eval_shape(train.make_train_step(model, tx, ema_decay=0.9, accumulate=3), state, batch)


def test_many_steps_trace_the_step_once():
    """To trace takes as long as to compile; the shapes of the metrics do not cost another trace."""
    traces, model = [], toy()
    counted = model._replace(loss=lambda *args: traces.append(1) or model.loss(*args))
    run, state, batch = toy_run(counted)
    run.trace(state, batch, jnp.asarray(1, jnp.int32))
    assert len(traces) == 1


@pytest.mark.parametrize("n", [0, 1, 5])
def test_multi_step_counts_and_averages(n):
    run, state, batch = toy_run(toy())
    end, metrics, finite = run(state, batch, n)
    assert bool(finite)
    assert int(end.step) == n
    # w <- 0.8 w from 3: the loss at step i is 9 * 0.64^i, and each metric is the mean over the steps made.
    np.testing.assert_allclose(end.params["vae"]["w"], 3 * 0.8**n, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean([9 * 0.64**i for i in range(n)]) if n else 0.0, rtol=1e-5)
    np.testing.assert_allclose(metrics["step"], (n - 1) / 2 if n else 0.0)


@pytest.mark.parametrize("where", ["loss", "metric", "gradient"])
@pytest.mark.parametrize("fails_at", [0, 3])
def test_multi_step_ends_at_the_first_number_that_is_not_finite(fails_at, where):
    """The step made last is the bad one, and its metrics alone come back: they show which number broke."""
    run, state, batch = toy_run(toy(fails_at, where))
    end, metrics, finite = run(state, batch, 10)
    assert not bool(finite)
    assert int(end.step) == fails_at + 1
    assert metrics["step"] == fails_at
    broken = {name for name, value in metrics.items() if not np.isfinite(value)}
    assert broken == {"loss": {"loss", "grad_norm"}, "metric": {"shown"}, "gradient": {"grad_norm"}}[where]


def test_the_batch_function_sees_the_data_key_and_the_step():
    """Its key hangs off the run's base key, not off the step's, and differs from every step key."""
    seen = []
    model, tx, state, batch = small()

    def batch_fn(arrays, key, step):
        jax.debug.callback(lambda k, s: seen.append((int(s), tuple(np.asarray(k)))), jax.random.key_data(key), step)
        return arrays

    run = jax.jit(train.make_multi_step(train.make_train_step(model, tx, ema_decay=0.9), batch_fn))
    jax.block_until_ready(run(state, batch, 3))
    jax.effects_barrier()
    assert sorted(s for s, _ in seen) == [0, 1, 2]
    want = tuple(np.asarray(jax.random.key_data(prng.site_key(state.key, "data"))))
    assert {k for _, k in seen} == {want}


def test_keys():
    """Sites, steps and examples have keys of their own; a key needs only its name, its step and its index."""
    key = jax.random.key(3)
    data = [
        jax.random.key_data(k) for k in (key, *(prng.site_key(key, s) for s in ("init", "train", "data", "posterior")))
    ]
    data += [jax.random.key_data(prng.step_key(key, jnp.asarray(i))) for i in range(4)]
    assert len({tuple(np.asarray(d)) for d in data}) == len(data)
    whole = prng.example_keys(key, jnp.arange(6))
    part = prng.example_keys(key, jnp.asarray([4, 1]))
    support.assert_trees_equal(part, whole[jnp.asarray([4, 1])])
    # An example's noise does not depend on who is drawn with it.
    np.testing.assert_array_equal(prng.normal(part, (3,)), prng.normal(whole, (3,))[jnp.asarray([4, 1])])
    assert len(np.unique(prng.uniform(whole, (2, 2)))) == 24
    # Names are hashed in a way that no Python process changes.
    np.testing.assert_array_equal(
        jax.random.key_data(prng.site_key(key, "posterior")), jax.random.key_data(jax.random.fold_in(key, 3655264240))
    )
