"""VAE with an MLP 784-512-512-20 on gray-level Fashion-MNIST, 20 epochs.

Command:    make train EXP=vae_fashion_mnist
Expect:     ELBO -239.4 +- 0.8 nats, distortion 226.0, rate 13.5 on the 10,000 test images (gray levels as Bernoulli
            targets, no binarization), 1 seed, 8 of 20 active units. 2 minutes on 2 CPU cores.
Reference:  Kingma & Welling, arXiv:1312.6114; data: Xiao et al., arXiv:1708.07747.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=9_375,  # 20 epochs of 60,000 images in batches of 128
        data=DataConfig("fashion_mnist", batch_size=128),
        model=VAE(latent_dim=20, network=MLP((512, 512))),
    )
