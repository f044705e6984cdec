"""Encoders and decoders."""

from vae_jax.networks.base import Network
from vae_jax.networks.broadcast import Broadcast
from vae_jax.networks.conv import Conv64, DeepConv, LeNet, PooledConv
from vae_jax.networks.local_ar import LocalAR
from vae_jax.networks.mlp import MLP, Linear
from vae_jax.networks.spatial import ResidualConv, SpatialNetwork, check_halvings
from vae_jax.networks.vit import ViT

NETWORKS = {
    "mlp": MLP,
    "linear": Linear,
    "lenet": LeNet,
    "pooled-conv": PooledConv,
    "conv64": Conv64,
    "deep-conv": DeepConv,
    "broadcast": Broadcast,
    "local-ar": LocalAR,
    # Codes that are grids of vectors.
    "residual-conv": ResidualConv,
    "vit": ViT,
}

__all__ = [
    "MLP",
    "NETWORKS",
    "Broadcast",
    "Conv64",
    "DeepConv",
    "LeNet",
    "Linear",
    "LocalAR",
    "Network",
    "PooledConv",
    "ResidualConv",
    "SpatialNetwork",
    "ViT",
    "check_halvings",
]
