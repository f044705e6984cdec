"""VAE with a trained mixture of 50 Gaussians as prior on dynamically binarized Fashion-MNIST.

Command:    make train EXP=mog_fashion
            make train EXP=mog_fashion ARGS="--model.prior learned-normal"      (one trained Gaussian)
Expect:     ELBO -242.8 +- 2.4, IW-50 -239.3 +- 2.4, rate 16.7 +- 0.1 nats, 20 active units (1,000 test images, 1
            seed).
Reference:  mixture of Gaussians as the baseline of Tomczak & Welling, arXiv:1705.07120, sec. 4.2.
"""

from vae_jax.config import Config, Evaluation
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import Elbo
from vae_jax.priors import MixtureOfGaussians
from vae_jax.schedules import Linear


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("fashion_mnist", batch_size=100, binarize="dynamic"),
        model=VAE(
            latent_dim=20,
            network=MLP((256,)),
            prior=MixtureOfGaussians(components=50),
            objective=Elbo(Linear(steps=600)),
        ),
        evaluation=Evaluation(k=(50,), limit=1_000),
    )
