"""Variance and bias of the gradient estimators on real 8x8 digits, as a table and a picture.

Writes `results/studies/gradient_variance.json`.

Run: python -m benchmarks.gradients [--draws 2000] [--steps 500] [--out FILE] [--figure FILE]; a minute on 2 cores.

Two small VAEs are trained for a while; then each estimator gives the encoder's gradient of one batch many times, from
fresh posterior samples. The binary model has few enough codes to sum over, so its exact gradient is known.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure

from benchmarks import jobs
from vae_jax import data, spec, train
from vae_jax.figures.grid import save
from vae_jax.model import Context, Model
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import Arm, DisArm, LeaveOneOut, Pathwise, Reinforce, StickingTheLanding
from vae_jax.posteriors import Binary
from vae_jax.priors import BernoulliPrior

SHAPE, BATCH, DIMS = (8, 8, 1), 32, 8
REAL = VAE(DIMS, MLP((64,)))
BINARY = VAE(DIMS, MLP((64,)), posterior=Binary(final_temperature=1.0), prior=BernoulliPrior(), gradient=DisArm())
# The baseline's moving average is filled before anything is measured: `settle`.
REAL_ESTIMATORS = {
    "pathwise": {"gradient": Pathwise()},
    "STL": {"gradient": StickingTheLanding()},
    "REINFORCE": {"gradient": Reinforce("none")},
    "REINFORCE, baseline": {"gradient": Reinforce("mean")},
    "RLOO, 4 samples": {"gradient": LeaveOneOut(k=4)},
}
BINARY_ESTIMATORS = {
    "REINFORCE": {"gradient": Reinforce("none")},
    "REINFORCE, baseline": {"gradient": Reinforce("mean")},
    "RLOO, 2 samples": {"gradient": LeaveOneOut(k=2)},
    "RLOO, 4 samples": {"gradient": LeaveOneOut(k=4)},
    "ARM, 2 samples": {"gradient": Arm()},
    "DisARM, 2 samples": {"gradient": DisArm()},
    "Gumbel, temperature 1": {"gradient": Pathwise()},
    "straight-through, temperature 1": {
        "gradient": Pathwise(),
        "posterior": dataclasses.replace(BINARY.posterior, relaxation="straight-through"),
    },
}


def images() -> jax.Array:
    """Returns the training digits [N, 8, 8, 1]."""
    source = data.load(data.DataConfig("digits", batch_size=BATCH), "train")
    return jnp.asarray(np.asarray(source.arrays["image"], np.float32) / 255.0)


def context(model: Model, step: int = 0) -> Context:
    hyper = {name: jnp.asarray(value, jnp.float32) for name, value in model.training.hyper.items()}
    return Context(jnp.asarray(step, jnp.int32), jnp.arange(BATCH, dtype=jnp.int32), hyper)


def trained(config: VAE, x: jax.Array, steps: int) -> Any:
    """Returns the parameters after a few hundred steps of Adam."""
    model = config.build(spec.images(*SHAPE))
    tx = train.make_optimizer({"vae": train.Optimizer(lr=2e-3)}, steps)
    state = jax.jit(train.make_init(model, tx))(jax.random.key(0), {"x": x[:BATCH]})
    step = jax.jit(train.make_train_step(model, tx))
    random = np.random.default_rng(0)
    for _ in range(steps):
        state, _ = step(state, {"x": x[random.integers(len(x), size=BATCH)]})
    return state.params


def settle(model: Model, params: Any, batch: dict[str, jax.Array]) -> Any:
    """Returns the model's state with its baselines at the average of 100 passes."""
    state = model.init(jax.random.key(0), batch)[1]
    if not state:
        return state
    run = jax.jit(lambda state, key: model.loss(params, state, key, batch, context(model))[1].state)
    for i in range(100):
        state = run(state, jax.random.key(1000 + i))
    return state


def encoder_gradients(config: VAE, params: Any, batch: dict[str, jax.Array], draws: int) -> np.ndarray:
    """Returns the encoder's gradient of this batch [draws, P], each from fresh samples."""
    model = config.build(spec.images(*SHAPE))
    state, ctx = settle(model, params, batch), context(model)

    def one(key: jax.Array) -> jax.Array:
        grad = jax.grad(lambda p: model.loss(p, state, key, batch, ctx)[0])(params)
        return ravel_pytree(grad["vae"]["encoder"])[0]

    keys = jax.random.split(jax.random.key(7), draws)
    return np.asarray(jax.jit(lambda k: jax.lax.map(one, k, batch_size=50))(keys), np.float64)


def exact_gradient(params: Any, batch: dict[str, jax.Array]) -> np.ndarray:
    """Returns the encoder's gradient of -ELBO by summing over all codes of the binary model."""
    model = BINARY.build(spec.images(*SHAPE))
    codes = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=DIMS)))

    def loss(params: Any) -> jax.Array:
        q = model.encode(params, {}, None, batch).posterior

        def term(code: jax.Array) -> jax.Array:
            z = jnp.tile(code, (BATCH, 1))
            log_q = q.log_prob(z)
            log_p = model.decode(params, {}, z).log_prob(batch["x"]) - DIMS * jnp.log(2.0)
            return jnp.exp(log_q) * (log_q - log_p)

        return jnp.mean(jnp.sum(jax.lax.map(term, codes, batch_size=32), 0))

    return np.asarray(ravel_pytree(jax.jit(jax.grad(loss))(params)["vae"]["encoder"])[0], np.float64)


def measure(
    base: VAE, estimators: dict[str, dict[str, Any]], draws: int, steps: int, is_exact: bool
) -> dict[str, dict[str, float]]:
    """Returns estimator -> total variance, and with `is_exact` the length of its bias over that of the gradient."""
    x = images()
    params = trained(base, x, steps)
    batch = {"x": x[:BATCH]}
    want = exact_gradient(params, batch) if is_exact else None
    rows = {}
    for name, parts in estimators.items():
        grads = encoder_gradients(dataclasses.replace(base, **parts), params, batch, draws)
        mean, variance = grads.mean(0), float(grads.var(0, ddof=1).sum())
        row = {"variance": variance, "variance_over_squared_gradient": variance / float((mean**2).sum())}
        if want is not None:
            row["variance_over_squared_gradient"] = variance / float((want**2).sum())
            # The squared error of a mean over n draws holds variance / n that is no bias.
            squared = float(((mean - want) ** 2).sum()) - variance / draws
            row["relative_bias"] = max(squared, 0.0) ** 0.5 / float((want**2).sum()) ** 0.5
            row["relative_bias_resolution"] = (variance / draws) ** 0.5 / float((want**2).sum()) ** 0.5
        rows[name] = row
        print(name, json.dumps({k: float(f"{v:.4g}") for k, v in row.items()}), flush=True)
    return rows


def picture(found: dict[str, Any]) -> Figure:
    """Returns the variances as bars on a logarithmic axis, one panel a model; biases are written beside them."""
    figure = Figure((10.5, 4.2), dpi=110, layout="constrained")
    ratio = found["reinforce_over_pathwise"]
    figure.suptitle(
        f"Encoder gradient of a small VAE on 8x8 digits: REINFORCE has {ratio:,.0f} times the variance of pathwise",
        fontsize=11,
    )
    panels = figure.subplots(1, 2)
    for axes, (title, rows) in zip(panels, {"8 real codes": found["real"], "8 binary codes": found["binary"]}.items()):
        names = list(rows)[::-1]
        values = [rows[name]["variance"] for name in names]
        axes.barh(names, values, color=["#c23b22" if _biased(rows[n]) else "#1f77b4" for n in names])
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 3, max(values) * 40)
        for i, name in enumerate(names):
            bias = f", bias {100 * rows[name]['relative_bias']:.0f} %" if _biased(rows[name]) else ""
            axes.text(
                values[i] * 1.15,
                i,
                f"{values[i]:,.0f}{bias}" if values[i] >= 100 else f"{values[i]:.2g}{bias}",
                va="center",
                fontsize=8,
            )
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("variance, summed over the encoder's weights", fontsize=9)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[1].plot([], [], "s", color="#1f77b4", label="unbiased")
    panels[1].plot([], [], "s", color="#c23b22", label="biased")
    panels[1].legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def _biased(row: dict[str, float]) -> bool:
    return row.get("relative_bias", 0.0) > 5 * row.get("relative_bias_resolution", 0.0)


def main(argv: list[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradients", description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000, help="gradients of each estimator")
    parser.add_argument("--steps", type=int, default=500, help="training steps before the measurement")
    parser.add_argument("--out", type=Path, default=jobs.ROOT / "results" / "studies" / "gradient_variance.json")
    parser.add_argument("--figure", type=Path, default=jobs.ROOT / "docs" / "images" / "gradient_variance.png")
    args = parser.parse_args(argv)
    found: dict[str, Any] = {"draws": args.draws, "steps": args.steps, "batch": BATCH, "latents": DIMS}
    found["real"] = measure(REAL, REAL_ESTIMATORS, args.draws, args.steps, is_exact=False)
    found["binary"] = measure(BINARY, BINARY_ESTIMATORS, args.draws, args.steps, is_exact=True)
    found["reinforce_over_pathwise"] = found["real"]["REINFORCE"]["variance"] / found["real"]["pathwise"]["variance"]
    for path in (args.out, args.figure):
        path.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=2) + "\n")
    save(picture(found), args.figure)
    print(f"REINFORCE : pathwise = {found['reinforce_over_pathwise']:.3g} : 1; wrote {args.out}, {args.figure}")


if __name__ == "__main__":
    main()
