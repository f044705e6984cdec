"""What a trained model is worth: bounds on the likelihood, codes of whole splits, walks through latent space."""

from vae_jax.evaluation.codes import Codes, decode_all, encode_all
from vae_jax.evaluation.information import Information, decompose, mutual_information
from vae_jax.evaluation.likelihood import METRICS, Estimate, Evaluation, evaluate
from vae_jax.evaluation.moments import Moments

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
