"""Second stage of digits: a gated PixelCNN over the 4 x 4 codes of a VQ-VAE, given the label.

Command:    make train EXP=pixelcnn_prior_digits ARGS="--stage1 runs/vq_vae_digits"
Expect:     not measured yet.
Reference:  van den Oord et al., arXiv:1711.00937, sec. 3.3; network: arXiv:1606.05328; guidance: arXiv:2207.12598.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import SecondStage
from vae_jax.models.stage2 import PixelCNN
from vae_jax.models.stage2.config import PriorCondition
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=2_000,
        data=DataConfig("digits", batch_size=128),
        model=SecondStage(
            generator=PixelCNN(hidden=32, layers=3, kernel=3, dropout=0.4),
            condition=PriorCondition("label"),
        ),
        optimizer=Optimizer(lr=1e-3),
        # 1,437 images are soon known by heart: the run ends where the validation images are no longer better predicted.
        logging=Logging(eval_every=100, best="elbo"),
        patience=3,
    )
