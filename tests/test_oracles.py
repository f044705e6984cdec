"""Whole models against closed forms: linear VAE = pPCA, linear autoencoder = PCA, importance weights, collapse.

Data with an exactly known covariance (ddof 0) make every optimum a formula (reference 7.1): with eigenvalues l_j,
sigma^2 = mean of the discarded ones, W = U (L - sigma^2)^(1/2), max log p = -1/2 [d ln 2 pi + sum ln l_j +
(d - q) ln sigma^2 + d], and the exact posterior is diagonal, so the ELBO reaches log p itself.
"""

import functools
import gzip
import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from scipy import special, stats
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from benchmarks import linear
from vae_jax import prng, spec, train
from vae_jax.likelihoods import Gaussian, GaussianLearned
from vae_jax.model import Context
from vae_jax.models import VAE, Autoencoder
from vae_jax.networks import Linear
from vae_jax.objectives import Beta, Elbo
from vae_jax.posteriors import Diagonal

# 20 pixels in a 5 x 4 image, five directions of signal above flat noise of variance 0.1.
SHAPE, SIGNAL, NOISE = (5, 4, 1), (8.0, 6.0, 4.0, 1.8, 1.2), 0.1
WIDTH = math.prod(SHAPE)
SPECTRUM = np.asarray([*SIGNAL, *[NOISE] * (WIDTH - len(SIGNAL))])


def exact_data(n: int = 400, spectrum=SPECTRUM, seed: int = 0):
    """Returns (x [n, d] of this exact mean and covariance spectrum, eigenvectors [d, d], mean [d])."""
    rng = np.random.default_rng(seed)
    d = len(spectrum)
    white = rng.normal(size=(n, d))
    white -= white.mean(0)
    white = math.sqrt(n) * np.linalg.svd(white, full_matrices=False)[0]
    vectors = np.linalg.qr(rng.normal(size=(d, d)))[0]
    mean = rng.normal(size=d)
    return white * np.sqrt(spectrum) @ vectors.T + mean, vectors, mean


def log_p_optimum(spectrum, q: int) -> float:
    """Returns the mean log p(x) of the maximum-likelihood pPCA with q components."""
    d = len(spectrum)
    sigma2 = spectrum[q:].mean()
    return -0.5 * (d * math.log(2 * math.pi) + np.log(spectrum[:q]).sum() + (d - q) * math.log(sigma2) + d)


def set_linear(params, w, mean, sigma2, *, scale=1.0, log_std=None):
    """Returns params of a linear VAE with decoder W z + mean and the exact posterior, its variance times `scale`.

    V = M^-1 W^T, M = W^T W + sigma^2 I, D = sigma^2 diag(M)^-1.
    """
    m = w.T @ w + sigma2 * np.eye(w.shape[1])
    v = np.linalg.solve(m, w.T)
    log_var = np.log(scale * sigma2 / np.diag(m))
    group = {
        "encoder": {
            "out": {
                "kernel": np.concatenate([v.T, np.zeros_like(v.T)], 1),
                "bias": np.concatenate([-v @ mean, log_var]),
            }
        },
        "decoder": {"out": {"kernel": w.T, "bias": mean}},
    }
    if log_std is not None:
        group["likelihood"] = {"log_std": log_std}
    group = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), {"vae": group})
    assert jax.tree.map(jnp.shape, group) == jax.tree.map(jnp.shape, params)
    return group


@functools.cache
def ppca(kind: str = "fixed", scale: float = 1.0):
    """Returns (model, params, state, batch, exact log p of every x) at the pPCA optimum of `exact_data`."""
    x, vectors, mean = exact_data()
    q = len(SIGNAL)
    w = vectors[:, :q] * np.sqrt(np.asarray(SIGNAL) - NOISE)
    if kind == "fixed":
        likelihood, log_std = Gaussian(math.sqrt(NOISE)), None
    else:
        likelihood = GaussianLearned()
        # The parameter lies under a soft floor: log std = floor + softplus(parameter - floor).
        above = 0.5 * math.log(NOISE) - likelihood.min_log_std
        log_std = likelihood.min_log_std + math.log(math.expm1(above))
    model = VAE(q, Linear(), likelihood).build(spec.images(*SHAPE))
    batch = {"x": jnp.asarray(x.reshape(-1, *SHAPE), jnp.float32)}
    params, state = jax.jit(model.init)(jax.random.key(0), batch)
    params = set_linear(params, w, mean, NOISE, scale=scale, log_std=log_std)
    exact = stats.multivariate_normal(mean, w @ w.T + NOISE * np.eye(WIDTH)).logpdf(x)
    return model, params, state, batch, exact


def mean_terms(model, params, state, batch, repeats: int):
    """Returns the terms averaged over the batch, [repeats] independent noises each."""
    n = batch["x"].shape[0]

    @jax.jit
    def run(keys):
        def one(key):
            terms = model.terms(params, state, key, batch, support.context(model, n, train=False))
            return {name: jnp.mean(value, 0) for name, value in terms.items()}

        return jax.lax.map(one, keys, batch_size=50)

    return jax.device_get(run(jax.random.split(jax.random.key(9), repeats)))


def bounds(kind_or_params, k: int, seeds: int = 1):
    """Returns the IW-k bound [seeds, n] of the model at `ppca(...)`."""
    model, params, state, batch, _ = kind_or_params
    ctx = support.context(model, batch["x"].shape[0], train=False)
    bound = functools.partial(model.density.bound, ctx=ctx, k=k)
    run = jax.jit(jax.vmap(lambda key: bound(params, state, key, batch)))
    return np.asarray(run(jax.random.split(jax.random.key(7), seeds)))


# --- linear VAE = pPCA, parameters set ---


def test_the_data_have_their_spectrum():
    x, _, mean = exact_data()
    values = np.linalg.eigvalsh(np.cov(x.T, ddof=0))[::-1]
    np.testing.assert_allclose(values, SPECTRUM, rtol=1e-9)
    np.testing.assert_allclose(x.mean(0), mean, atol=1e-12)
    np.testing.assert_allclose(ppca()[-1].mean(), log_p_optimum(SPECTRUM, 5), rtol=1e-9)


@pytest.mark.parametrize("kind", ["fixed", "learned"])
def test_elbo_at_the_optimum_is_log_p(kind):
    """Within four standard errors of a mean over 800,000 draws (0.002 nats); the next test but one has no noise."""
    model, params, state, batch, exact = ppca(kind)
    elbo = mean_terms(model, params, state, batch, 2000)["elbo"]
    error = elbo.std() / math.sqrt(2000)
    assert error < 0.002
    assert abs(elbo.mean() - exact.mean()) < 4 * error
    assert abs(elbo.mean() - log_p_optimum(SPECTRUM, 5)) < 4 * error


def test_rate_by_dimension_is_half_the_log_signal_to_noise():
    """KL_j = 1/2 ln(l_j / sigma^2) on average over the data."""
    terms = mean_terms(*ppca()[:4], 1)
    np.testing.assert_allclose(terms["kl_per_dim"][0], 0.5 * np.log(np.asarray(SIGNAL) / NOISE), rtol=1e-4)


def test_exact_posterior_makes_every_importance_weight_p():
    """q = p(z|x): one sample, five samples, any key: log p(x) of each example, with zero variance."""
    *_, exact = ppca()
    for k in (1, 5):
        got = bounds(ppca(), k, seeds=3)
        np.testing.assert_allclose(got, np.broadcast_to(exact, got.shape), rtol=2e-5, atol=2e-4)


def test_bound_rises_with_k_and_stays_below_log_p():
    """With a posterior twice too wide; standard errors over the seeds. L_1 is the ELBO."""
    wrong = ppca(scale=2.0)
    exact, seeds = wrong[-1].mean(), 100
    estimates = {k: bounds(wrong, k, seeds).mean(1) for k in (1, 2, 8, 64)}
    means = [estimate.mean() for estimate in estimates.values()]
    errors = [estimate.std() / math.sqrt(seeds) for estimate in estimates.values()]
    assert all(b - a > 4 * (e + f) for a, b, e, f in zip(means, means[1:], errors, errors[1:], strict=False))
    assert means[-1] < exact + 4 * errors[-1]
    assert exact - means[-1] < 0.1 * (exact - means[0])

    elbo = mean_terms(*wrong[:4], seeds)["elbo"]
    assert abs(elbo.mean() - means[0]) < 4 * (elbo.std() / math.sqrt(seeds) + errors[0])
    # The gap of L_1 is KL(q || p(z|x)) = q/2 (s - 1 - ln s) for a variance s times too large.
    np.testing.assert_allclose(exact - elbo.mean(), 2.5 * (1 - math.log(2)), rtol=0.02)


def test_bound_is_the_log_of_the_mean_weight():
    """ln 1/k sum w_i with the k weights computed by scipy from the draws: k samples are k samples, each its own.

    By hand, w = (1, 3) gives ln 2 where the mean of logs gives ln(3) / 2: the mean of the leave-one-out bounds can
    never exceed the bound of all draws.
    """
    wrong, k, key = ppca(scale=3.0), 4, jax.random.split(jax.random.key(7), 1)[0]
    model, params, state, batch, _ = wrong
    n = batch["x"].shape[0]
    x = np.asarray(batch["x"], np.float64).reshape(n, -1)
    keys = prng.example_keys(prng.site_key(key, "importance"), jnp.arange(n))
    log_w = []
    for i in range(k):
        draw = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        z, q = model.encode(params, state, draw, batch)
        z, mean, std = (np.asarray(v, np.float64) for v in (z, q.mean, jnp.exp(0.5 * q.log_var)))
        loc = z @ np.asarray(params["vae"]["decoder"]["out"]["kernel"]) + np.asarray(
            params["vae"]["decoder"]["out"]["bias"]
        )
        log_p = stats.norm.logpdf(x, loc, math.sqrt(NOISE)).sum(-1) + stats.norm.logpdf(z).sum(-1)
        log_w.append(log_p - stats.norm.logpdf(z, mean, std).sum(-1))
    assert np.std(log_w, axis=0).min() > 1e-3
    for count in (1, 2, k):
        want = special.logsumexp(log_w[:count], axis=0) - math.log(count)
        np.testing.assert_allclose(bounds(wrong, count)[0], want, rtol=1e-4, atol=1e-3)
    rest = [special.logsumexp(log_w[:i] + log_w[i + 1 :], axis=0) - math.log(k - 1) for i in range(k)]
    assert np.all(np.mean(rest, axis=0) <= bounds(wrong, k)[0] + 1e-3)


# --- training reaches the optimum ---


def fit(model, batch, steps: int, lr: float, seed: int = 0):
    """Returns the state after full-batch Adam with a cosine to 0."""
    config = train.Optimizer(lr=lr, b2=0.99, schedule=train.LearningRate("cosine"))
    tx = support.optimizer({"vae": None}, config, steps)
    state = jax.jit(train.make_init(model, tx))(jax.random.key(seed), batch)
    run = jax.jit(train.make_multi_step(train.make_train_step(model, tx), lambda arrays, key, step: arrays))
    state, _, finite = run(state, batch, steps)
    assert bool(finite)
    return state


@functools.cache
def data_batch():
    return {"x": jnp.asarray(exact_data()[0].reshape(-1, *SHAPE), jnp.float32)}


def test_training_reaches_the_ppca_optimum():
    """Eight latents for five directions of signal, and a learned variance: the ELBO and each latent's share."""
    model = VAE(8, Linear(), GaussianLearned()).build(spec.images(*SHAPE))
    state = fit(model, data_batch(), 3000, 0.02)
    terms = mean_terms(model, state.params, state.model_state, data_batch(), 200)
    # Eight components keep three noise directions, which changes nothing: their eigenvalue is sigma^2.
    optimum = log_p_optimum(SPECTRUM, 8)
    assert optimum == pytest.approx(log_p_optimum(SPECTRUM, 5))
    assert optimum - 0.05 < terms["elbo"].mean() < optimum + 4 * terms["elbo"].std() / math.sqrt(200)
    std = jax.jit(model.decode)(state.params, state.model_state, jnp.zeros((1, 8))).log_std
    np.testing.assert_allclose(jnp.exp(2 * std), NOISE, rtol=0.02)

    # Var[mu_j] = 1 - sigma^2 / l_j and KL_j = 1/2 ln(l_j / sigma^2): five active units, three collapsed.
    codes = np.asarray(model.encode(state.params, state.model_state, None, data_batch()).z)
    variance = np.sort(codes.var(0))[::-1]
    np.testing.assert_allclose(variance[:5], 1 - NOISE / np.asarray(SIGNAL), atol=0.02)
    # At an eigenvalue of exactly sigma^2 the optimum is flat to fourth order, hence 0.05 and not the usual 0.01.
    assert (variance > 0.05).sum() == sum(v > NOISE / (1 - 0.05) for v in SPECTRUM) == 5
    kl = np.sort(terms["kl_per_dim"].mean(0))[::-1]
    np.testing.assert_allclose(kl[:5], 0.5 * np.log(np.asarray(SIGNAL) / NOISE), rtol=0.02)
    assert np.all(kl[5:] < 0.02)


@pytest.mark.parametrize(
    ("std", "beta"),
    [(0.5, 10.0), *(pytest.param(*c, marks=pytest.mark.slow) for c in ((1.0, 2.5), (math.sqrt(0.7), 1.0)))],
)
def test_collapse_is_where_beta_times_variance_says(std, beta):
    """w_j^2 = max(l_j - beta sigma^2, 0): a latent collapses exactly when l_j <= beta sigma^2."""
    objective = Beta(beta=beta) if beta != 1.0 else Elbo()
    model = VAE(6, Linear(), Gaussian(std), objective=objective).build(spec.images(*SHAPE))
    state = fit(model, data_batch(), 3000, 0.02)
    strength = np.linalg.svd(np.asarray(state.params["vae"]["decoder"]["out"]["kernel"]), compute_uv=False) ** 2
    want = np.maximum(SPECTRUM[:6] - beta * std**2, 0)
    np.testing.assert_allclose(strength, want, rtol=0.05, atol=0.01)
    codes = np.asarray(model.encode(state.params, state.model_state, None, data_batch()).z)
    assert (codes.var(0) > 0.01).sum() == (want > 0).sum()


@functools.cache
def digits():
    x = load_digits().data / 16.0
    return x, {"x": jnp.asarray(x.reshape(-1, 8, 8, 1), jnp.float32)}


def test_linear_autoencoder_reaches_pca():
    """Mean squared error of the reconstruction on `digits`, within 1 % of PCA with as many components."""
    x, batch = digits()
    pca = PCA(10).fit(x)
    want = np.mean((pca.inverse_transform(pca.transform(x)) - x) ** 2)
    model = Autoencoder(10, Linear(), Gaussian(1.0)).build(spec.images(8, 8, 1))
    state = fit(model, batch, 1000, 0.02)
    got = jax.jit(lambda s: model.terms(s.params, s.model_state, s.key, batch, support.context(model, len(x))))(state)
    assert want * (1 - 1e-4) < float(jnp.mean(got["mse"])) < 1.01 * want


def test_linear_denoising_autoencoder_reaches_its_ridge():
    """Under noise of variance s the best rank-q map shrinks: U diag(l / (l + s)) U^T; loss tr S - sum l^2 / (l + s)."""
    level, q = 0.8, 3
    model = Autoencoder(q, Linear(), Gaussian(1.0), corruption="gaussian", corruption_level=level).build(
        spec.images(*SHAPE)
    )
    # Each image with several noises per step: less wandering around the optimum.
    batch = {"x": jnp.tile(data_batch()["x"], (3, 1, 1, 1))}
    state = fit(model, batch, 1000, 0.02)
    vae = state.params["vae"]
    jacobian = np.asarray(vae["encoder"]["out"]["kernel"] @ vae["decoder"]["out"]["kernel"])
    signal = np.asarray(SIGNAL[:q])
    np.testing.assert_allclose(np.linalg.svd(jacobian, compute_uv=False)[:q], signal / (signal + level**2), rtol=0.02)
    ctx = support.context(model, batch["x"].shape[0])
    keys = jax.random.split(jax.random.key(3), 20)
    noisy = jax.lax.map(lambda k: model.loss(state.params, state.model_state, k, batch, ctx)[1].metrics["mse"], keys)
    want = (SPECTRUM.sum() - (signal**2 / (signal + level**2)).sum()) / WIDTH
    np.testing.assert_allclose(jnp.mean(noisy), want, rtol=0.01)


def mnist_images(n: int) -> np.ndarray:
    """Returns the first n training images / 255, float64 [n, 784]."""
    root = Path(os.environ.get("VAE_JAX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    file = root / "mnist" / "train-images-idx3-ubyte.gz"
    if not file.is_file():
        pytest.skip(f"mnist data absent: no {file}")
    raw = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=16)[: n * 784]
    return raw.reshape(n, 784) / 255.0


def test_ppca_is_the_optimum_of_the_linear_vae_on_real_mnist():
    """With W, b, sigma of pPCA and its posterior as encoder, the ELBO is log p of pPCA, and no gradient is left."""
    x, q = mnist_images(1000), 200
    values, vectors = np.linalg.eigh(np.cov(x.T, ddof=0))
    spectrum, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    noise = spectrum[q:].mean()
    w = vectors[:, :q] * np.sqrt(spectrum[:q] - noise)
    v = w / spectrum[:q]  # W M^-1, since M = W^T W + noise I is diagonal here
    mean = x.mean(0)
    likelihood = GaussianLearned()
    model = VAE(q, Linear(), likelihood, objective=linear.LinearElbo(), posterior=Diagonal(shared_variance=True))
    model = model.build(spec.images(28, 28, 1))
    floor = likelihood.min_log_std
    params = {
        "encoder": {"out": {"kernel": v, "bias": -mean @ v}},
        "decoder": {"out": {"kernel": w.T, "bias": mean}},
        "posterior": {"log_var": np.log(noise / spectrum[:q])[None]},
        "likelihood": {"log_std": floor + np.log(np.expm1(0.5 * np.log(noise) - floor))},
    }
    params = {"vae": jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)}
    batch = {"x": jnp.asarray(x.reshape(-1, 28, 28, 1), jnp.float32)}
    ctx = Context(jnp.zeros((), jnp.int32), jnp.arange(len(x)), {"beta": jnp.ones(())}, train=False)
    loss, grads = jax.value_and_grad(lambda p: model.loss(p, {}, jax.random.key(0), batch, ctx)[0])(params)
    np.testing.assert_allclose(-loss, log_p_optimum(spectrum, q), atol=2e-3)
    # Away from the optimum they are in the hundreds.
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) < 1e-2


@pytest.mark.slow
def test_linear_vae_on_real_mnist_reaches_its_own_ppca_optimum():
    """Google's anchor (n = 1000, z = 200): within 0.05 nats of the pPCA optimum of the very same images."""
    x = mnist_images(1000)
    spectrum = np.maximum(np.linalg.eigvalsh(np.cov(x.T, ddof=0))[::-1], 0)
    rows = linear.fit(x, 200, 10_000, 1e-2, sampled=False, b2=0.99, say=lambda text: None)
    optimum = log_p_optimum(spectrum, 200)
    assert optimum - 0.05 < rows[-1]["elbo"] < optimum + 0.002
