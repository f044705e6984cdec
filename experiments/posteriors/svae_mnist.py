"""Hyperspherical VAE on dynamically binarized MNIST: von Mises-Fisher posterior, uniform prior on the sphere of R^11.

Command:    make train EXP=svae_mnist
Expect:     ELBO -109.4 +- 1.0, IW-100 -105.8 +- 1.0, rate 17.91 +- 0.05 nats, 11 active units (1,000 test images, 1
            seed).
Published:  IW-500 -93.16 +- 0.31 on dynamically binarized MNIST, trained to convergence (arXiv:1804.00891); here 7
            epochs.
Reference:  Davidson et al., arXiv:1804.00891.
"""

from vae_jax.config import Config, Evaluation
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.posteriors import VonMises
from vae_jax.priors import Sphere


def get_config() -> Config:
    return Config(
        steps=4_000,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=VAE(latent_dim=11, network=MLP((256, 128)), posterior=VonMises(), prior=Sphere()),
        evaluation=Evaluation(k=(100,), limit=1_000),
    )
