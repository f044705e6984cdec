"""VQ-VAE on CIFAR-10, the protocol of sonnet's example: 512 codes of length 64 for each of 8 x 8 squares.

Command:    make train EXP=vq_vae_cifar
Expect:     squared error 0.00356 +- 0.00002, 0.0563 of the variance of the training data; PSNR 24.96 +- 0.02 dB, usage
            100 %, perplexity 403 (10,000 test images, 1 seed). sonnet prints 0.056 and 324 to 332 in training.
Reference:  van den Oord et al., arXiv:1711.00937; EMA codebook: its appendix A.1; protocol: sonnet, examples/vqvae.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.likelihoods import Gaussian
from vae_jax.models import VQVAE
from vae_jax.networks import ResidualConv
from vae_jax.quantizers import VQ
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=10_000,
        data=DataConfig("cifar10", batch_size=32),
        # sonnet adds means: of the squared error over 3,072 numbers, divided by the variance of the data (.0633), and
        # of the commitment over 4,096. Sums over an image have the same ratio where 2 std^2 = 3072 / 4096 * .0633.
        # Its networks see pixels in [-0.5, 0.5].
        model=VQVAE(
            features=64,
            network=ResidualConv(hidden=128, stages=2, blocks=2, block_hidden=32),
            likelihood=Gaussian(std=0.154, center=0.5),
            quantizer=VQ(codes=512, decay=0.99, commitment=0.25, epsilon=1e-5),
        ),
        optimizer=Optimizer(lr=3e-4),
    )
