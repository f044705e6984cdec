"""Where arrays live: a (data, fsdp) mesh, and NamedShardings for every leaf of a state."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vae_jax.collectives import BATCH, FSDP, MIN_SHARDED_SIZE
from vae_jax.errors import InputError, option, options

# Rules are tried in order on the leaf's path ("params/vae/encoder/out/kernel"); the first match decides.
# "fsdp": the largest dimension that divides is split; "codes": the entries of a codebook, last axis but one, where they
# are searched (see `_searched`), else as "fsdp"; "replicate": every device has all of it.
RULES: tuple[tuple[str, str], ...] = (
    (r"(^|/)(step|key|hyper)(/|$)", "replicate"),
    (r"(^|/)quantizer[^/]*/(.*/)?(codebook|offset|total|frozen)$", "codes"),
    (r".*", "fsdp"),
)


@dataclass(frozen=True)
class MeshConfig:
    """Device mesh. The batch is split over both axes, parameters over `fsdp`."""

    data: int = -1
    """Devices that only split the batch; -1 takes all that fsdp leaves."""
    fsdp: int = 1
    """Devices that also split parameters, moments and moving averages; of codebooks each holds a part of the codes."""


def make_mesh(config: MeshConfig, devices: list | None = None) -> Mesh:
    """Returns the ("data", "fsdp") mesh.

    Raises:
      InputError: an axis is not positive, the mesh needs more devices than there are, or `data` is -1 and `fsdp` does
        not divide their number.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if config.fsdp < 1 or (config.data < 1 and config.data != -1):
        raise InputError(f"mesh: data={config.data}, fsdp={config.fsdp} must be positive (data may be -1 for all)")
    data = count // config.fsdp if config.data == -1 else config.data
    # An explicit mesh may leave devices idle; with data = -1 it must use all of them.
    if data * config.fsdp > count or (config.data == -1 and count % config.fsdp):
        if config.data == -1:
            fix = option("mesh.fsdp", max(n for n in range(1, min(config.fsdp, count) + 1) if count % n == 0))
        else:
            fix = options({"mesh.data": max(count // config.fsdp, 1), "mesh.fsdp": min(config.fsdp, count)})
        raise InputError(
            f"mesh: data={config.data} x fsdp={config.fsdp} does not fit {count} device(s); for example, use {fix}"
        )
    # Auto axes: linen layers cannot state output shardings, which the default (Explicit) asks for.
    return jax.make_mesh((data, config.fsdp), BATCH, (AxisType.Auto,) * 2, devices=devices[: data * config.fsdp])


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: axis 0 over all devices."""
    # `fsdp` splits examples as well: devices that share parameters still do different work.
    return NamedSharding(mesh, PartitionSpec(BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that puts everything everywhere."""
    return NamedSharding(mesh, PartitionSpec())


def infer_sharding(shapes: Any, mesh: Mesh, rules: tuple[tuple[str, str], ...] = RULES) -> Any:
    """Returns where each leaf lives. Moments and averages have their parameter's shape, so they land where it does.

    Args:
      shapes: pytree of arrays or of `jax.ShapeDtypeStruct` (from `jax.eval_shape`).
      mesh: the ("data", "fsdp") mesh.
      rules: (regular expression on the leaf's path, "fsdp", "codes" or "replicate"), the first match decides.

    Returns:
      a pytree of NamedShardings: the largest dimension that fsdp divides is split, of codebooks the entries; leaves
      under `MIN_SHARDED_SIZE` numbers, and those with no such dimension, are on every device.

    Raises:
      InputError: fsdp does not divide the entries of a codebook.
    """
    parts, odd = mesh.shape[FSDP], {}
    names = {_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}

    def place(path: tuple, leaf: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        name, shape = _name(path), leaf.shape
        kind = next(kind for pattern, kind in rules if re.search(pattern, name))
        if kind == "codes" and not _searched(name, shape, names):
            kind = "fsdp"
        # Codebooks that are stacked along leading axes are searched, and so measured, one by one.
        if kind == "replicate" or math.prod(shape[-2:] if kind == "codes" else shape) < MIN_SHARDED_SIZE:
            return replicated(mesh)
        if kind == "codes" and shape[-2] % parts:
            # Never along the vectors instead: each search would gather the whole codebook.
            odd[name] = shape[-2]
        spec = _axis(len(shape) - 2) if kind == "codes" and parts > 1 else _largest_axis(shape, parts)
        return NamedSharding(mesh, spec)

    found = jax.tree_util.tree_map_with_path(place, shapes)
    if odd:
        name, codes = next(iter(odd.items()))
        # The first stage of a second one, which is below `first`, is trained: its codes cannot be chosen any more.
        frozen = any(re.search(r"(^|/)first/", one) for one in odd)
        more = "" if frozen else f", or {codes + -codes % parts} codes"
        raise InputError(
            f"mesh.fsdp: {parts} does not divide the {codes} entries of a codebook ({name}), which it would split; use "
            f"{option('mesh.fsdp', math.gcd(parts, *odd.values()))}{more}"
        )
    return found


def _name(path: tuple) -> str:
    """Returns the path of a leaf as rules read it."""
    # Entries of dicts, dataclasses and sequences keep their name in different attributes.
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def _searched(name: str, shape: tuple[int, ...], names: set[str]) -> bool:
    """Says whether a leaf called like a codebook has entries that are searched: [..., K, D], without logits beside it.

    Where there are logits (Gumbel-softmax), q is a mixture of all entries.
    """
    return len(shape) > 1 and f"{name.rpartition('/')[0]}/logits" not in names


def _largest_axis(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    candidates = [(n, i) for i, n in enumerate(shape) if n % parts == 0]
    if parts == 1 or not candidates:
        return PartitionSpec()
    # Of equally large dimensions the last one: of a square kernel [in, out] the outputs.
    return _axis(max(candidates)[1])


def _axis(axis: int) -> PartitionSpec:
    return PartitionSpec(*(None,) * axis, FSDP)


def placed(values: Any, like: Any) -> Any:
    """Returns a tree of arrays in new buffers, each on the devices of its twin in `like`."""
    return jax.tree.map(lambda x, twin: jax.device_put(np.asarray(x), twin.sharding), values, like)
