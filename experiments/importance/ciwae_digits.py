"""CIWAE: a twentieth of the ELBO and the rest of the bound of 16 samples, on scikit-learn's real 8x8 digits.

Command:    make train EXP=ciwae_digits
Expect:     ELBO -25.2 +- 0.3, IW-100 -23.3 +- 0.2, rate 2.82 +- 0.07 nats, 8 active units (180 test images, 1 seed).
Reference:  Rainforth et al., arXiv:1802.04537.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import CIWAE


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("digits", batch_size=64),
        model=VAE(latent_dim=8, network=MLP((128, 128)), objective=CIWAE(elbo_weight=0.05, k=16)),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
