"""VAE of RGB photographs, to be trained on a folder of your own; without one, on crops of two bundled photographs.

Command:    vae-jax train own_images --data photos/     (pictures of any size, brought to 64 x 64)
            make train EXP=own_images                   (no download: crops of the two photographs in scikit-learn)
Expect:     ELBO +11,793 +- 640 nats (a density over [0, 1]^12,288, so positive), rate 312, PSNR 28.6 dB (184 test
            crops, 1 seed). Of 300 photographs, 31 held out: PSNR 20.1 dB. 9 minutes on one CPU core.
Reference:  Rybkin et al., arXiv:2006.13202 (the variance of the pixels is the optimal one, so no beta is tuned).
"""

from typing import Any, ClassVar

import numpy as np

from vae_jax import data
from vae_jax.config import Config, Logging
from vae_jax.data import DataConfig, DataSet, Source
from vae_jax.data.augment import Augment
from vae_jax.errors import InputError, option
from vae_jax.likelihoods import GaussianOptimal
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.train import LearningRate, Optimizer

SIDE, STRIDE = 64, 16
# Left edges of the crops in pixels: no pixel is in two splits.
COLUMNS = {"train": range(0, 353, STRIDE), "validation": range(416, 465, STRIDE), "test": range(528, 577, STRIDE)}


class Crops(DataSet):
    """Crops of two photographs (427 x 640) of a temple and a flower: train left, validation and test right."""

    reference = "scikit-learn's sample images, CC BY 2.0"
    protocols: ClassVar = {
        "standard": "64x64 crops, 16 pixels apart: train left, validation and test right, no pixel in two"
    }
    resizable = True

    def load(self, config: DataConfig, split: str) -> Source:
        from sklearn.datasets import load_sample_images

        own = f"or name photographs of your own with {option('data', 'photos/')}"
        if config.size not in (None, (SIDE, SIDE)):
            fix = option("data.image_size", SIDE)
            raise InputError(f"data.image_size: the crops are {SIDE}x{SIDE} and are not resized; use {fix}, {own}")
        if config.channels == "grey":
            fix = option("data.channels", "rgb")
            raise InputError(f"data.channels: the crops are in color and are not converted; use {fix}, {own}")
        found: Any = load_sample_images()
        rows = range(0, found.images[0].shape[0] - SIDE + 1, STRIDE)
        crops = {
            name: np.stack([p[y : y + SIDE, x : x + SIDE] for p in found.images for y in rows for x in columns])
            for name, columns in COLUMNS.items()
        }
        sizes = {name: len(value) for name, value in crops.items()}
        info = data.Info(
            config.shown, (SIDE, SIDE, 3), sizes, "standard", self.protocols["standard"], where="scikit-learn"
        )
        return data.from_arrays(info, split, {"image": crops[split]}, config.pipeline)


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig(
            "experiment:Crops",
            batch_size=32,
            image_size=SIDE,
            channels="rgb",
            augment=Augment(flip="horizontal", crop=0.6),
        ),
        # From a few hundred photographs a convolutional net learns edges first and colors last, or never.
        model=VAE(latent_dim=64, network=MLP((512,)), likelihood=GaussianOptimal()),
        optimizer=Optimizer(lr=1e-3, schedule=LearningRate("cosine", final=0.05)),
        logging=Logging(eval_every=1_000, best="elbo"),
    )
