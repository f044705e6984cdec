"""FSQ in the VQ-VAE on Fashion-MNIST: 8 x 5 x 5 x 5 = 1,000 implicit codes for each of 7 x 7 squares. First stage.

Command:    make train EXP=fsq_vae_fashion
Expect:     not measured yet.
Reference:  Mentzer et al., arXiv:2309.15505.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.likelihoods import Logistic256
from vae_jax.models import VQVAE
from vae_jax.networks import ResidualConv
from vae_jax.quantizers import FSQ
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=5_000,
        data=DataConfig("fashion_mnist", batch_size=64),
        model=VQVAE(
            # As many as FSQ has coordinates, so that nothing is projected.
            features=4,
            network=ResidualConv(hidden=64, stages=2, blocks=2, block_hidden=32),
            likelihood=Logistic256(),
            quantizer=FSQ(levels=(8, 5, 5, 5)),
        ),
        optimizer=Optimizer(lr=1e-3),
    )
