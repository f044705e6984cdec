"""Semi-supervised M2 on scikit-learn's 8x8 digits with 50 labels: seconds, no download.

Command:    make train EXP=m2_digits
Expect:     ELBO -23.7 +- 0.2, rate 3.26 +- 0.04 nats, accuracy 0.889 +- 0.023, 2 active units (180 test images, 1
            seed).
Reference:  Kingma et al. 2014, arXiv:1406.5298.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import M2
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("digits", batch_size=50, labels=50),
        model=M2(latent_dim=2, network=MLP((128,)), alpha=1.0, width=64),
        logging=Logging(figures_minutes=0.0),
    )
