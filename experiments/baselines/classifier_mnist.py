"""The baseline of m2_mnist: the same networks, trained on the 100 labeled digits alone.

Command:    make train EXP=classifier_mnist
Expect:     test accuracy 0.759 +- 0.011 (sd, 3 seeds) after 2,000 steps, by `python -m benchmarks.semi`.
Reference:  Kingma et al. 2014, arXiv:1406.5298.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import Classifier
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=1_500,
        data=DataConfig("mnist", batch_size=50, protocol="vampprior", binarize="dynamic", labels=100),
        model=Classifier(latent_dim=2, network=MLP((256,))),
        logging=Logging(figures_minutes=0.0),
    )
