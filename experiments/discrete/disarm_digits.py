"""Binary codes of 32 bits trained by DisARM, on scikit-learn's real 8x8 digits.

Command:    make train EXP=disarm_digits
Expect:     ELBO -24.5 +- 0.2, IW-100 -24.1 +- 0.2, rate 2.39 +- 0.04 nats, 13 active units (180 test images, 1 seed).
Reference:  Dong et al., arXiv:2006.10680; Yin et al., arXiv:2006.10679.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import DisArm
from vae_jax.posteriors import Binary
from vae_jax.priors import BernoulliPrior


def get_config() -> Config:
    return Config(
        steps=4_000,
        data=DataConfig("digits", batch_size=64),
        model=VAE(32, MLP((128,)), posterior=Binary(), prior=BernoulliPrior(), gradient=DisArm()),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
