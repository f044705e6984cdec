"""MIWAE: the mean of four importance-weighted bounds of four samples each, on scikit-learn's real 8x8 digits.

Command:    make train EXP=miwae_digits
Expect:     ELBO -24.8 +- 0.3, IW-100 -23.3 +- 0.2, rate 2.92 +- 0.06 nats, 6 active units (180 test images, 1 seed).
Reference:  Rainforth et al., arXiv:1802.04537.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import MIWAE


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("digits", batch_size=64),
        model=VAE(latent_dim=8, network=MLP((128, 128)), objective=MIWAE(m=4, k=4)),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
