"""Codes in (0, 1) on the 8x8 digits: beta posterior by implicit reparameterization, uniform prior.

Command:    make train EXP=beta_codes_digits
Expect:     ELBO -23.8 +- 0.2, IW-100 -23.6 +- 0.2, rate 3.36 +- 0.04 nats, 5 active units (180 test images, 1 seed).
Reference:  Figurnov, Mohamed & Mnih, arXiv:1805.08498.
"""

from vae_jax import posteriors, priors
from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=4_000,
        data=DataConfig("digits", batch_size=100),
        model=VAE(latent_dim=8, network=MLP((128, 128)), posterior=posteriors.Beta(), prior=priors.Beta()),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
