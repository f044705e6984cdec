"""VAE with a resampled prior (LARS) on scikit-learn's 8x8 digits: N(0, I) filtered by a trained acceptance.

Command:    make train EXP=lars_digits
            make train EXP=lars_digits ARGS="--model.prior mog"      (mixture of Gaussians)
Expect:     ELBO -23.7 +- 0.2, IW-100 -23.2 +- 0.2, rate 3.13 +- 0.10 nats, 8 active units (180 test images, 1 seed).
Reference:  Bauer & Mnih, arXiv:1810.11428.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.priors import Resampled


def get_config() -> Config:
    return Config(
        steps=4_000,
        data=DataConfig("digits", batch_size=64),
        model=VAE(latent_dim=8, network=MLP((128, 128)), prior=Resampled(hidden=(64, 64))),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
