"""What a trained model is worth: bounds on the likelihood, codes of whole splits, walks through latent space."""

from vae_jax.evaluation.codes import Codes, decode_all, encode_all
from vae_jax.evaluation.likelihood import METRICS, Evaluation, evaluate
from vae_jax.metrics.estimate import Estimate
from vae_jax.metrics.information import Information, decompose, mutual_information
from vae_jax.metrics.moments import Moments

__all__ = [
    "METRICS",
    "Codes",
    "Estimate",
    "Evaluation",
    "Information",
    "Moments",
    "decode_all",
    "decompose",
    "encode_all",
    "evaluate",
    "mutual_information",
]
