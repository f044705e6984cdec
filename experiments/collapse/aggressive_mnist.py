"""The strong decoder with an encoder that learns ten times as often at first, on binary MNIST.

Command:    make train EXP=aggressive_mnist
Expect:     ELBO -90.1 +- 0.2, rate 4.25 +- 0.01 nats, 16 active units (10,000 test images, 1 seed).
Reference:  He et al., arXiv:1901.05534 (fixed lengths in place of their criteria: see `vae-jax list`).
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import LocalAR
from vae_jax.objectives import Aggressive
from vae_jax.train import LearningRate, Optimizer


def get_config() -> Config:
    network = LocalAR((256,), kernel=7, pixel_hidden=(32, 32), code_scale=0.01)
    return Config(
        steps=1_500,
        data=DataConfig("mnist", batch_size=64, binarize="dynamic"),
        model=VAE(latent_dim=16, network=network, objective=Aggressive(inner=10, steps=750)),
        optimizer=Optimizer(lr=2e-3, clip=5.0, schedule=LearningRate("cosine", final=0.05)),
    )
