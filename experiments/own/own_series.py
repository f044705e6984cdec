"""VAE of series [N, T, C], to be trained on arrays of your own; without any, on simulated damped oscillators.

Command:    vae-jax train own_series --data series.npy    (floats [N, T, C], or an .npz with series; NaN is missing)
            make train EXP=own_series                     (no download: oscillators that this file simulates)
Expect:     ELBO +93.3 +- 0.5, IW-100 +96.8, rate 13.2 nats (a density, so positive; 500 test series, 1 seed); squared
            error 0.0106 beside a noise of variance 0.01. Less than 2 minutes on 2 busy CPU cores.
Reference:  Kingma and Welling, arXiv:1312.6114; the oscillators are this project's own simulation.
"""

from typing import ClassVar, NamedTuple

import numpy as np

from vae_jax import data
from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig, DataSet, Source
from vae_jax.likelihoods import GaussianLearned
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.train import Optimizer

TIMES, NOISE = 64, 0.1
ROWS = {"train": range(0, 4_000), "validation": range(4_000, 4_500), "test": range(4_500, 5_000)}


class Oscillations(NamedTuple):
    """Series float32 [N, 64, 2], displacement and velocity, and the causes of each [N].

    The displacement at time t is a exp(-2 t) cos(2 pi f t + p) for t from 0 to 1, with noise of standard deviation 0.1.
    """

    x: np.ndarray
    amplitude: np.ndarray
    frequency: np.ndarray
    phase: np.ndarray


def simulated() -> Oscillations:
    """Returns all 5,000 oscillators, in the order of the splits."""
    # RandomState, whose streams never change: the numbers are part of the data set.
    random, n = np.random.RandomState(20181127), 5_000
    amplitude, frequency = random.uniform(0.5, 2.0, n), random.uniform(1.0, 4.0, n)
    phase = random.uniform(-np.pi, np.pi, n)
    t = np.linspace(0.0, 1.0, TIMES)
    angle = 2 * np.pi * frequency[:, None] * t + phase[:, None]
    # Velocity in units of the angular frequency, so that both channels have one scale.
    x = amplitude[:, None, None] * np.exp(-2 * t)[:, None] * np.stack([np.cos(angle), -np.sin(angle)], -1)
    x += NOISE * random.normal(size=x.shape)
    return Oscillations(x.astype(np.float32), amplitude, frequency, phase)


class Oscillators(DataSet):
    """Simulated damped oscillators: 5,000 series of 64 times and 2 channels, from known causes."""

    reference = "simulated by this experiment"
    protocols: ClassVar = {"standard": "4,000 train (rows 0-3999), 500 validation, 500 test, all drawn alike"}

    def load(self, config: DataConfig, split: str) -> Source:
        x = simulated().x
        info = data.Info(
            config.shown,
            x.shape[1:],
            {name: len(rows) for name, rows in ROWS.items()},
            "standard",
            self.protocols["standard"],
            values="float",
            where="computed",
            kind="sequence",
        )
        return data.from_arrays(info, split, {"x": x[ROWS[split]]}, config.pipeline)


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("experiment:Oscillators", batch_size=64),
        model=VAE(latent_dim=8, network=MLP((256, 256)), likelihood=GaussianLearned()),
        optimizer=Optimizer(lr=1e-3),
        logging=Logging(eval_every=500, best="elbo", figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
