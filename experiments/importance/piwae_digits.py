"""PIWAE: the encoder learns from MIWAE(4, 4), the decoder from the bound of all 16 samples; real 8x8 digits.

Command:    make train EXP=piwae_digits
Expect:     ELBO -25.4 +- 0.4, IW-100 -23.2 +- 0.2, rate 2.83 +- 0.05 nats, 8 active units (180 test images, 1 seed).
Reference:  Rainforth et al., arXiv:1802.04537.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import PIWAE


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("digits", batch_size=64),
        model=VAE(latent_dim=8, network=MLP((128, 128)), objective=PIWAE(m=4, k=4)),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
