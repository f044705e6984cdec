"""Second stage of digits: an autoregressive transformer over the 4 x 4 codes of a VQ-VAE, given the label.

Command:    make train EXP=transformer_prior_digits ARGS="--stage1 runs/vq_vae_digits"
Expect:     not measured yet.
Reference:  van den Oord et al., arXiv:1711.00937, sec. 3.3; transformer: arXiv:2012.09841; guidance: arXiv:2207.12598.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import SecondStage
from vae_jax.models.stage2 import Transformer
from vae_jax.models.stage2.config import PriorCondition
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=2_000,
        data=DataConfig("digits", batch_size=128),
        model=SecondStage(
            generator=Transformer(width=64, depth=2, heads=4, dropout=0.3),
            condition=PriorCondition("label"),
        ),
        optimizer=Optimizer(lr=1e-3),
        # 1,437 images are soon known by heart: the run ends where the validation images are no longer better predicted.
        logging=Logging(eval_every=100, best="elbo"),
        patience=3,
    )
