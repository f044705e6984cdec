"""VAE with a small MLP on scikit-learn's real 8x8 digits: embedded data, seconds on a CPU.

Command:    make train EXP=vae_digits
Expect:     ELBO -23.81 +- 0.09 nats, IW-100 -23.355 +- 0.006 on 180 test images (gray levels as Bernoulli targets; mean
            of 3 seeds and its standard error); 5 of 8 active units.
Reference:  Kingma & Welling, arXiv:1312.6114.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=5_000,
        data=DataConfig("digits", batch_size=64),
        model=VAE(latent_dim=8, network=MLP((128, 128))),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
