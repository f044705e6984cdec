"""VAE with a VampPrior of 200 pseudo-inputs on dynamically binarized MNIST.

Command:    make train EXP=vampprior_mnist
            make train EXP=vampprior_mnist ARGS="--model.prior mog --model.prior.components 200"    (Gaussians)
            make train EXP=vampprior_mnist ARGS="--model.prior normal"                              (the plain VAE)
Expect:     ELBO -103.0 +- 1.0, IW-50 -98.7 +- 0.9, rate 22.6 +- 0.2 nats, 20 active units (1,000 test images, 1
            seed).
Published:  IW-5000 -82.43 (-84.45 with N(0, I)) for 500 pseudo-inputs, gated 300-300, z = 40, up to 2,000 epochs
            (re-run in arXiv:2004.04795); here 5 epochs.
Reference:  Tomczak & Welling, arXiv:1705.07120.
"""

from vae_jax.config import Config, Evaluation
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import Elbo
from vae_jax.priors import Vamp
from vae_jax.schedules import Linear


def get_config() -> Config:
    return Config(
        steps=3_000,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        # A warm-up, as in the paper: pseudo-inputs can only be of use once the encoder tells images apart.
        model=VAE(latent_dim=20, network=MLP((256,)), prior=Vamp(pseudo_inputs=200), objective=Elbo(Linear(steps=600))),
        evaluation=Evaluation(k=(50,), limit=1_000),
    )
