"""beta-VAE on 64x64 sprites with the protocol of the disentanglement literature: 300,000 steps of batch 64.

Command:    make train EXP=beta_vae_dsprites
Expect:     not measured at full length: 300,000 steps take about 5 hours on 2 CPU cores (see `make bench` for the
            rate). The suite runs two steps of it.
Reference:  Higgins et al. 2017; protocol: Locatello et al., arXiv:1811.12359 (Adam 1e-4, 10 latents, Bernoulli).
The sprites are this project's own, on the dSprites factor grid (no anti-aliasing, other outlines), so scores are
comparable in protocol, not to the digit.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import Conv64
from vae_jax.objectives import Beta
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=300_000,
        data=DataConfig("sprites", batch_size=64, image_size=64, protocol="full"),
        model=VAE(latent_dim=10, network=Conv64(), objective=Beta(beta=4.0)),
        optimizer=Optimizer(lr=1e-4),
        logging=Logging(log_every=1_000, checkpoint_every=10_000, figures_minutes=10.0),
    )
