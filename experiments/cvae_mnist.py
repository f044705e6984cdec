"""Conditional VAE on MNIST: encoder and decoder know the label; one class per row in figures/class_grid.png.

Command:    make train EXP=cvae_mnist
Expect:     ELBO -110.7 +- 0.3, IW-10 -107.4 +- 0.3, rate 15.03 +- 0.03 nats, 10 active units (10,000 test images, 1
            seed).
Reference:  Sohn et al. 2015.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=4_000,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=VAE(latent_dim=10, network=MLP((256,)), condition=Condition("label")),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(10,)),
    )
