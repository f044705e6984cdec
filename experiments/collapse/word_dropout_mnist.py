"""The strong decoder with half of the pixels hidden from it in training, on binary MNIST.

Command:    make train EXP=word_dropout_mnist
Expect:     ELBO -97.9 +- 0.2, rate 14.8 +- 0.0 nats, 16 active units (10,000 test images, 1 seed).
Reference:  Bowman et al., arXiv:1511.06349 (word dropout).
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import LocalAR
from vae_jax.train import LearningRate, Optimizer


def get_config() -> Config:
    network = LocalAR(hidden=(256,), kernel=7, pixel_hidden=(32, 32), input_dropout=0.5, skip=True)
    return Config(
        steps=1_500,
        data=DataConfig("mnist", batch_size=64, binarize="dynamic"),
        model=VAE(latent_dim=16, network=network),
        optimizer=Optimizer(lr=2e-3, clip=5.0, schedule=LearningRate("cosine", final=0.05)),
    )
