"""Negative binomial VAE on simulated cells x features counts, whose dispersions are known.

Command:    make train EXP=counts_simulated
            The others on the same data: --model.likelihood poisson, zero-inflated-nb or multinomial.
Expect:     ELBO -580.8 +- 0.5, IW-100 -578.4, rate 7.7 nats (of counts given their total; 200 test cells, 3 seeds);
            poisson -1293. Log dispersions correlate with the true ones at 0.99, median ratio 0.96. 1 minute on 2 busy
            CPU cores.
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
