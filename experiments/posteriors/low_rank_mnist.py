"""Diagonal plus rank-2 Gaussian posterior on dynamically binarized MNIST.

Command:    make train EXP=low_rank_mnist
Expect:     ELBO -106.7 +- 0.9, IW-100 -101.8 +- 0.9, rate 25.2 +- 0.1 nats, 20 active units (1,000 test images, 1
            seed).
Reference:  Ong, Nott & Smith, arXiv:1701.03208.
"""

from vae_jax.config import Config, Evaluation
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.posteriors import LowRank


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=VAE(latent_dim=20, network=MLP((256,)), posterior=LowRank(rank=2)),
        evaluation=Evaluation(k=(100,), limit=1_000),
    )
