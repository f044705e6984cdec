"""The configuration classes that experiment files use, under their public name."""

from vae_jax.runs.config import Config, Evaluation, Logging

__all__ = ["Config", "Evaluation", "Logging"]
