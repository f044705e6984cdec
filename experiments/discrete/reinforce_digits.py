"""Binary codes of 32 bits trained by REINFORCE with a moving-average baseline, on scikit-learn's real 8x8 digits.

Command:    make train EXP=reinforce_digits
Expect:     ELBO -24.8 +- 0.2, IW-100 -24.4 +- 0.2, rate 2.10 +- 0.05 nats, 16 active units (180 test images, 1 seed).
Reference:  Williams 1992.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import Reinforce
from vae_jax.posteriors import Binary
from vae_jax.priors import BernoulliPrior


def get_config() -> Config:
    return Config(
        steps=4_000,
        data=DataConfig("digits", batch_size=64),
        model=VAE(32, MLP((128,)), posterior=Binary(), prior=BernoulliPrior(), gradient=Reinforce()),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
