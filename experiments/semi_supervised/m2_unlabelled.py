"""Semi-supervised M2 on scikit-learn's 8x8 digits, the labels of nine in ten unknown (-1): seconds, no download.

Your own data need no class: labels of -1 in an .npz, or a folder `unlabeled` beside class folders, and `--data PATH`.

Command:    make train EXP=m2_unlabelled
Expect:     ELBO -23.4 +- 0.2, rate 3.15 +- 0.04 nats, accuracy 0.900 +- 0.022, 2 active units (180 test images, 1
            seed); with `data.labels` 162, as many labels, the accuracy is 0.883 +- 0.024.
Reference:  Kingma et al. 2014, arXiv:1406.5298.
"""

import dataclasses

import numpy as np

from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig, DataSet, Source, from_arrays
from vae_jax.data import digits as whole
from vae_jax.models import M2
from vae_jax.networks import MLP

KNOWN = 10  # one label in so many training examples is known


class Digits(DataSet):
    """scikit-learn's digits, of which one training example in ten has a label."""

    reference = "Alpaydin and Kaynak 1998, UCI Optical Recognition of Handwritten Digits"
    protocols = whole.PROTOCOLS

    def load(self, config: DataConfig, split: str) -> Source:
        source = whole.load(config, split)
        if split != "train":
            return dataclasses.replace(source, info=dataclasses.replace(source.info, unlabeled=True))
        label = np.where(np.arange(source.size) % KNOWN == 0, source.arrays["label"], -1)
        info = dataclasses.replace(source.info, unlabeled=True)
        return from_arrays(info, split, {**source.arrays, "label": label.astype(np.int32)}, config.pipeline)


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("experiment:Digits", batch_size=50),
        model=M2(latent_dim=2, network=MLP((128,)), alpha=1.0, width=64),
        logging=Logging(figures_minutes=0.0),
    )
