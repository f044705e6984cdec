"""VAE with a pooled convolutional network (32-64-128, dense 512) on dynamically binarised MNIST.

Command:    make train EXP=conv_vae_mnist
Expect:     TO MEASURE
Reference:  Kingma & Welling, arXiv:1312.6114; dynamic binarisation as in arXiv:1509.00519.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import PooledConv
from vae_jax.train import LearningRate, Optimizer


def get_config() -> Config:
    return Config(
        steps=1_500,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=VAE(latent_dim=20, network=PooledConv()),
        optimizer=Optimizer(lr=1e-3, schedule=LearningRate("cosine", final=0.05)),
        logging=Logging(checkpoint_every=2_000),
        evaluation=Evaluation(k=(50,), limit=2_000),
    )
