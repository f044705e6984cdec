"""VQ-VAE on 8x8 digits: 32 codes for each of 4 x 4 squares; half a minute on a CPU.

Command:    make train EXP=vq_vae_digits
Expect:     PSNR 22.86 +- 0.11 dB, usage 100 %, perplexity 26.9 of 32 codes (180 test images, 1 seed).
Reference:  van den Oord et al., arXiv:1711.00937.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.likelihoods import Gaussian
from vae_jax.models import VQVAE
from vae_jax.networks import ResidualConv
from vae_jax.quantizers import VQ


def get_config() -> Config:
    return Config(
        steps=2_000,
        data=DataConfig("digits", batch_size=64),
        model=VQVAE(
            features=16,
            network=ResidualConv(hidden=64, stages=1, blocks=1, block_hidden=32),
            likelihood=Gaussian(std=0.2),
            quantizer=VQ(codes=32, kmeans=5),
        ),
    )
