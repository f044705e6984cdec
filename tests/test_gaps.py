"""Inference gaps and information measures against a linear-Gaussian model, whose best factorized q is a formula."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from scipy import stats

from vae_jax import spec
from vae_jax.cli.main import run as cli
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError
from vae_jax.evaluation.inference_gaps import local_bounds
from vae_jax.likelihoods import Gaussian
from vae_jax.models import VAE, Autoencoder
from vae_jax.networks import MLP, Linear
from vae_jax.posteriors import FullCovariance, Laplace
from vae_jax.priors import MixtureOfGaussians
from vae_jax.runs.config import Config, Logging
from vae_jax.runs.run import Run
from vae_jax.train import TrainState

D, SHAPE, N = 2, (3, 2, 1), 12
PIXELS = math.prod(SHAPE)
KEY = jax.random.key(5)


@functools.cache
def linear():
    """Returns (model, state, batches, closed forms) of x = W z + b + noise with an encoder that is wrong on purpose.

    Of p(z|x) = N(m, P^-1): log p(x), ELBO of the best factorized q = N(m, 1 / P_jj), ELBO of the encoder's q.
    """
    rng = np.random.default_rng(2)
    sigma = 0.7
    w, b = rng.normal(size=(PIXELS, D)), rng.normal(size=PIXELS)
    w[:, 1] = 0.6 * w[:, 0] + 0.8 * w[:, 1]  # correlated codes, so that no factorized q is exact
    x = rng.normal(size=(N, D)) @ w.T + b + sigma * rng.normal(size=(N, PIXELS))
    precision = np.eye(D) + w.T @ w / sigma**2
    best = np.linalg.solve(precision, w.T) / sigma**2  # x - b -> posterior mean
    wrong, log_var = 0.8 * best, -2.0
    encoder = {
        "kernel": np.concatenate([wrong.T, np.zeros_like(wrong.T)], 1),
        "bias": np.concatenate([-wrong @ b, np.full(D, log_var)]),
    }
    params = {"vae": {"encoder": {"out": encoder}, "decoder": {"out": {"kernel": w.T, "bias": b}}}}
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    model = VAE(D, Linear(), Gaussian(sigma)).build(spec.images(*SHAPE))
    images = np.asarray(x.reshape(N, *SHAPE), np.float32)
    state = TrainState(jnp.zeros((), jnp.int32), jax.random.key(0), params, {}, {}, None, {})

    def batches(size=N):
        return ({"x": images[i : i + size], "index": np.arange(i, min(i + size, N))} for i in range(0, N, size))

    log_p = stats.multivariate_normal(b, w @ w.T + sigma**2 * np.eye(PIXELS)).logpdf(x)
    # KL(N(mu, S) || N(m, P^-1)) = 1/2 [tr(P S) + (mu - m)' P (mu - m) - D - ln det P - ln det S]
    half = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    off = (x - b) @ (wrong - best).T
    variance = np.full(D, np.exp(log_var))
    kl = 0.5 * ((np.diag(precision) * variance).sum() + np.einsum("ni,ij,nj->n", off, precision, off))
    kl += 0.5 * (-D - np.linalg.slogdet(precision)[1] - np.log(variance).sum())
    return model, state, batches, log_p, log_p - half, log_p - kl


def test_the_best_gaussian_of_each_image_is_found():
    """ELBO[q*] of each image to 0.03 nats plus sampling error, from an encoder that is nats below."""
    model, state, batches, log_p, optimum, start = linear()
    found = local_bounds(model, state, batches(), KEY, steps=300, samples=16)
    assert found.optimized is not None
    assert (optimum - start).mean() > 0.5
    assert (log_p - optimum).mean() > 0.1
    # 256 draws of log p(x|z) leave some 0.1 on each image's ELBO, the same draws to both.
    np.testing.assert_allclose(found.amortized, start, atol=0.6)
    np.testing.assert_allclose(found.optimized, optimum, atol=0.4)
    assert abs(found.optimized.mean() - optimum.mean()) < 0.12
    assert abs((found.optimized - found.amortized).mean() - (optimum - start).mean()) < 0.2


def test_local_bounds_do_not_depend_on_the_batch_size_and_need_no_optimizer():
    model, state, batches, *_ = linear()
    whole, parts = (local_bounds(model, state, batches(size), KEY, steps=5, samples=4) for size in (N, 5))
    np.testing.assert_array_equal(whole.amortized, parts.amortized)
    np.testing.assert_array_equal(whole.optimized, parts.optimized)
    assert np.all(whole.optimized != whole.amortized)
    alone = local_bounds(model, state, batches(), KEY, steps=0, samples=4)
    assert alone.optimized is None
    np.testing.assert_allclose(alone.amortized, whole.amortized, rtol=1e-5)
    with pytest.raises(InputError, match="empty"):
        local_bounds(model, state, [], KEY, steps=0, samples=4)


# --- the command ---


def make(folder, model):
    """Returns a run folder whose checkpoint is the untrained state, as that of the last step."""
    config = Config(4, data=DataConfig("digits", batch_size=8, binarize="threshold"), model=model, logging=Logging(1))
    run = Run.create(folder, "tiny", config, spec.images(8, 8, 1))
    support.checkpoint(run)
    return folder


SMALL = MLP(hidden=(8,))
QUICK = ["--limit", "16", "--k", "20", "--chains", "4", "--temperatures", "8", "--leapfrog", "2"]
QUICK += ["--local-steps", "40", "--local-samples", "4"]


def test_the_gaps_add_up(tmp_path, capsys):
    """inference = approximation + amortization, from the same estimates; the rates add up to the dimension."""
    folder = make(tmp_path / "vae", VAE(D, SMALL))
    assert cli(["eval", str(folder), "--metrics", "gaps,information,rate", *QUICK]) == 0
    held = json.loads((folder / "eval.json").read_text())
    value = {name: m["value"] for name, m in held["metrics"].items()}
    assert value.keys() == {
        *("inference_gap", "approximation_gap", "amortisation_gap", "rate"),
        *("mutual_information", "aggregate_kl", "total_correlation", "dimension_kl"),
    }
    np.testing.assert_allclose(
        value["inference_gap"], value["approximation_gap"] + value["amortisation_gap"], rtol=1e-4, atol=1e-4
    )
    assert value["inference_gap"] > 0
    np.testing.assert_allclose(
        value["aggregate_kl"], value["total_correlation"] + value["dimension_kl"], rtol=1e-4, atol=1e-5
    )
    stderr = held["metrics"]["mutual_information"]["stderr"]
    assert abs(value["mutual_information"] + value["aggregate_kl"] - value["rate"]) < 1
    assert value["mutual_information"] < math.log(16) + 4 * stderr
    about = held["protocol"]
    assert about["inference_gap"]["log p(x)"] in ("IW-20", "AIS")
    assert about["amortisation_gap"]["local_steps"] == 40
    np.testing.assert_allclose(sum(about["dimension_kl"]["nats"]), value["dimension_kl"], rtol=1e-5)
    assert "all 16 images" in about["mutual_information"]["aggregate posterior"]
    text = " ".join(capsys.readouterr().out.split())
    for word in ("inference_gap: log p(x)", "local_steps 40", "at most ln N = 2.77"):
        assert word in text, word


REFUSED = {
    "autoencoder": (
        Autoencoder(D, SMALL),
        "gaps,mutual_information",
        {"inference_gap", "approximation_gap", "amortisation_gap", "mutual_information"},
        "needs densit",
    ),
    "correlated": (
        VAE(D, SMALL, posterior=FullCovariance()),
        "amortisation_gap,total_correlation",
        {"amortisation_gap", "total_correlation"},
        "diagonal Gaussian",
    ),
    "laplace": (
        VAE(D, SMALL, posterior=Laplace()),
        "approximation_gap",
        {"approximation_gap"},
        "ask for inference_gap",
    ),
    "mixture": (VAE(D, SMALL, prior=MixtureOfGaussians(3)), "dimension_kl", {"dimension_kl"}, "no product"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_model_has_not_is_refused_in_one_line(tmp_path, capsys, name):
    config, metrics, refused, match = REFUSED[name]
    folder = make(tmp_path / "run", config)
    assert cli(["eval", str(folder), "--metrics", f"mse,{metrics}", "--limit", "8"]) == 2
    held = json.loads((folder / "eval.json").read_text())
    assert held["metrics"].keys() == {"mse"}
    assert held["refused"].keys() == refused
    error = capsys.readouterr().err
    assert match in error
    assert len(error.strip().splitlines()) == 1


def test_the_inference_gap_of_a_correlated_posterior_needs_no_gaussian_of_its_own(tmp_path):
    folder = make(tmp_path / "run", VAE(D, SMALL, posterior=FullCovariance()))
    assert cli(["eval", str(folder), "--metrics", "inference_gap", *QUICK]) == 0
    assert json.loads((folder / "eval.json").read_text())["metrics"]["inference_gap"]["value"] > 0
