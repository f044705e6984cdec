"""Second stage of Fashion-MNIST: MaskGIT over the 7 x 7 codes of a VQ-VAE, given the label; samples in 12 passes.

Command:    make train EXP=masked_prior_fashion ARGS="--stage1 runs/vq_vae_fashion"
Expect:     not measured yet.
Reference:  Chang et al., arXiv:2202.04200; guidance: arXiv:2207.12598.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.models import SecondStage
from vae_jax.models.stage2 import Masked
from vae_jax.models.stage2.config import PriorCondition
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=5_000,
        data=DataConfig("fashion_mnist", batch_size=64),
        model=SecondStage(
            generator=Masked(width=128, depth=4, heads=4, dropout=0.1, passes=12),
            condition=PriorCondition("label"),
        ),
        optimizer=Optimizer(lr=5e-4),
    )
