"""Free bits on dynamically binarized MNIST: a floor of 0.5 nats per latent dimension, so that all of them are used.

Command:    make train EXP=free_bits_mnist
Variants:   one floor for all dimensions, `make train EXP=free_bits_mnist ARGS="--model.objective minimum-kl
            --model.objective.target 30"`; a weight that adapts, ARGS="--model.objective soft-free-bits
            --model.objective.target 30"; a constraint on the error, ARGS="--model.objective geco
            --model.objective.tolerance 0.2".
Expect:     ELBO -109.5 +- 0.6, IW-20 -104.4 +- 0.6, rate 31.0 +- 0.1 nats, 32 active units (2,000 test images, 1
            seed).
Reference:  Kingma et al., arXiv:1606.04934; Chen et al., arXiv:1611.02731; Rezende & Viola, arXiv:1810.00597.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import FreeBits


def get_config() -> Config:
    return Config(
        steps=2_500,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=VAE(latent_dim=32, network=MLP((256,)), objective=FreeBits(free_nats=0.5)),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(limit=2_000, k=(20,)),
    )
