"""Second stage of digits: diffusion (EDM) over the 8 latents of a plain VAE, given the label.

Command:    make train EXP=diffusion_prior_digits ARGS="--stage1 runs/vae_digits"
Expect:     not measured yet.
Reference:  Karras et al., arXiv:2206.00364; over latents: arXiv:2112.10752; guidance: arXiv:2207.12598.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.models import SecondStage
from vae_jax.models.stage2 import Diffusion
from vae_jax.models.stage2.config import PriorCondition
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=5_000,
        data=DataConfig("digits", batch_size=128),
        model=SecondStage(
            generator=Diffusion(width=128, blocks=2),
            condition=PriorCondition("label"),
        ),
        optimizer=Optimizer(lr=1e-3),
    )
