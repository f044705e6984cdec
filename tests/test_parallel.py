"""One step, four layouts: one device, a (data, fsdp) mesh, shard_map and pmap give the same numbers, noise included."""

import dataclasses
import functools
import itertools
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from jax.sharding import AxisType, PartitionSpec

from vae_jax import collectives, prng, spec, train
from vae_jax.errors import InputError
from vae_jax.likelihoods import Gaussian, GaussianOptimal
from vae_jax.model import Aux, Encoding, Model
from vae_jax.models import VAE
from vae_jax.networks import MLP, Conv64
from vae_jax.objectives import Beta
from vae_jax.train import MeshConfig
from vae_jax.train.sharding import MIN_SHARDED_SIZE, batch_sharding, infer_sharding

SHAPE, BATCH, STEPS = (16, 16, 1), 32, 3
# One dense kernel of 256 x 64 = 2^14 numbers is just big enough to be split over fsdp.
MODELS = {
    "mlp": VAE(4, MLP((64,)), objective=Beta(beta=2.0)),
    "conv": VAE(4, Conv64(channels=(8, 8), kernels=(4, 4), dense=(64,)), Gaussian(0.5)),
    "optimal": VAE(4, MLP((64,)), GaussianOptimal(decay=0.9)),
}
MESHES = {"data8": MeshConfig(data=8), "data2-fsdp4": MeshConfig(data=2, fsdp=4)}
LAYOUTS = (*MESHES, "pmap", "shard_map")
ONE = MeshConfig(data=1)
# Momentum and decoupled decay, without Adam's g / |g|, which turns rounding of a tiny gradient into a whole step.
SGD = train.Optimizer("sgd", lr=1e-4, clip=1e4, weight_decay=1e-4)


def batches():
    return [support.images(BATCH, SHAPE, seed=i) for i in range(STEPS)]


def over_mesh(model, tx, config, **options):
    """Returns (state, metrics of every step) of a few steps under jit over a mesh."""
    mesh = train.make_mesh(config)
    state = train.init_state(
        model, tx, jax.random.key(1), batches()[0], mesh=mesh, ema=options.get("ema_decay") is not None
    )
    step = train.jit_step(train.make_train_step(model, tx, **options), state, mesh)
    history = []
    for batch in batches():
        state, metrics = step(state, jax.device_put(batch, batch_sharding(mesh)))
        history.append(metrics)
    return jax.device_get(state), jax.device_get(history)


def over_axis(model, tx, kind, **options):
    """Returns the same under pmap or shard_map, where the step sees local batches and an axis name."""
    init = jax.jit(train.make_init(model, tx, ema=options.get("ema_decay") is not None))
    state = init(jax.random.key(1), batches()[0])
    if kind == "pmap":
        step, lead = train.pmap_step(model, tx, **options), (8, BATCH // 8)
    else:
        mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
        inner = train.make_train_step(model, tx, axis_name="data", **options)
        specs = {"in_specs": (PartitionSpec(), PartitionSpec("data")), "out_specs": PartitionSpec()}
        step, lead = jax.jit(jax.shard_map(inner, mesh=mesh, check_vma=False, **specs)), (BATCH,)
    history = []
    for batch in batches():
        state, metrics = step(state, {"x": batch["x"].reshape(*lead, *SHAPE)})
        history.append(metrics)
    return jax.device_get(state), jax.device_get(history)


@functools.cache
def built(name):
    model = MODELS[name].build(spec.images(*SHAPE))
    return model, train.make_optimizer({"vae": SGD}, STEPS)


@functools.cache
def one_device(name, **options):
    return over_mesh(*built(name), ONE, **options)


# The dense model in every layout, and of the others the layout in which most of them differs.
IN_SUITE = {("mlp", layout) for layout in LAYOUTS} | {
    ("conv", "data2-fsdp4"),
    ("optimal", "data8"),
    ("optimal", "pmap"),
}


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        pytest.param(*case, marks=[] if case in IN_SUITE else pytest.mark.slow)
        for case in itertools.product(MODELS, LAYOUTS)
    ],
)
def test_layouts_agree(name, layout):
    """Parameters, moments, moving average, running state and every metric (so the noise as well) of three steps."""
    run = over_mesh if layout in MESHES else over_axis
    got = run(*built(name), MESHES.get(layout, layout), ema_decay=0.9)
    want = one_device(name, ema_decay=0.9)
    support.assert_trees_close(got, want, rtol=2e-5, atol=5e-6)
    # The agreement would mean little had nothing moved.
    start = jax.jit(built(name)[0].init)(prng.site_key(jax.random.key(1), "init"), batches()[0])[0]
    moved = max(
        float(jnp.max(jnp.abs(a - b))) for a, b in zip(*map(jax.tree.leaves, (want[0].params, start)), strict=True)
    )
    assert moved > 1e-3


@pytest.mark.parametrize(
    ("name", "count"),
    [("mlp", 4), ("conv", 2), *(pytest.param(*c, marks=pytest.mark.slow) for c in (("mlp", 2), ("conv", 4)))],
)
def test_accumulation_is_one_large_batch(name, count):
    got = over_mesh(*built(name), ONE, ema_decay=0.9, accumulate=count)
    support.assert_trees_close(got, one_device(name, ema_decay=0.9), rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *(("mlp", "data2-fsdp4"), ("optimal", "data8"), ("optimal", "pmap")),
        *(
            pytest.param(*c, marks=pytest.mark.slow)
            for c in (("mlp", "data8"), ("mlp", "pmap"), ("optimal", "data2-fsdp4"))
        ),
    ],
)
def test_accumulation_agrees_across_layouts(name, layout):
    run = over_mesh if layout in MESHES else over_axis
    # Two microbatches. With a batch-coupled likelihood which examples share one matters, and under pmap that is a
    # local choice, so there the microbatches are other ones than those of a single device.
    got = run(*built(name), MESHES.get(layout, layout), accumulate=2)
    loose = name == "optimal" and layout == "pmap"
    support.assert_trees_close(
        got, one_device(name, accumulate=2), rtol=5e-2 if loose else 2e-5, atol=1e-2 if loose else 5e-6
    )


def test_accumulation_with_the_optimal_variance_keeps_the_running_state():
    """A microbatch fits its own variance, so gradients differ a little; the running variance is that of one batch."""
    (state, metrics), (want, want_metrics) = (one_device("optimal", accumulate=4), one_device("optimal"))
    first, want_first = metrics[0], want_metrics[0]
    np.testing.assert_allclose(first["rate"], want_first["rate"], rtol=1e-5)
    np.testing.assert_allclose(state.model_state["likelihood"]["weight"], 1 - 0.9**STEPS, rtol=1e-6)
    support.assert_trees_close(state.model_state, want.model_state, rtol=1e-3)
    # log is concave: variances fitted to fewer examples explain them better, never worse.
    assert first["distortion"] < want_first["distortion"]
    np.testing.assert_allclose(first["distortion"], want_first["distortion"], rtol=0.05)


def test_fsdp_shards_big_leaves_and_only_those():
    model, tx = built("mlp")
    mesh = train.make_mesh(MESHES["data2-fsdp4"])
    state = train.init_state(model, tx, jax.random.key(0), batches()[0], mesh=mesh, ema=True)
    sharded = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        pieces = {s.data.shape for s in leaf.addressable_shards}
        assert len(pieces) == 1
        if leaf.size >= MIN_SHARDED_SIZE:
            assert leaf.sharding.spec != PartitionSpec()
            assert np.prod(pieces.pop()) * 4 == leaf.size
            sharded.add(jax.tree_util.keystr(path).split("[")[0])
        else:
            assert pieces == {leaf.shape}
            assert leaf.sharding.is_fully_replicated
    # Parameters, their moments and their averages alike.
    assert sharded == {".params", ".opt_state.inner_states", ".ema"}

    stepped, _ = train.jit_step(train.make_train_step(model, tx, ema_decay=0.9), state, mesh)(state, batches()[0])
    assert jax.tree.map(lambda x: x.sharding, stepped) == infer_sharding(jax.eval_shape(lambda: stepped), mesh)


def test_sharding_rules():
    mesh = train.make_mesh(MESHES["data2-fsdp4"])
    shapes = {
        "params": {
            "wide": jax.ShapeDtypeStruct((3, 4096, 8), jnp.float32),
            "odd": jax.ShapeDtypeStruct((129, 129), jnp.float32),
            "small": jax.ShapeDtypeStruct((64, 64), jnp.float32),
            "tall": jax.ShapeDtypeStruct((8190, 4), jnp.float32),
        }
    }
    placed = infer_sharding(shapes, mesh)["params"]
    assert {k: v.spec for k, v in placed.items()} == {
        "wide": PartitionSpec(None, "fsdp"),
        "odd": PartitionSpec(),
        "small": PartitionSpec(),
        "tall": PartitionSpec(None, "fsdp"),
    }
    kept = infer_sharding(shapes, mesh, rules=((r"wide$", "replicate"), (r".*", "fsdp")))["params"]
    assert kept["wide"].spec == PartitionSpec()
    assert kept["tall"].spec == PartitionSpec(None, "fsdp")
    one = infer_sharding(shapes, train.make_mesh(ONE))["params"]
    assert all(s.is_fully_replicated for s in one.values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(fsdp=0), "must be positive"),
        (MeshConfig(data=0), "must be positive"),
        (MeshConfig(fsdp=3), "does not fit 8"),
        (MeshConfig(data=4, fsdp=4), "does not fit 8"),
        (MeshConfig(fsdp=16), "does not fit 8"),
        (MeshConfig(data=16), "does not fit 8"),
        (MeshConfig(data=1, fsdp=16), "does not fit 8"),
    ],
)
def test_impossible_meshes_are_named(config, message):
    with pytest.raises(InputError, match=message) as error:
        train.make_mesh(config)
    # What the message says to use works.
    if advice := re.search(r"use \*\*(\{.*\})$", str(error.value)):
        axes = {name.removeprefix("mesh."): size for name, size in json.loads(advice[1]).items()}
        assert math.prod(train.make_mesh(dataclasses.replace(config, **axes)).shape.values()) == 8
    assert bool(advice) == message.startswith("does not fit")


def probe() -> Model:
    """Returns a model without a network whose metrics show the noise of every example of the global batch."""

    def noise(key, batch, ctx):
        keys = prng.example_keys(prng.site_key(key, "posterior"), ctx.index)
        drawn = prng.normal(keys, (3,)) + 0 * batch["x"][:, 0, 0]
        return collectives.all_gather(drawn, ctx.axis_name), collectives.all_gather(ctx.index, ctx.axis_name)

    def loss(params, state, key, batch, ctx):
        drawn, index = noise(key, batch, ctx)
        count = collectives.psum(jnp.asarray(batch["x"].shape[0]), ctx.axis_name)
        metrics = {"noise": drawn, "index": index.astype(jnp.float32), "count": count.astype(jnp.float32)}
        return params["vae"]["w"] * jnp.mean(drawn), Aux(state, metrics)

    def init(key, batch):
        return {"vae": {"w": jnp.zeros(())}}, {}

    return Model(init, loss, loss, lambda *_: Encoding(jnp.zeros(())), lambda *_, **__: None, support.about())


def test_noise_is_that_of_the_global_index_in_every_layout():
    """Every example of every step has noise of its own, whichever device it is on; identical images do not help."""
    model, tx = probe(), train.make_optimizer({"vae": SGD}, 1)
    _, want = over_mesh(model, tx, ONE)
    for _, got in (
        over_axis(model, tx, "pmap"),
        over_axis(model, tx, "shard_map"),
        *(over_mesh(model, tx, m) for m in MESHES.values()),
    ):
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a["noise"], b["noise"], rtol=1e-6)
            np.testing.assert_array_equal(a["index"], np.arange(BATCH))
            assert a["count"] == BATCH
    everything = np.concatenate([m["noise"] for m in want]).reshape(-1)
    assert len(np.unique(everything)) == STEPS * BATCH * 3


def multi(model, tx, mesh):
    """Returns (start state, run): `run(state, arrays, n)` draws its batches from one device-resident array."""
    arrays = support.images(64, SHAPE)
    state = train.init_state(model, tx, jax.random.key(3), arrays, mesh=mesh)

    def batch_fn(arrays, key, step):
        rows = jax.random.randint(jax.random.fold_in(key, step), (BATCH,), 0, 64)
        return {"x": arrays["x"][rows]}

    step = train.make_train_step(model, tx)
    return arrays, state, step, batch_fn, train.jit_multi_step(step, batch_fn, state, mesh)


@pytest.mark.parametrize("config", [ONE, *MESHES.values()], ids=["one", *MESHES])
def test_many_steps_in_one_dispatch(config):
    """n steps in one dispatch are n dispatches bit for bit, and a Python loop of the step to float tolerance."""
    model, tx = built("mlp")
    mesh = train.make_mesh(config)
    arrays, state, step, batch_fn, run = multi(model, tx, mesh)
    copy = functools.partial(jax.tree.map, jnp.copy)

    looped, history = copy(state), []
    jitted = train.jit_step(step, state, mesh)
    for i in range(4):
        batch = batch_fn(arrays, prng.site_key(looped.key, "data"), jnp.asarray(i))
        looped, metrics = jitted(looped, jax.device_put(batch, batch_sharding(mesh)))
        history.append(metrics)
    at_once, mean, finite = run(copy(state), arrays, 4)
    assert bool(finite)
    support.assert_trees_close(jax.device_get(at_once), jax.device_get(looped), rtol=2e-5)
    average = jax.tree.map(lambda *m: sum(m) / 4, *jax.device_get(history))
    support.assert_trees_close(jax.device_get(mean), average, rtol=2e-5)

    pieces = copy(state)
    for n in (1, 2, 1):
        pieces, _, _ = run(pieces, arrays, n)
    support.assert_trees_equal(jax.device_get(pieces), jax.device_get(at_once))
    assert run._cache_size() == 1


def test_collectives_are_the_identity_without_an_axis():
    x = jnp.arange(6.0).reshape(3, 2)
    for collective in (collectives.pmean, collectives.psum, collectives.all_gather):
        assert collective(x, None) is x
    np.testing.assert_array_equal(collectives.example_index(3, None), [0, 1, 2])
