"""Second stage on a VQ-VAE of digits: an autoregressive transformer over its codes, conditioned on the label.

Train the first stage before it, and name its run: `vae-jax train transformer_prior_digits --stage1 runs/vq_vae_digits`.

Paper: Neural Discrete Representation Learning, sec. 3.3. [arXiv:1711.00937]
"""

from vae_jax.data.config import DataConfig
from vae_jax.models.stage2 import Transformer
from vae_jax.models.stage2.config import PriorCondition, SecondStage
from vae_jax.runs.config import Config, Evaluation
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=2000,
        data=DataConfig("digits", batch_size=128),
        model=SecondStage(
            generator=Transformer(width=64, depth=2, heads=4),
            condition=PriorCondition("label"),
        ),
        optimizer=Optimizer(lr=1e-3),
        evaluation=Evaluation(),
    )
