"""Second stage of digits: absorbing diffusion over the 4 x 4 codes of a VQ-VAE, given the label.

Command:    make train EXP=absorbing_prior_digits ARGS="--stage1 runs/vq_vae_digits"
Expect:     not measured yet.
Reference:  Austin et al., arXiv:2107.03006; in continuous time: arXiv:2406.07524; guidance: arXiv:2207.12598.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import SecondStage
from vae_jax.models.stage2 import Absorbing
from vae_jax.models.stage2.config import PriorCondition
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=2_000,
        data=DataConfig("digits", batch_size=128),
        model=SecondStage(
            generator=Absorbing(width=64, depth=2, heads=4, passes=16, dropout=0.3),
            condition=PriorCondition("label"),
        ),
        optimizer=Optimizer(lr=1e-3),
        # 1,437 images are soon known by heart: the run ends where the validation images are no longer better predicted.
        logging=Logging(eval_every=100, best="elbo"),
        patience=3,
    )
