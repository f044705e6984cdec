"""VQ-VAE on Fashion-MNIST, a mixture of logistics at each pixel: 512 codes for each of 7 x 7 squares. First stage.

Command:    make train EXP=vq_vae_fashion
Expect:     distortion 1,701.2 +- 4.9 nats, PSNR 23.54 +- 0.03 dB, usage 100 %, perplexity 369; with equally likely
            codes 3.693 +- 0.009 bits per dimension (10,000 test images, 1 seed).
Reference:  van den Oord et al., arXiv:1711.00937.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.likelihoods import LogisticMixture
from vae_jax.models import VQVAE
from vae_jax.networks import ResidualConv
from vae_jax.quantizers import VQ
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=5_000,
        data=DataConfig("fashion_mnist", batch_size=64),
        model=VQVAE(
            features=32,
            network=ResidualConv(hidden=64, stages=2, blocks=2, block_hidden=32),
            likelihood=LogisticMixture(components=3),
            quantizer=VQ(codes=512, kmeans=5, revive=0.1),
        ),
        optimizer=Optimizer(lr=1e-3),
    )
