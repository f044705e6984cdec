"""VQ-VAE-2 on CIFAR-10: 512 codes at each of 4 x 4 places for what is global, and 512 at each of 8 x 8 for detail.

Command:    make train EXP=vq_vae2_cifar
Expect:     not measured yet.
Reference:  Razavi et al., arXiv:1906.00446 (images of 256 x 256, grids of 32 x 32 and 64 x 64).
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.likelihoods import Gaussian
from vae_jax.models import VQVAE2
from vae_jax.networks import ResidualConv
from vae_jax.quantizers import VQ
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=10_000,
        data=DataConfig("cifar10", batch_size=32),
        # Likelihood and codebooks as in vq_vae_cifar, so that a second grid is all that differs.
        model=VQVAE2(
            features=64,
            network=ResidualConv(hidden=128, stages=2, blocks=2, block_hidden=32),
            likelihood=Gaussian(std=0.154, center=0.5),
            quantizer=VQ(codes=512, decay=0.99, commitment=0.25, epsilon=1e-5),
        ),
        optimizer=Optimizer(lr=3e-4),
    )
