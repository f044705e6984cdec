"""Second stage of digits: flow matching on straight paths over the 8 latents of a plain VAE, given the label.

Command:    make train EXP=flow_prior_digits ARGS="--stage1 runs/vae_digits"
Expect:     not measured yet.
Reference:  Lipman et al., arXiv:2210.02747; guidance: arXiv:2207.12598.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.models import SecondStage
from vae_jax.models.stage2 import FlowMatching
from vae_jax.models.stage2.config import PriorCondition
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=5_000,
        data=DataConfig("digits", batch_size=128),
        model=SecondStage(
            generator=FlowMatching(width=128, blocks=2),
            condition=PriorCondition("label"),
        ),
        optimizer=Optimizer(lr=1e-3),
    )
