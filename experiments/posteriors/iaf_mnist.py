"""VAE with an inverse autoregressive flow of 3 layers as its posterior, on dynamically binarized MNIST.

Command:    make train EXP=iaf_mnist
            make train EXP=iaf_mnist ARGS="--model.posterior gaussian"   (no flow)
Expect:     ELBO -105.5 +- 0.9, IW-50 -101.1 +- 0.9, rate 24.5 +- 0.2 nats, 20 active units (1,000 test images, 1
            seed).
Reference:  Kingma et al., arXiv:1606.04934.
"""

from vae_jax.config import Config, Evaluation
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.posteriors import InverseAutoregressive


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=VAE(latent_dim=20, network=MLP((256,)), posterior=InverseAutoregressive(layers=3)),
        evaluation=Evaluation(k=(50,), limit=1_000),
    )
