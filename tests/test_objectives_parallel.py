"""Objectives that couple the examples of a batch: one device, a mesh and pmap give one loss and one gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from jax.sharding import NamedSharding, PartitionSpec

from vae_jax import collectives, train
from vae_jax.model import Context
from vae_jax.models import VAE
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.objectives import OBJECTIVES, Adversarial
from vae_jax.posteriors import Delta, Diagonal
from vae_jax.priors import ConditionalNormal, MixtureOfGaussians, Normal
from vae_jax.train import MeshConfig

SHAPE, BATCH, D = (4, 3, 1), 16, 3
NAMES = [
    "beta-tc",
    "capacity",
    "dip-i",
    "dip-ii",
    "factor",
    "free-bits",
    "geco",
    "minimum-kl",
    "mmd",
    "rae-gp",
    "sliced-wae",
    "soft-free-bits",
    "wae-gan",
    "wae-mmd",
]
CASES = {name: (name, Normal(), "none") for name in NAMES}
CASES |= {
    "beta-tc-mws": ("beta-tc", Normal(), "none"),
    # Draws of a prior that has parameters, and of one that is told the examples' conditions.
    "wae-mmd-mog": ("wae-mmd", MixtureOfGaussians(), "none"),
    "mmd-conditional": ("mmd", ConditionalNormal(hidden=(4,)), "label"),
}


def config(case: str) -> VAE:
    name, prior, on = CASES[case]
    cls = OBJECTIVES[name]
    # A floor that some dimensions are under and others above.
    options = {"free-bits": {"free_nats": 0.6}, "minimum-kl": {"target": 0.01}, "beta-tc-mws": {"estimator": "mws"}}
    objective = cls(**options.get(case, {}), **({"hidden": (8,)} if issubclass(cls, Adversarial) else {}))
    posterior = Delta() if cls.deterministic else Diagonal()
    return VAE(D, MLP(hidden=()), objective=objective, posterior=posterior, prior=prior, condition=Condition(on))


@functools.cache
def parts(case: str):
    """Returns (gradient function of (params, state, batch), its arguments): one layout's view of one step."""
    model = config(case).build(support.spec(SHAPE))
    batch = {k: v for k, v in support.images(BATCH, SHAPE).items() if k in ("x", "label")}
    # Codes that differ: at the start all posteriors are alike, and a wrong pairing of them would not show.
    params, state = jax.jit(model.init)(jax.random.key(0), batch)
    params["vae"]["encoder"] = jax.tree.map(lambda w: 3.0 * w, params["vae"]["encoder"])

    def gradient(params, state, batch, axis_name=None, train=True):
        index = collectives.example_index(len(batch["x"]), axis_name)
        hyper = {n: jnp.asarray(v, jnp.float32) for n, v in model.training.hyper.items()}
        ctx = Context(jnp.asarray(40, jnp.int32), index, hyper, train, axis_name)
        loss = functools.partial(model.loss, ctx=ctx)
        (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(params, state, jax.random.key(7), batch)
        return collectives.pmean((grads, aux.metrics, aux.state), axis_name)

    return gradient, (params, state, batch)


@functools.cache
def one_device(case: str):
    """Returns the gradients, metrics and state of one device, and (metrics, state) outside training."""
    gradient, args = parts(case)

    def both(*args):
        return gradient(*args), gradient(*args, train=False)[1:]

    return jax.device_get(jax.jit(both)(*args))


# Under pmap an objective names its sums over the devices itself: one of each kind of sum, of a critic, and of a state.
PMAPPED = ("beta-tc", "dip-ii", "factor", "free-bits", "geco", "mmd", "sliced-wae")


@pytest.mark.parametrize(
    ("case", "layout"),
    [
        *((case, "mesh") for case in CASES),
        *(pytest.param(case, "pmap", marks=[] if case in PMAPPED else pytest.mark.slow) for case in CASES),
    ],
)
def test_eight_devices_are_one(case, layout):
    """Gradients of every group, metrics and running state, with two examples per device."""
    gradient, (params, state, batch) = parts(case)
    if layout == "pmap":
        shards = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), batch)
        step = jax.pmap(functools.partial(gradient, axis_name="data"), "data", in_axes=(None, None, 0), out_axes=None)
        got = step(params, state, shards)
    else:
        mesh = train.make_mesh(MeshConfig(data=8))
        whole, split = NamedSharding(mesh, PartitionSpec()), train.sharding.batch_sharding(mesh)
        placed = jax.device_put((params, state, batch), (whole, whole, split))
        got = jax.jit(gradient, out_shardings=whole)(*placed)
    want, _ = one_device(case)
    support.assert_trees_close(jax.device_get(got), want, rtol=2e-4, atol=2e-5)
    grads, _, new_state = want
    for group, tree in grads.items():
        assert max(float(np.max(np.abs(g))) for g in jax.tree.leaves(tree)) > 1e-4, f"{group} has no gradient"
    if case == "free-bits":
        assert 0 < want[1]["units_at_floor"] < 1
    if "objective" in state:
        moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), new_state["objective"], state["objective"])
        assert any(jax.tree.leaves(moved))


@pytest.mark.parametrize("case", CASES)
def test_evaluation_is_the_same_number(case):
    """Outside training: same loss and metrics under the same key, and the running state is left alone."""
    (_, want, _), (metrics, state) = one_device(case)
    support.assert_trees_close(metrics, want, rtol=1e-5)
    support.assert_trees_equal(state, jax.device_get(parts(case)[1][1]))


@pytest.mark.parametrize("case", ["beta-tc", "dip-ii", "free-bits", "sliced-wae"])
def test_examples_are_coupled(case):
    """The agreement would mean little were the loss a mean over examples: half the batch gives another gradient."""
    gradient, (params, state, batch) = parts(case)
    halves = [jax.tree.map(lambda x, s=s: x[s], batch) for s in (slice(0, 8), slice(8, 16))]
    run = jax.jit(gradient)
    first, second = (run(params, state, half)[0] for half in halves)
    mean = jax.tree.map(lambda a, b: 0.5 * (a + b), first, second)
    differences = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), mean, one_device(case)[0][0])
    assert max(jax.tree.leaves(differences)) > 1e-3
