"""Skip-VAE: the code enters every layer of a deep decoder with dropout, on scikit-learn's real 8x8 digits.

Command:    make train EXP=skip_vae_digits
Expect:     ELBO -23.8 +- 0.2, rate 3.36 +- 0.05 nats, 5 active units (180 test images, 1 seed).
Reference:  Dieng et al., arXiv:1807.04863.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP


def get_config() -> Config:
    network = MLP((128, 128), decoder_hidden=(128, 128, 128, 128), dropout=0.1, skip=True)
    return Config(
        steps=4_000,
        data=DataConfig("digits", batch_size=64),
        model=VAE(latent_dim=8, network=network),
        logging=Logging(figures_minutes=0.0),
    )
