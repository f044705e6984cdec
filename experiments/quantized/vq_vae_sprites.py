"""VQ-VAE on sprites in color, 32x32: 64 codes for each of 8 x 8 squares; embedded data, a first stage in color.

Command:    make train EXP=vq_vae_sprites
Variants:   64x64 and a code for each of 16 x 16 squares, `make train EXP=vq_vae_sprites ARGS="--data.image-size 64"`.
Expect:     not measured yet.
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
        steps=3_000,
        data=DataConfig("color_sprites", batch_size=64, image_size=32),
        model=VQVAE(
            features=16,
            network=ResidualConv(hidden=64, stages=2, blocks=1, block_hidden=32),
            likelihood=Gaussian(std=0.1),
            # Most squares are black: without revival one code would take them, and few others be seen.
            quantizer=VQ(codes=64, kmeans=5, revive=0.05),
        ),
    )
