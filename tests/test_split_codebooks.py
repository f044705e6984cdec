"""Codebooks split over devices: the same numbers, a part of the entries on each, and never the whole on one."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from jax.sharding import AxisType, PartitionSpec

from vae_jax import collectives, prng, train
from vae_jax.errors import InputError
from vae_jax.model import Aux, Model
from vae_jax.quantizers import VQ, GroupedVQ
from vae_jax.quantizers.nearest import nearest
from vae_jax.train import MeshConfig
from vae_jax.train.checkpoint import Checkpoints
from vae_jax.train.sharding import batch_sharding, infer_sharding

CODES, FEATURES = 1024, 16  # 2^14 numbers: just enough to be split
WHOLE = MeshConfig(data=1)
QUANTIZERS = {
    "ema": VQ(CODES, decay=0.9),
    "revived": VQ(CODES, revive=0.05, decay=0.9),
    "gradient": VQ(CODES, update="gradient"),
    "grouped": GroupedVQ(CODES, depth=1, groups=2, decay=0.9),
}


def features(name):
    return FEATURES * getattr(QUANTIZERS[name], "groups", 1)


def batch(name):
    # More vectors than entries: those that are revived are all different.
    return {"x": jax.random.normal(jax.random.key(7), (16, 80, features(name)))}


@functools.cache
def built(name):
    """Returns a model of one matrix and a quantizer, and its optimizer."""
    quantizer, width = QUANTIZERS[name], features(name)

    def init(key, batch):
        params = {"scale": jnp.ones((width, width)) / width + jnp.eye(width)}
        made = quantizer.init(prng.site_key(key, "params"), width)
        return {"vae": params | ({"quantizer": made} if made else {})}, {"quantizer": quantizer.init_state(key, width)}

    def loss(params, state, key, batch, ctx):
        mine = params["vae"].get("quantizer", {})
        z = jnp.matmul(batch["x"], params["vae"]["scale"], precision="highest")
        out = quantizer.quantize(mine, state["quantizer"], z, key=key, ctx=ctx)
        value = jnp.mean(out.cost + jnp.sum(jnp.square(out.z - batch["x"]), -1))
        return value, Aux({"quantizer": out.state}, {"loss": value, "indices": out.indices})

    model = Model(init, loss, None, None, None, support.about(1, 1, 1))
    return model, train.make_optimizer({"vae": train.Optimizer("sgd", lr=0.1)}, 2)


@functools.cache
def trained(name, config):
    """Returns the state and metrics after a few steps, and the text of the compiled step."""
    mesh, (model, tx) = train.make_mesh(config), built(name)
    state = train.init_state(model, tx, jax.random.key(1), batch(name), mesh=mesh)
    step = train.jit_step(train.make_train_step(model, tx), state, mesh)
    x = jax.device_put(batch(name), batch_sharding(mesh))
    compiled = step.lower(state, x).compile()
    # A revived entry is a vector of the batch, as the mean of one vector is: a second step would have to break ties.
    for _ in range(1 if name == "revived" else 2):
        state, metrics = compiled(state, x)
    return state, metrics, compiled.as_text()


@pytest.mark.parametrize(
    ("name", "data", "fsdp"),
    [("ema", 1, 8), ("ema", 2, 4), ("ema", 4, 2), ("revived", 2, 4), ("gradient", 2, 4), ("grouped", 2, 4)],
)
def test_a_step_is_that_of_the_whole_codebook(name, data, fsdp):
    (state, metrics, text), (want, metrics_, _) = trained(name, MeshConfig(data, fsdp)), trained(name, WHOLE)
    np.testing.assert_array_equal(metrics["indices"], metrics_["indices"])
    support.assert_trees_close(jax.device_get((state, metrics)), jax.device_get((want, metrics_)), rtol=2e-6, atol=1e-6)
    # Each device holds K / n entries, and sees no more of them in any step of the program.
    books = [x for x in jax.tree.leaves(state) if x.size >= CODES * FEATURES]
    assert books
    for x in books:
        assert {s.data.shape[-2] for s in x.addressable_shards} == {CODES // fsdp}
    assert not re.findall(rf"f32\[[\d,]*\b{CODES},\d+\]", text)


def test_statistics_of_one_row_of_devices_are_those_of_one_device_bit_for_bit():
    (state, *_), (want, *_) = trained("ema", MeshConfig(1, 8)), trained("ema", WHOLE)
    averages, same = (x.model_state["quantizer"]["average"] for x in (state, want))
    np.testing.assert_array_equal(averages["size"], same["size"])
    assert np.sum(averages["size"] > 0) > 30  # many were chosen, of all devices


def test_ties_between_devices_go_to_the_first_entry_and_nan_to_entry_zero():
    book = jnp.tile(jax.random.normal(jax.random.key(0), (CODES // 4, FEATURES)), (4, 1))
    z = jnp.concatenate([book[300:331], jnp.full((1, FEATURES), jnp.nan)])
    mesh = train.make_mesh(MeshConfig(2, 4))
    found = jax.jit(functools.partial(collectives.within, mesh, nearest))(jax.device_put(z, batch_sharding(mesh)), book)
    np.testing.assert_array_equal(found, [*range(300 - 256, 331 - 256), 0])
    np.testing.assert_array_equal(found, nearest(z, book))


def test_a_mesh_of_other_axes_is_left_to_the_compiler():
    mesh = jax.make_mesh((8,), ("fsdp",), (AxisType.Auto,))
    z, book = (jax.random.normal(jax.random.key(i), (n, FEATURES)) for i, n in enumerate((64, CODES)))
    found = jax.jit(functools.partial(collectives.within, mesh, nearest))(z, book)
    np.testing.assert_array_equal(found, nearest(z, book))


@pytest.mark.parametrize(("saved", "read"), [(MeshConfig(2, 4), WHOLE), (WHOLE, MeshConfig(2, 4))])
def test_checkpoints_do_not_depend_on_the_split(tmp_path, saved, read):
    state, like = trained("ema", saved)[0], trained("ema", read)[0]
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(state, {})
    found, _ = checkpoints.restore(like)
    checkpoints.close()
    support.assert_trees_equal(jax.device_get(found), jax.device_get(state))
    assert jax.tree.map(lambda x: x.sharding, found) == jax.tree.map(lambda x: x.sharding, like)


def test_codes_that_do_not_divide_are_refused_with_a_split_that_fits():
    shapes = {"params": {"vae": {"quantizer_top": {"codebook": jax.ShapeDtypeStruct((1002, 64), jnp.float32)}}}}
    with pytest.raises(
        InputError, match=r"mesh.fsdp: 4 does not divide the 1002 entries of a codebook \(params/vae/"
    ) as e:
        infer_sharding(shapes, train.make_mesh(MeshConfig(2, 4)))
    advised = int(re.search(r"use \D*mesh.fsdp\D*(\d+)", str(e.value))[1])
    found = infer_sharding(shapes, train.make_mesh(MeshConfig(2, advised)))
    assert jax.tree.leaves(found)[0].spec == PartitionSpec("fsdp")
    assert "or 1004 codes" in str(e.value)
    # The codes of a first stage are what they are.
    with pytest.raises(InputError, match=r"mesh.fsdp: 4 does not divide") as e:
        infer_sharding({"first": shapes}, train.make_mesh(MeshConfig(2, 4)))
    assert int(re.search(r"use \D*mesh.fsdp\D*(\d+)", str(e.value))[1]) == advised
    assert "1004" not in str(e.value)


def test_only_codebooks_that_are_searched_are_split_by_their_entries():
    def of(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    shapes = {
        # A total of one's own, stacked codebooks of less than 2^14 numbers each, and Gumbel-softmax.
        "quantizer_own": {"total": of(20_000)},
        "quantizer_grouped": {"codebook": of(4, 510, 16)},
        "quantizer_gumbel": {"codebook": of(1002, 64), "logits": of(64, 1002)},
    }
    found = jax.tree.map(lambda x: x.spec, infer_sharding(shapes, train.make_mesh(MeshConfig(2, 4))))
    assert found == {
        "quantizer_own": {"total": PartitionSpec("fsdp")},
        "quantizer_grouped": {"codebook": PartitionSpec()},
        "quantizer_gumbel": {"codebook": PartitionSpec(None, "fsdp"), "logits": PartitionSpec("fsdp")},
    }
