"""Codes in (0, 1) on dynamically binarized MNIST: Kumaraswamy posterior, Beta(0.5, 0.5) prior that favors the ends.

Command:    make train EXP=kumaraswamy_mnist
Expect:     ELBO -121.9 +- 1.1, IW-100 -115.5 +- 1.0, rate 20.8 +- 0.1 nats, 20 active units (1,000 test images, 1
            seed).
Reference:  Nalisnick & Smyth, arXiv:1605.06197.
"""

from vae_jax.config import Config, Evaluation
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.posteriors import Kumaraswamy
from vae_jax.priors import Beta


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=VAE(latent_dim=20, network=MLP((256,)), posterior=Kumaraswamy(), prior=Beta(0.5, 0.5)),
        evaluation=Evaluation(k=(100,), limit=1_000),
    )
