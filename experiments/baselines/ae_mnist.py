"""Deterministic autoencoder on gray-level MNIST: the reconstruction that a VAE of the same size gives up.

Command:    make train EXP=ae_mnist
            make train EXP=ae_mnist ARGS="--model.corruption mask"      (denoising autoencoder)
            make train EXP=ae_mnist ARGS="--model.network linear"       (linear autoencoder: PCA)
Expect:     squared error 0.0108 per pixel (PSNR 20.2 dB) on the 10,000 test images, 1 seed; 1 minute on 2 CPU cores.
Reference:  Hinton & Salakhutdinov 2006; denoising: Vincent et al. 2008.
"""

from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.likelihoods import Gaussian
from vae_jax.models import Autoencoder
from vae_jax.networks import MLP


def get_config() -> Config:
    return Config(
        steps=4_690,  # 10 epochs of 60,000 images in batches of 128
        data=DataConfig("mnist", batch_size=128),
        model=Autoencoder(latent_dim=20, network=MLP((512, 512)), likelihood=Gaussian()),
    )
