"""beta-TCVAE on procedural sprites: total correlation from a batch by stratified sampling, MI and TC logged.

Command:    make train EXP=beta_tc_sprites
Variants:   with the covariance of the codes in place of the TC, `make train EXP=beta_tc_sprites
            ARGS="--model.objective dip-ii"` (or dip-i); with the rate held at a rising capacity,
            ARGS="--model.objective capacity --model.objective.gamma 100 --model.objective.capacity-steps 1500".
Expect:     ELBO -42.7 +- 0.2, rate 9.59 +- 0.01 nats, 7 active units (7,373 test images, 1 seed).
Reference:  Chen et al., arXiv:1802.04942; Kumar et al., arXiv:1711.00848; Burgess et al., arXiv:1804.03599.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import BetaTC


def get_config() -> Config:
    return Config(
        steps=2_500,
        data=DataConfig("sprites", batch_size=100),
        model=VAE(latent_dim=10, network=MLP((256,)), objective=BetaTC(beta=6.0)),
        logging=Logging(figures_minutes=0.0),
    )
