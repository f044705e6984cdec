"""Semi-supervised M2 on MNIST with 100 labels; a small code, so that the class carries what it can.

Command:    make train EXP=m2_mnist
Expect:     test accuracy 0.806 +- 0.006 (sd, 3 seeds) after 2,000 of its steps, by `python -m benchmarks.semi`.
Reference:  Kingma et al. 2014, arXiv:1406.5298.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import M2
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("mnist", batch_size=50, protocol="vampprior", binarize="dynamic", labels=100),
        model=M2(latent_dim=2, network=MLP((256,)), alpha=3.0),
        logging=Logging(figures_minutes=0.0),
    )
