"""The dVAE of DALL-E on CIFAR-10: Gumbel-softmax over 8,192 codes, logit-Laplace pixels, a grid of 8 x 8.

DALL-E itself has images of 256 x 256 and a grid of 32 x 32: squares of 8 x 8 pixels, where those here are 4 x 4.

Command:    make train EXP=dvae_cifar
Expect:     not measured yet.
Reference:  Ramesh et al., arXiv:2102.12092, sec. 2.1 and appendix A.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.likelihoods import LogitLaplace
from vae_jax.models import VQVAE
from vae_jax.networks import ResidualConv
from vae_jax.quantizers import Gumbel
from vae_jax.train import LearningRate, Optimizer


def get_config() -> Config:
    steps = 20_000
    return Config(
        steps=steps,
        data=DataConfig("cifar10", batch_size=64),
        model=VQVAE(
            features=128,
            network=ResidualConv(hidden=128, stages=2, blocks=2, block_hidden=64),
            likelihood=LogitLaplace(epsilon=0.1),
            # The paper's weight of the KL is 6.6, where a code stands for 8 x 8 x 3 numbers. Here it stands for a
            # quarter of them, so that a quarter of the weight is the same for each number. The temperature falls from
            # 1 to 1/16 as there, over the first half of the steps.
            quantizer=Gumbel(
                codes=8_192, kl=6.6 / 4, temperature=1.0, final_temperature=1 / 16, anneal_steps=steps // 2
            ),
        ),
        optimizer=Optimizer(lr=3e-4, schedule=LearningRate("cosine", final=0.01)),
    )
