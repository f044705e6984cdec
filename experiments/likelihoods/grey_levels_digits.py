"""Masses of the 256 gray levels of 8x8 digits by a discretized logistic: bits per dimension, no noise in the pixels.

Command:    make train EXP=grey_levels_digits
            A free mass for every level instead of a bell: --model.likelihood categorical-256
Expect:     ELBO -163.7 +- 1.7, IW-100 -158.7 +- 1.6, rate 18.8 +- 0.1 nats, 16 active units (180 test images, 1
            seed). The digits have 17 levels, which a free categorical can find and a logistic cannot.
Reference:  Kingma et al., arXiv:1606.04934 (discretized logistic); van den Oord et al., arXiv:1601.06759 (categorical).
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.likelihoods import Logistic256
from vae_jax.models import VAE
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("digits", batch_size=100),
        model=VAE(latent_dim=16, network=MLP((256,)), likelihood=Logistic256(pixelwise=True)),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
