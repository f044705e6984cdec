"""Binary codes of 32 bits trained by REINFORCE with a moving-average baseline, on scikit-learn's real 8x8 digits.

Command:    make train EXP=reinforce_digits
Expect:     not measured yet.
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
