"""Negative binomial VAE on simulated cells x features counts, whose dispersions are known.

Command:    make train EXP=counts_simulated
Expect:     TODO
Reference:  Lopez et al. 2018, Deep generative modeling for single-cell transcriptomics (scVI).
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.likelihoods import NegativeBinomial
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.train import Optimizer


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("counts", batch_size=100),
        model=VAE(latent_dim=4, network=MLP((64,)), likelihood=NegativeBinomial()),
        optimizer=Optimizer(lr=3e-3),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
