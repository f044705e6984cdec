"""Categorical codes, 20 variables of 10 values each, trained by leave-one-out score functions on MNIST.

Command:    make train EXP=rloo_categorical_mnist
            ... --model.gradient pathwise trains the same model by Gumbel-softmax, and
            ... --model.posterior.relaxation straight-through by its straight-through form.
Expect:     ELBO -126.0 +- 1.1, IW-100 -114.9 +- 1.0, rate 23.9 +- 0.1 nats, 20 active units (1,000 test images, 1
            seed).
Reference:  Kool et al. 2019 (RLOO); Jang et al., arXiv:1611.01144 (Gumbel-softmax).
"""

from vae_jax.config import Config, Evaluation
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import LeaveOneOut
from vae_jax.posteriors import Categorical
from vae_jax.priors import UniformCategorical


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=VAE(
            20,
            MLP((256,)),
            posterior=Categorical(categories=10, anneal_steps=3_000),
            prior=UniformCategorical(),
            gradient=LeaveOneOut(k=4),
        ),
        evaluation=Evaluation(k=(100,), limit=1_000),
    )
