"""VAE on gray-level MNIST with the continuous Bernoulli: the density that cross entropy of gray levels is not.

Command:    make train EXP=continuous_bernoulli_mnist
            --model.likelihood bernoulli gives the usual cross entropy on the same pixels, without a normalizer.
Expect:     ELBO 4977.0 +- 17.6, IW-10 5006.3 +- 17.5, rate 120.8 +- 1.1 nats, 20 active units (2,000 test images, 1
            seed).
Reference:  Loaiza-Ganem and Cunningham, arXiv:1907.06845.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.likelihoods import ContinuousBernoulli
from vae_jax.models import VAE
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("mnist", batch_size=100),
        model=VAE(latent_dim=20, network=MLP((512, 512)), likelihood=ContinuousBernoulli()),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(10,), limit=2_000),
    )
