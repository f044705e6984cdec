"""MMD-VAE on dynamically binarized MNIST: no rate in the loss, q(z) held at the prior by the MMD.

Command:    make train EXP=info_vae_mnist
Expect:     ELBO -144.9 +- 0.4, rate 50.1 +- 0.1 nats, 10 active units (10,000 test images, 1 seed).
Reference:  Zhao et al., arXiv:1706.02262, alpha = 1.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import InfoVAE


def get_config() -> Config:
    return Config(
        steps=2_500,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=VAE(latent_dim=10, network=MLP((256,)), objective=InfoVAE(alpha=1.0, lam=200.0)),
        logging=Logging(figures_minutes=0.0),
    )
