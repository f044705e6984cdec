"""Laplace posterior and sparse Laplace prior on the 8x8 digits.

Command:    make train EXP=laplace_digits
Expect:     ELBO -24.0 +- 0.3, IW-100 -23.5 +- 0.2, rate 3.48 +- 0.07 nats, 4 active units (180 test images, 1 seed).
Reference:  Kingma & Welling, arXiv:1312.6114, sec. 2.4.
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
        model=VAE(latent_dim=8, network=MLP((128, 128)), posterior=posteriors.Laplace(), prior=priors.Laplace()),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
