"""Fashion-MNIST with 1 - MS-SSIM as the distortion (two scales at 28x28): a loss for the eye, no bound on log p(x).

Command:    make train EXP=ms_ssim_fashion
            The ELBO it reports is -(loss + rate): compare it with no other likelihood's.
Expect:     MSE 0.0198 per pixel, rate 27.0 nats, 20 active units (2,000 test images, 1 seed); the loss bounds no
            likelihood.
Reference:  Snell et al., arXiv:1511.06409; Wang et al. 2003, Multiscale structural similarity.
"""

from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data import DataConfig
from vae_jax.likelihoods import MsSsim
from vae_jax.models import VAE
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=2_000,
        data=DataConfig("fashion_mnist", batch_size=100),
        model=VAE(latent_dim=20, network=MLP((512, 512)), likelihood=MsSsim()),
        logging=Logging(figures_minutes=0.0),
        evaluation=Evaluation(limit=2_000),
    )
