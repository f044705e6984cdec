"""Posterior collapse to look at: a strong autoregressive decoder under the plain ELBO, on binary MNIST.

Command:    make train EXP=collapse_mnist
Expect:     collapse: KL 0.06, I(x;z) 0.06, ELBO -92.9 nats (`make collapse`, method plain: 10,000 test images, one
            binarization, one posterior sample, 1 seed).
Reference:  Chen et al., arXiv:1611.02731 (decoders over a local window); Bowman et al., arXiv:1511.06349 (collapse).
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import LocalAR
from vae_jax.train import LearningRate, Optimizer


def get_config() -> Config:
    return Config(
        steps=400,
        data=DataConfig("mnist", batch_size=64, binarize="dynamic"),
        model=VAE(
            latent_dim=16, network=LocalAR((256,), kernel=15, pixel_hidden=(64, 64), code_maps=0, code_scale=0.01)
        ),
        optimizer=Optimizer(lr=2e-3, clip=5.0, schedule=LearningRate("cosine", final=0.05)),
    )
