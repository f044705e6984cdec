"""The train step, optimizers, sharding and the loop."""

from vae_jax.train.optimizers import LearningRate, Optimizer, make_optimizer
from vae_jax.train.parallel import init_state, jit_multi_step, jit_step, pmap_step, state_shapes
from vae_jax.train.sharding import MeshConfig, make_mesh
from vae_jax.train.state import TrainState, make_init
from vae_jax.train.step import make_multi_step, make_train_step

__all__ = [
    "LearningRate",
    "MeshConfig",
    "Optimizer",
    "TrainState",
    "init_state",
    "jit_multi_step",
    "jit_step",
    "make_init",
    "make_mesh",
    "make_multi_step",
    "make_optimizer",
    "make_train_step",
    "pmap_step",
    "state_shapes",
]
