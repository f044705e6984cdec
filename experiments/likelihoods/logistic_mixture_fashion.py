"""Fashion-MNIST in bits per dimension: a mixture of discretized logistics at every pixel.

Command:    make train EXP=logistic_mixture_fashion
Expect:     ELBO -1990.1 +- 12.6, rate 51.4 +- 0.2 nats, 20 active units (2,000 test images, 1 seed).
Reference:  Salimans et al., arXiv:1701.05517 (PixelCNN++).
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.likelihoods import LogisticMixture
from vae_jax.models import VAE
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=1_500,
        data=DataConfig("fashion_mnist", batch_size=100),
        model=VAE(latent_dim=20, network=MLP((256,)), likelihood=LogisticMixture(components=3)),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(limit=2_000),
    )
