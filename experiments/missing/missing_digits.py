"""MIWAE-style VAE on 8x8 digits of which 30 % of the entries are missing, and what it fills in: a minute, no download.

Command:    make train EXP=missing_digits
            vae-jax impute runs/missing_digits --input F.npy --out G.npy fills in digits with NaN.
Expect:     ELBO -34.9 +- 3.6, IW-100 -7.8 +- 2.6 nats of the observed pixels, 8 active units (180 test images, 1 seed).
            RMSE of the missing test pixels by `impute` (K = 1,000): 0.178; pPCA by EM on the observed pixels 0.196 with
            8 components and 0.188 with 16, the mean of each pixel 0.269.
Reference:  Mattei & Frellsen 2019, arXiv:1812.02633.
"""

import dataclasses

import numpy as np

from vae_jax import data
from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig, DataSet, Source
from vae_jax.likelihoods import GaussianLearned
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import IWAE

SHARE, SEED = 0.3, 0


class MissingDigits(DataSet):
    """scikit-learn's digits, 30 % of the entries missing completely at random."""

    reference = "Alpaydin and Kaynak 1998; the entries that are missing are drawn here"
    protocols = data.DATASETS["digits"].protocols

    def load(self, config: DataConfig, split: str) -> Source:
        whole = data.DATASETS["digits"].load(dataclasses.replace(config, name="digits", pipeline="device"), split)
        arrays = {name: np.asarray(value) for name, value in whole.arrays.items()}
        # A seed per split, so that each is the same whichever is read first.
        rng = np.random.default_rng([SEED, data.SPLITS.index(split)])
        mask = rng.uniform(size=arrays["image"].shape) >= SHARE
        arrays |= {"image": arrays["image"] * mask, "mask": mask}
        return data.from_arrays(dataclasses.replace(whole.info, mask=True), split, arrays, config.pipeline)


def get_config() -> Config:
    return Config(
        steps=6_000,
        data=DataConfig("experiment:MissingDigits", batch_size=64),
        model=VAE(8, MLP((128, 128)), GaussianLearned(init_std=0.3), objective=IWAE(k=5), mask_input=True),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
