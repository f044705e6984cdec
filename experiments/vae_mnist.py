"""VAE with an MLP 784-512-512-20 on gray-level MNIST, 50 epochs.

Command:    make train EXP=vae_mnist
Expect:     ELBO -96.7 +- 0.25 nats, distortion 74.2, rate 22.4, 15 of 20 active units. Protocol: gray levels v / 255 as
            targets of the Bernoulli cross entropy (no binarization: a bound on no density), the 10,000 test images,
            one posterior sample, 1 seed. 5 minutes on 2 CPU cores.
Reference:  Kingma & Welling, arXiv:1312.6114.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.train import LearningRate, Optimizer


def get_config() -> Config:
    return Config(
        steps=23_438,  # 50 epochs of 60,000 images in batches of 128
        data=DataConfig("mnist", batch_size=128),
        model=VAE(latent_dim=20, network=MLP((512, 512))),
        optimizer=Optimizer(lr=1e-3, schedule=LearningRate("cosine", final=0.05)),
        expected={
            "distortion": (72.5, 2.5, "goal of the project"),
            "elbo": (-104.0, 0.0, "goal of the project", "at least"),
        },
    )
