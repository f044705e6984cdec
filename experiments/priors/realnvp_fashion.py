"""Coupling flows on both sides, posterior and prior, on dynamically binarized Fashion-MNIST.

Command:    make train EXP=realnvp_fashion
            make train EXP=realnvp_fashion ARGS="--model.posterior gaussian --model.prior normal"   (no flow)
Expect:     ELBO -242.2 +- 2.4, IW-50 -240.2 +- 2.4, rate 14.8 +- 0.1 nats, 20 active units (1,000 test images, 1
            seed).
Reference:  Dinh et al., arXiv:1605.08803 (the layers); Roeder et al., arXiv:1703.09194 (the gradient).
"""

from vae_jax.config import Config, Evaluation
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import StickingTheLanding
from vae_jax.posteriors import Coupling
from vae_jax.priors import FlowPrior


def get_config() -> Config:
    return Config(
        steps=2_500,
        data=DataConfig("fashion_mnist", batch_size=100, binarize="dynamic"),
        model=VAE(
            latent_dim=20,
            network=MLP((256,)),
            posterior=Coupling(layers=4),
            prior=FlowPrior(layers=4),
            # The inverse of a coupling layer is as cheap as the layer, so is log q of a given code.
            gradient=StickingTheLanding(),
        ),
        evaluation=Evaluation(k=(50,), limit=1_000),
    )
