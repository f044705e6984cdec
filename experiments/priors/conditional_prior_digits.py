"""Conditional VAE on scikit-learn's 8x8 digits whose prior p(z|label) is trained; the encoder alone sees no label.

Command:    make train EXP=conditional_prior_digits
            vae-jax sample runs/conditional_prior_digits --label 3
            make train EXP=conditional_prior_digits ARGS="--model.prior normal"     (the label must go to the decoder)
Expect:     ELBO -22.6 +- 0.5, IW-100 -21.4 +- 0.3, rate 3.07 +- 0.37 nats, 8 active units (180 test images, 1 seed).
Reference:  Sohn, Lee & Yan 2015, Learning structured output representation using deep conditional generative models.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.priors import ConditionalNormal


def get_config() -> Config:
    return Config(
        steps=4_000,
        data=DataConfig("digits", batch_size=64),
        model=VAE(
            latent_dim=8,
            network=MLP((128, 128)),
            prior=ConditionalNormal(),
            condition=Condition("label", encoder=False, decoder=False),
        ),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(k=(100,)),
    )
