"""Beta-distributed pixels on dequantized digits: a density on (0, 1) that can pile up at black and white.

Command:    make train EXP=beta_likelihood_digits
Expect:     ELBO 156.0 +- 1.4, IW-100 162.0 +- 1.3, rate 18.4 +- 0.1 nats, 16 active units (180 test images, 1 seed).
Reference:  Loaiza-Ganem and Cunningham, arXiv:1907.06845 (which compares with it).
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.likelihoods import BetaDensity
from vae_jax.models import VAE
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("digits", batch_size=100, dequantize=True),
        model=VAE(latent_dim=16, network=MLP((256,)), likelihood=BetaDensity()),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
