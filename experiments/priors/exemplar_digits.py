"""Exemplar VAE on scikit-learn's 8x8 digits: the prior is a mixture around the codes of 200 recent training images.

Command:    make train EXP=exemplar_digits
            make train EXP=exemplar_digits ARGS="--model.prior normal"      (the plain VAE)
Expect:     ELBO -23.4 +- 0.2, IW-100 -23.2 +- 0.2, rate 3.34 +- 0.10 nats, 8 active units (180 test images, 1 seed).
Reference:  Norouzi, Fleet & Norouzi, arXiv:2004.04795 (there: nearest neighbors in a cache of all codes).
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.priors import Exemplar


def get_config() -> Config:
    return Config(
        steps=4_000,
        data=DataConfig("digits", batch_size=64),
        # Far fewer exemplars than the 1,437 training images: an epoch's end and start then rarely meet in the buffer.
        model=VAE(latent_dim=8, network=MLP((128, 128)), prior=Exemplar(exemplars=200)),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
