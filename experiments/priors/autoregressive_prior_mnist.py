"""VAE with an autoregressive Gaussian prior, on dynamically binarized MNIST.

Command:    make train EXP=autoregressive_prior_mnist
            make train EXP=autoregressive_prior_mnist ARGS="--model.prior flow --model.prior.family maf"   (6 of them)
Expect:     ELBO -102.6 +- 1.0, IW-50 -98.6 +- 0.9, rate 22.7 +- 0.2 nats, 20 active units (1,000 test images, 1
            seed).
Reference:  Germain et al., arXiv:1502.03509 (MADE); Chen et al., arXiv:1611.02731 (autoregressive priors of VAEs).
"""

from vae_jax.config import Config, Evaluation
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.priors import Autoregressive


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=VAE(latent_dim=20, network=MLP((256,)), prior=Autoregressive()),
        evaluation=Evaluation(k=(50,), limit=1_000),
    )
