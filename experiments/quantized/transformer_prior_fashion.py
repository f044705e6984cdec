"""Second stage of Fashion-MNIST: an autoregressive transformer over the 7 x 7 codes of a VQ-VAE, given the label.

Command:    make train EXP=transformer_prior_fashion ARGS="--stage1 runs/vq_vae_fashion"
Expect:     ELBO -1844.9 +- 5.1, rate 143.7 +- 0.4 nats (305.7 of equally likely codes), 3.395 +- 0.009 bits per
            dimension of both stages (10,000 test images, 1 seed).
Reference:  van den Oord et al., arXiv:1711.00937, sec. 3.3; transformer: arXiv:2012.09841; guidance: arXiv:2207.12598.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.models import SecondStage
from vae_jax.models.stage2 import Transformer
from vae_jax.models.stage2.config import PriorCondition
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("fashion_mnist", batch_size=64),
        model=SecondStage(
            generator=Transformer(width=128, depth=4, heads=4, dropout=0.1),
            condition=PriorCondition("label"),
        ),
        optimizer=Optimizer(lr=5e-4),
    )
