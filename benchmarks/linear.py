"""A linear VAE trained on real MNIST against the exact optimum of the same images, which pPCA gives in closed form.

Run: python -m benchmarks.linear [--steps 10000] [--lr 1e-2] [--sampled] [--raw] [--out FILE]. The first 1,000 training
images, v / 255, 200 latents, full batch, Adam, as in arXiv:1911.02469, whose analytic ELBO is what `LinearElbo` is;
`--sampled` takes the usual one-sample ELBO instead. The encoder is trained in whitened coordinates (see `whitened`);
without them (`--raw`) Adam stays about a nat short. Writes `results/studies/linear_mnist.json`;
about 5 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.__main__ import environment
from vae_jax import data, spec, train
from vae_jax.data import DataConfig
from vae_jax.likelihoods import GaussianLearned
from vae_jax.model import Context, Metrics, Model, Params
from vae_jax.models import VAE
from vae_jax.networks import Linear
from vae_jax.objectives import Elbo, Terms
from vae_jax.posteriors import Diagonal


@dataclass(frozen=True)
class LinearElbo(Elbo):
    """The ELBO of an affine decoder under Gaussian noise, in closed form (arXiv:1911.02469, app. C).

    E_q |x - W z - b|^2 = |x - W mu - b|^2 + sum_j s_j^2 |w_j|^2,  q(z|x) = N(mu, diag(s^2)).
    """

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + rate [B] in nats without sampling, metrics)."""
        del ctx
        assert terms.decode is not None
        mean, variance = terms.posterior.mode(), terms.posterior.variance()
        at_mean = terms.decode(mean)
        size = mean.shape[-1]
        origin = terms.decode(jnp.zeros((1, size))).loc
        columns = (terms.decode(jnp.eye(size)).loc - origin).reshape(size, -1)
        spread = jnp.dot(variance, jnp.sum(jnp.square(columns), -1), precision="highest")
        distortion = -at_mean.log_prob(terms.x) + 0.5 * spread * jnp.exp(-2.0 * at_mean.log_std)
        return distortion + terms.rate, {"beta": jnp.ones(()), "exact_elbo": -jnp.mean(distortion + terms.rate)}


def images(n: int) -> np.ndarray:
    """Returns the first n training images of MNIST / 255, float64 [n, 784]."""
    source = data.load(DataConfig("mnist"), "train")
    return np.asarray(source.arrays["image"][:n], np.float64).reshape(n, -1) / 255.0


def optimum(x: np.ndarray, q: int) -> float:
    """Returns the largest mean log p(x) of a pPCA with q components (Tipping & Bishop 1999; covariance with ddof 0)."""
    spectrum = np.maximum(np.linalg.eigvalsh(np.cov(x.T, ddof=0))[::-1], 0.0)
    d = len(spectrum)
    noise = spectrum[q:].mean()
    return -0.5 * (d * math.log(2 * math.pi) + np.log(spectrum[:q]).sum() + (d - q) * math.log(noise) + d)


def whitened(model: Model, x: np.ndarray, floor: float = 1e-3) -> Model:
    """Returns the same model with other coordinates of its affine encoder: V = V' A, c = c' - V mean(x).

    A = (cov(x) + floor I)^(-1/2). Every direction of pixel space then has about unit variance for V', whose Hessian is
    as well conditioned as the decoder's; in V it is spread as the spectrum of the data is (LeCun et al. 1998, Efficient
    BackProp, sec. 4.3). Model, bound and optimum are the same.
    """
    values, vectors = np.linalg.eigh(np.cov(x.T, ddof=0))
    a = jnp.asarray((vectors / np.sqrt(np.maximum(values, 0.0) + floor)) @ vectors.T, jnp.float32)
    mean = jnp.asarray(x.mean(0), jnp.float32)

    def plain(params: Params) -> Params:
        out = params["vae"]["encoder"]["out"]
        kernel = a @ out["kernel"]
        encoder = {"out": {"kernel": kernel, "bias": out["bias"] - mean @ kernel}}
        return {**params, "vae": {**params["vae"], "encoder": encoder}}

    return model._replace(loss=lambda params, *rest: model.loss(plain(params), *rest))


def fit(
    x: np.ndarray, q: int, steps: int, lr: float, sampled: bool, b2: float, say: Any, raw: bool = False
) -> list[dict[str, float]]:
    """Trains and returns the exact ELBO on the way, 24 rows or so."""
    shape = (28, 28, 1) if x.shape[1] == 784 else (1, x.shape[1], 1)
    batch = {"x": jnp.asarray(x.reshape(-1, *shape), jnp.float32)}
    exact = VAE(
        q,
        Linear(),
        GaussianLearned(),
        objective=LinearElbo(),
        posterior=Diagonal(shared_variance=True),
    )
    coordinates = (lambda model: model) if raw else (lambda model: whitened(model, x))
    measured = coordinates(exact.build(spec.images(*shape)))
    objective = Elbo() if sampled else LinearElbo()
    model = coordinates(
        VAE(q, Linear(), GaussianLearned(), objective=objective, posterior=exact.posterior).build(spec.images(*shape))
    )
    adam = train.Optimizer(lr=lr, b2=b2, schedule=train.LearningRate("cosine"))
    tx = train.make_optimizer({"vae": adam}, steps)
    state = jax.jit(train.make_init(model, tx))(jax.random.key(0), batch)
    run = jax.jit(train.make_multi_step(train.make_train_step(model, tx), lambda arrays, key, step: arrays))
    index = jnp.arange(len(x), dtype=jnp.int32)

    @jax.jit
    def elbo(state: train.TrainState) -> jax.Array:
        ctx = Context(state.step, index, state.hyper, train=False)
        return measured.loss(state.params, state.model_state, state.key, batch, ctx)[1].metrics["exact_elbo"]

    rows, start = [], time.perf_counter()
    while int(state.step) < steps:
        state, _, finite = run(state, batch, min(max(steps // 24, 1), steps - int(state.step)))
        assert bool(finite)
        rows.append({"step": int(state.step), "elbo": float(elbo(state)), "seconds": time.perf_counter() - start})
        say(f"step {rows[-1]['step']:,}: exact ELBO {rows[-1]['elbo']:.3f}")
    return rows


def main(argv: list[str] | None = None) -> int:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--b2", type=float, default=0.99)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--latents", type=int, default=200)
    parser.add_argument("--sampled", action="store_true")
    parser.add_argument("--raw", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/studies/linear_mnist.json"))
    args = parser.parse_args(argv)
    x = images(args.images)
    best = optimum(x, args.latents)
    print(f"pPCA optimum of these images: {best:.3f} nats")
    rows = fit(
        x, args.latents, args.steps, args.lr, args.sampled, args.b2, lambda text: print(text, flush=True), args.raw
    )
    print(f"{best - rows[-1]['elbo']:.3f} nats below the optimum")
    result = {
        "what": "ELBO of a linear VAE against the pPCA optimum of the same images, nats per image",
        "protocol": {k: v for k, v in vars(args).items() if k != "out"},
        "environment": environment(),
        "optimum": best,
        "elbo": rows[-1]["elbo"],
        "gap": best - rows[-1]["elbo"],
        "curve": rows,
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
