"""Full-covariance Gaussian posterior on the 8x8 digits: what a diagonal posterior of `vae_digits` gives away.

Command:    make train EXP=full_gaussian_digits
Expect:     ELBO -23.9 +- 0.3, IW-100 -23.4 +- 0.2, rate 3.39 +- 0.05 nats, 8 active units (180 test images, 1 seed).
Reference:  Kingma & Welling, arXiv:1906.02691.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.posteriors import FullCovariance


def get_config() -> Config:
    return Config(
        steps=4_000,
        data=DataConfig("digits", batch_size=100),
        model=VAE(latent_dim=8, network=MLP((128, 128)), posterior=FullCovariance()),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
