"""VAE with a radial flow of 6 layers as its posterior, on the 8x8 digits.

Command:    make train EXP=radial_digits
Expect:     ELBO -23.9 +- 0.2, IW-100 -23.7 +- 0.2, rate 3.27 +- 0.13 nats, 8 active units (180 test images, 1 seed).
Reference:  Rezende & Mohamed, arXiv:1505.05770.
"""

from vae_jax.config import Config, Evaluation
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.posteriors import Radial


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("digits", batch_size=100),
        model=VAE(latent_dim=8, network=MLP((256,)), posterior=Radial(layers=6)),
        evaluation=Evaluation(k=(100,)),
    )
