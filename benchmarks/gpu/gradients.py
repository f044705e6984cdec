"""Whether an accelerator computes what the CPU does: batch, loss and gradients of experiments, by precision.

Run on a machine with an accelerator: python -m benchmarks.gpu.gradients [EXPERIMENT ...]. Prints each array that
differs by more than 1e-5 of its largest entry. At `highest` nothing may; at other precisions gradients may, but no
batch.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vae_jax as vj
from vae_jax.data.pipeline import make_batch_fn
from vae_jax.model import Context
from vae_jax.runs.training_data import spec_of

TOLERANCE = 1e-5


def first_step(name: str, device: Any, precision: str) -> dict[str, Any]:
    """Returns the first batch of an experiment, its loss and gradients, and the initial parameters."""
    config = vj.experiment(name)
    source = vj.data.load(config.data, "train")
    model = config.model.build(spec_of(source))
    key = jax.random.key(0)
    with jax.default_device(device), jax.default_matmul_precision(precision):
        batch = jax.jit(make_batch_fn(source, config.data))(dict(source.arrays), key, jnp.int32(0))
        params, state = jax.jit(model.init)(key, batch)
        ctx = Context(jnp.int32(0), batch["index"], dict(model.training.hyper))
        grads = jax.jit(jax.value_and_grad(lambda p: model.loss(p, state, key, batch, ctx)[0]))
        value, gradients = grads(params)
    return {"batch": batch, "params": params, "loss": value, "gradients": gradients}


def differing(expected: Any, found: Any) -> dict[str, float]:
    """Returns the arrays that differ, with the greatest difference over the largest entry."""
    out = {}
    leaves = jax.tree_util.tree_leaves_with_path
    for (path, a), (_, b) in zip(leaves(expected), leaves(found), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        error = float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12))
        if error > TOLERANCE:
            out[jax.tree_util.keystr(path)] = error
    return out


def main(names: list[str]) -> int:
    """Prints what differs; the exit code says whether a batch, or anything at the highest precision, does."""
    cpu, device, failed = jax.devices("cpu")[0], jax.devices()[0], False
    for name in names:
        expected = first_step(name, cpu, "highest")
        for precision in ("default", "high", "highest"):
            other = differing(expected, first_step(name, device, precision))
            failed |= bool(other) and (precision == "highest" or any(what.startswith("['batch']") for what in other))
            print(f"{name}, {precision}: {len(other)} arrays differ")
            for what, error in other.items():
                print(f"  {what}: {error:.1e}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["beta_vae", "vae_digits"]))
