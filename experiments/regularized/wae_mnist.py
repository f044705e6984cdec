"""Wasserstein autoencoder with a deterministic encoder on MNIST: codes held at the prior by the MMD.

Command:    make train EXP=wae_mnist
Variants:   adversarial, `make train EXP=wae_mnist ARGS="--model.objective wae-gan"`; sliced,
            ARGS="--model.objective sliced-wae --model.objective.lam 100".
Expect:     MSE 0.0225 per pixel (10,000 test images, 1 seed).
Reference:  Tolstikhin et al., arXiv:1711.01558; Makhzani et al., arXiv:1511.05644; Kolouri et al., arXiv:1804.01947.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import WaeMMD
from vae_jax.posteriors import Delta


def get_config() -> Config:
    return Config(
        steps=2_500,
        data=DataConfig("mnist", batch_size=100),
        model=VAE(latent_dim=8, network=MLP((256,)), objective=WaeMMD(lam=100.0), posterior=Delta()),
        logging=Logging(figures_minutes=0.0),
    )
