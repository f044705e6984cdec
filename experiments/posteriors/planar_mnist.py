"""VAE with a planar flow of 8 layers as its posterior, on dynamically binarized MNIST.

Command:    make train EXP=planar_mnist
            make train EXP=planar_mnist ARGS="--model.posterior gaussian"   (no flow)
Expect:     ELBO -108.5 +- 0.9, IW-50 -103.1 +- 0.9, rate 25.3 +- 0.2 nats, 20 active units (1,000 test images, 1
            seed).
Reference:  Rezende & Mohamed, arXiv:1505.05770.
"""

from vae_jax.config import Config, Evaluation
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import Elbo
from vae_jax.posteriors import Planar
from vae_jax.schedules import Linear


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        # A warm-up, as in the paper (sec. 6.1).
        model=VAE(latent_dim=20, network=MLP((256,)), posterior=Planar(layers=8), objective=Elbo(Linear(steps=600))),
        evaluation=Evaluation(k=(50,), limit=1_000),
    )
