"""Wrappers: models with loss terms and parameter groups besides their own."""

from vae_jax.models.wrappers.adversarial import Adversary, Seen, with_adversary

__all__ = ["Adversary", "Seen", "with_adversary"]
