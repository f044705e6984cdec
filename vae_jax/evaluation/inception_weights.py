"""Inception-v3 features from a file of weights that the user has: what the Frechet inception distance looks at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from vae_jax.errors import InputError, option
from vae_jax.models import inception_features as inception

BATCH = 50  # images at a time: the widest layer of these takes 0.3 GB
PICKLED = (".pth", ".pt")
# Names of flax against those of torch.
TENSOR = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def extractor(path: Path, image_shape: tuple[int, ...], images: int) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Returns the function images [N, H, W, C] -> pool3 features [N, 2048], and what to know of their Frechet distance.

    Args:
      path: a .safetensors file.
      image_shape: (H, W, C) of the images, C 1 or 3; values outside [0, 1] are clipped.
      images: about how many there will be; fewer than `BATCH` are one smaller batch.

    Raises:
      InputError: as of `read`, or images of another number of channels.
    """
    height, width, channels = image_shape
    if channels not in (1, 3):
        raise InputError(
            f"{option('features', path)}: Inception looks at 1 or 3 channels, these images have {channels}"
        )
    # To the device once, not with every batch.
    variables = jax.device_put(read(path))
    # A small set needs no full batch.
    size = min(BATCH, images)

    def extract(found: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(found), size):
            part = np.clip(found[start : start + size], 0.0, 1.0)
            # The last batch is filled up, so that one program serves all.
            padded = np.pad(part, ((0, size - len(part)), *((0, 0),) * 3))
            parts.append(np.asarray(_program(variables, padded))[: len(part)])
        return np.concatenate(parts)

    with path.open("rb") as file:
        # The protocol names the weights: a Frechet distance means nothing without them.
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    note = (
        "this is the quantity known as FID where the file holds the weights that pytorch-fid publishes (its sha256 "
        f"begins {digest}); it compares with figures of the same weights, as many images and the same resize alone: "
        f"{height}x{width} to 299x299, bilinear between centres of pixels without antialiasing"
        f"{', grey as three channels' * (channels == 1)}, values clipped to [0, 1] and not rounded to 8 bits"
    )
    return extract, note


@jax.jit
def _program(variables: dict[str, Any], images: jax.Array) -> jax.Array:
    return inception.features(variables, images)


def refuse_pickled(path: Path) -> None:
    """Raises InputError for a file that torch.save wrote, which only unpickling reads."""
    if path.suffix.lower() in PICKLED:
        raise InputError(
            f"{option('features', path)}: a pickled file can run code and is not read; convert it: "
            f"safetensors.torch.save_file(torch.load({path.name!r}, weights_only=True), "
            f"{path.with_suffix('.safetensors').name!r})"
        )


def read(path: Path) -> dict[str, Any]:
    """Returns the weights of Inception-v3, float32, as `models.inception.features` takes them.

    Tensors have the names of torchvision and pytorch-fid, convolutions their order OIHW. The classifier, auxiliary
    logits and counters of batches are not looked at.

    Args:
      path: a .safetensors file.

    Raises:
      InputError: no such file, a pickled one, or a tensor that is missing, of another shape or not finite.
    """
    refuse_pickled(path)
    # The network says which tensors it needs; whatever else is in the file is left alone.
    places, structure = jax.tree_util.tree_flatten_with_path(inception.shapes())
    try:
        with safe_open(path, framework="numpy") as held:
            names = set(held.keys())
            # Tensor by tensor: only what the network needs is copied out of the file.
            return structure.unflatten([_tensor(held, names, path, keys, leaf.shape) for keys, leaf in places])
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{option('features', path)}: cannot be read ({reason}); give the .safetensors of Inception-v3"
        ) from error


def _tensor(held: Any, names: set[str], path: Path, keys: tuple[Any, ...], shape: tuple[int, ...]) -> np.ndarray:
    # The first key is flax's collection, `params` or `batch_stats`, of which torch knows nothing.
    *layers, last = [key.key for key in keys[1:]]
    name = ".".join([*layers, TENSOR[last]])
    if name not in names:
        raise InputError(
            f"{option('features', path)}: "
            f"no tensor {name!r} in it; it needs Inception-v3 under the names of torchvision"
        )
    # Kernels are HWIO in flax and OIHW in torch.
    wanted = (shape[3], shape[2], *shape[:2]) if last == "kernel" else shape
    found = held.get_slice(name)
    if tuple(found.get_shape()) != wanted:
        raise InputError(
            f"{option('features', path)}: "
            f"tensor {name!r} has shape {tuple(found.get_shape())}, Inception-v3 needs {wanted}"
        )
    if found.get_dtype() not in ("F16", "F32", "F64"):
        raise InputError(f"{option('features', path)}: tensor {name!r} is {found.get_dtype()}; save it as float32")
    value = held.get_tensor(name).astype(np.float32)
    # A negative variance would become NaN under a root, far from its cause.
    if not np.isfinite(value).all() or (last == "var" and (value < 0).any()):
        raise InputError(
            f"{option('features', path)}: tensor {name!r} has values that no weights have; convert the file again"
        )
    return value.transpose(2, 3, 1, 0) if last == "kernel" else value
