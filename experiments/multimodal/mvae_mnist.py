"""MVAE on MNIST: image and label of one code, fused as a product of experts.

Command:    make train EXP=mvae_mnist
Expect:     ELBO -108.2 +- 0.3, rate 23.61 +- 0.03 nats, accuracy 0.761 +- 0.004, 16 active units (10,000 test images, 1
            seed).
Reference:  Wu and Goodman 2018, arXiv:1802.05335.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import Multimodal
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=4_000,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=Multimodal(latent_dim=16, network=MLP((256,)), fusion="poe"),
        logging=Logging(figures_minutes=0.0),
    )
