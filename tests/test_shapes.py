"""Arrays of odd sizes and any number of channels, from a file through every network to a figure."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from support import around, shrink

from vae_jax import data, figures, train
from vae_jax.data.config import DataConfig
from vae_jax.data.pipeline import examples
from vae_jax.errors import InputError
from vae_jax.models import VAE
from vae_jax.networks import NETWORKS, Conv64, PooledConv
from vae_jax.runs.training_data import spec_of

pytestmark = pytest.mark.usefixtures("command_line", "programs_are_freed")

STRIDED = {name for name, cls in NETWORKS.items() if issubclass(cls, Conv64)}
# Each network at the sizes that are hardest for it, and under `slow` at another one, which some of them refuse.
CASES = [(name, (80, 128, 3) if name in STRIDED else (65, 65, 5)) for name in sorted(NETWORKS)]
OTHERS = [(name, (64, 78, 2)) for name in sorted(NETWORKS)]
REFUSING = [(name, shape) for name, shape in OTHERS if name in STRIDED]


def batch_of(tmp_path, shape):
    """Returns the spec and two examples of an .npy of this shape, as a model sees them."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "mine.npy", rng.integers(0, 256, (6, *shape), dtype=np.uint8))
    config = DataConfig("npz", str(tmp_path / "mine.npy"), batch_size=2, protocol="full")
    source = data.load(config)
    return spec_of(source), examples(source, config, np.arange(2))


def trained(network, spec, batch, decodes=True):
    """Returns the reconstructions after two steps (None without), and the loss before each: all in one program."""
    model = around(2, network).build(spec)
    optimizer = optax.adam(1e-3)
    step = train.make_train_step(model, optimizer)

    @jax.jit
    def run(key, batch):
        start = train.make_init(model, optimizer)(key, spec.blank())
        state, metrics = jax.lax.scan(lambda state, _: step(state, batch), start, length=2)
        if not decodes:
            return None, metrics["elbo"]
        params, running = state.params, state.model_state
        return model.decode(params, running, model.encode(params, running, None, batch).z).mean(), metrics["elbo"]

    made, elbo = run(jax.random.key(0), batch)
    return None if made is None else np.asarray(made), (-elbo).tolist()


@pytest.mark.parametrize(
    ("name", "shape"),
    [*CASES, *REFUSING, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS if case not in REFUSING)],
    ids=lambda v: v if isinstance(v, str) else "x".join(map(str, v)),
)
def test_every_network_that_can_takes_odd_sizes_and_channels(tmp_path, name, shape):
    spec, batch = batch_of(tmp_path, shape)
    network = shrink(NETWORKS[name]())
    if name in STRIDED and (shape[0] % 16 or shape[1] % 16):
        with pytest.raises(InputError, match=r"multiples of 16, .*; use another network \(mlp, pooled-conv\)"):
            VAE(2, network).build(spec)
        # The advice is a network that has a test of its own.
        assert shrink(PooledConv()).check(spec.x) is None
        return
    if name == "vit":
        with pytest.raises(
            InputError, match=r"patches of 4x4 do not divide images of .*; use --model.network.patch"
        ) as e:
            around(2, network).build(spec)
        # The nearest patch that divides both sides, which is trained below.
        network = dataclasses.replace(network, patch=int(str(e.value).split()[-1]), depth=1)
        assert network.patch == (5 if shape[0] == 65 else 2)
    made, losses = trained(network, spec, batch, decodes=name != "local-ar")  # which decodes pixel by pixel
    assert np.isfinite(losses).all()
    assert losses[1] != losses[0]
    if name == "local-ar":
        return
    assert made.shape == (2, *shape)
    # What is decoded depends on every part of the example: none is cut off.
    assert np.ptp(made[:, -1, -1]) > 0
    assert figures.pairs(batch["x"], made).axes[0].images
