"""LeNet that tells MNIST digits apart: its last hidden layer is the feature space of the generation metrics.

Command:    make train EXP=features_mnist, then `vae-jax eval RUN --metrics generation --features runs/features_mnist`
            (for Fashion-MNIST: ARGS="--data.name fashion_mnist")
Expect:     accuracy 0.986 +- 0.001 (10,000 test images, 1 seed).
Reference:  LeCun et al. 1998; a network of the data's own for such metrics: arXiv:1801.01401, sec. 4.
"""

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import Classifier
from vae_jax.networks import LeNet


def get_config() -> Config:
    return Config(
        steps=2_000,
        data=DataConfig("mnist", batch_size=100),
        model=Classifier(latent_dim=2, network=LeNet(), alpha=100.0),
        logging=Logging(figures_minutes=0.0),
    )
