"""What a trained model is worth: bounds on the likelihood, codes of whole splits, walks through latent space."""

from vae_jax.evaluation.codes import Codes, decode_all, encode_all
from vae_jax.evaluation.likelihood import METRICS, Estimate, Evaluation, evaluate
from vae_jax.evaluation.moments import Moments

__all__ = ["METRICS", "Codes", "Estimate", "Evaluation", "Moments", "decode_all", "encode_all", "evaluate"]
