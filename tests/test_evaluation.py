"""Evaluation against plain numpy: every example counted once, whatever the batch size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import prng, spec, train
from vae_jax.errors import InputError
from vae_jax.evaluation import Estimate, Moments, decode_all, encode_all, evaluate, latents
from vae_jax.evaluation.codes import draw
from vae_jax.likelihoods import GaussianOptimal
from vae_jax.models import VAE, Autoencoder
from vae_jax.networks import MLP

N, D, SHAPE = 23, 4, (6, 5, 1)
KEY = jax.random.key(3)


@functools.cache
def trained(kind: str = "vae"):
    """Returns (model, state) after a few steps, so that posteriors differ from the prior and from each other."""
    network = MLP((16,))
    config = {
        "vae": VAE(D, network),
        "sigma": VAE(D, network, GaussianOptimal()),
        "ae": Autoencoder(D, network),
    }[kind]
    model = config.build(spec.images(*SHAPE))
    tx = train.make_optimizer({"vae": train.Optimizer(lr=0.02)}, 1000)
    state = jax.jit(train.make_init(model, tx))(jax.random.key(0), data(4))
    step = jax.jit(train.make_train_step(model, tx))
    for _ in range(80):
        state, _ = step(state, data(N))
    return model, state


def data(n: int) -> dict[str, jax.Array]:
    """Returns the first n of 64 images that two factors explain, so that a code is worth its rate."""
    rng = np.random.default_rng(0)
    factors, loadings = rng.normal(size=(64, 2)), rng.normal(size=(2, np.prod(SHAPE)))
    images = 1 / (1 + np.exp(-4 * factors @ loadings))
    return {"x": jnp.asarray(images[:n].reshape(-1, *SHAPE), jnp.float32)}


def batches(size: int, n: int = N):
    whole = {"x": data(n)["x"], "index": jnp.arange(n)}
    for start in range(0, n, size):
        yield {name: value[start : start + size] for name, value in whole.items()}


@pytest.mark.parametrize("kind", [pytest.param("vae", marks=pytest.mark.slow), "sigma", "ae"])
def test_no_number_depends_on_the_batch_size(kind):
    model, state = trained(kind)
    k = () if kind == "ae" else (1, 5)
    whole = evaluate(model, state, batches(N), key=KEY, k=k)
    for size in (1, 10):
        parts = evaluate(model, state, batches(size), key=KEY, k=k)
        assert parts.n == N
        assert parts.metrics.keys() == whole.metrics.keys()
        for name, want in whole.metrics.items():
            got = parts.metrics[name]
            assert got.n == N
            np.testing.assert_allclose(got.value, want.value, rtol=2e-5, err_msg=name)
            if want.stderr is not None:
                np.testing.assert_allclose(got.stderr, want.stderr, rtol=1e-3, err_msg=name)
        if kind != "ae":
            np.testing.assert_allclose(parts.kl_per_dim, whole.kl_per_dim, rtol=1e-4)
            np.testing.assert_allclose(parts.mean_variance, whole.mean_variance, rtol=1e-3, atol=1e-7)


def test_the_last_batch_counts():
    """With one image that differs, in the last and smallest batch, the mean error is not that of the others."""
    model, state = trained("ae")
    images = np.array(data(N)["x"])
    images[-1] = 1 - images[-1]
    parts = [{"x": images[:20]}, {"x": images[20:]}]
    result = evaluate(model, state, parts, key=KEY)
    made = decode_all(model, state, encode_all(model, state, parts).mean)
    np.testing.assert_allclose(result.metrics["mse"].value, np.square(made - images).mean(), rtol=1e-5)


def test_metrics_equal_numpy():
    model, state = trained()
    result = evaluate(model, state, batches(8), key=KEY)
    m, x = result.metrics, np.asarray(data(N)["x"])
    codes = encode_all(model, state, batches(8))
    mse = np.square(decode_all(model, state, codes.mean) - x).mean((1, 2, 3))
    psnr = 10 * np.log10(1 / mse)
    np.testing.assert_allclose(m["mse"].value, mse.mean(), rtol=1e-5)
    np.testing.assert_allclose(m["psnr"].value, psnr.mean(), rtol=1e-5)
    np.testing.assert_allclose(m["psnr"].stderr, psnr.std(ddof=1) / np.sqrt(N), rtol=1e-3)
    kl = 0.5 * (np.square(codes.mean) + np.exp(codes.log_var) - 1 - codes.log_var)
    np.testing.assert_allclose(result.kl_per_dim, kl.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(m["rate"].value, kl.sum(1).mean(), rtol=1e-5)
    np.testing.assert_allclose(m["rate"].stderr, kl.sum(1).std(ddof=1) / np.sqrt(N), rtol=1e-4)
    np.testing.assert_allclose(m["elbo"].value, -(m["distortion"].value + m["rate"].value), rtol=1e-6)
    variance = codes.mean.astype(np.float64).var(0)
    np.testing.assert_allclose(result.mean_variance, variance, rtol=1e-5)
    assert m["active_units"].value == (variance > 0.01).sum()
    assert 0 < m["active_units"].value <= D
    assert list(result.order) == sorted(range(D), key=lambda d: -result.kl_per_dim[d])


def test_the_importance_weighted_bound_is_logmeanexp_of_its_weights():
    model, state = trained()
    k, batch = 7, next(batches(N))
    got = evaluate(model, state, [batch], key=KEY, k=(k,)).metrics[f"iw_{k}"]
    codes = encode_all(model, state, [batch])
    keys = prng.example_keys(prng.site_key(prng.site_key(KEY, "iw"), "importance"), batch["index"])
    std, log_weights = np.exp(0.5 * codes.log_var.astype(np.float64)), []
    for i in range(k):
        noise = np.asarray(prng.normal(jax.vmap(jax.random.fold_in, (0, None))(keys, i), (D,)), np.float64)
        z = codes.mean + std * noise
        log_prior = -0.5 * (np.square(z) + np.log(2 * np.pi)).sum(1)
        log_q = -0.5 * (np.square(noise) + codes.log_var + np.log(2 * np.pi)).sum(1)
        p_x = model.decode(state.params, state.model_state, jnp.asarray(z, jnp.float32))
        log_weights.append(np.asarray(p_x.log_prob(batch["x"])) + log_prior - log_q)
    naive = np.log(np.mean(np.exp(np.array(log_weights)), 0))
    np.testing.assert_allclose(got.value, naive.mean(), rtol=1e-5)
    np.testing.assert_allclose(got.stderr, naive.std(ddof=1) / np.sqrt(N), rtol=1e-3)


def test_more_importance_samples_tighten_the_bound():
    model, state = trained()
    m = evaluate(model, state, batches(N), key=KEY, k=(1, 10, 200)).metrics
    assert m["iw_1"].value < m["iw_10"].value < m["iw_200"].value
    assert abs(m["iw_1"].value - m["elbo"].value) < 1.5  # both estimate the ELBO, from different samples


def test_limit_takes_the_first_examples():
    model, state = trained()
    got = evaluate(model, state, batches(8), key=KEY, limit=11)
    want = evaluate(model, state, batches(11, 11), key=KEY)
    assert got.n == want.n == 11
    np.testing.assert_allclose(got.metrics["elbo"].value, want.metrics["elbo"].value, rtol=1e-5)
    assert evaluate(model, state, batches(8), key=KEY, limit=1000).n == N


def test_bits_per_dimension():
    """ln 2 nats per pixel are one bit; dequantized gray levels carry 8 bits more than the density says."""
    model, state = trained()
    dims = np.prod(SHAPE)
    binary = evaluate(model, state, batches(N), key=KEY, cell_width=1.0).metrics
    np.testing.assert_allclose(binary["bits_per_dim"].value, -binary["elbo"].value / (dims * np.log(2)), rtol=1e-6)
    np.testing.assert_allclose(binary["bits_per_dim"].stderr, binary["elbo"].stderr / (dims * np.log(2)), rtol=1e-6)
    gray = evaluate(model, state, batches(N), key=KEY, cell_width=1 / 256).metrics
    np.testing.assert_allclose(gray["bits_per_dim"].value, binary["bits_per_dim"].value + 8, rtol=1e-6)
    assert "bits_per_dim" not in evaluate(model, state, batches(N), key=KEY).metrics


def test_an_autoencoder_reports_what_it_has():
    model, state = trained("ae")
    result = evaluate(model, state, batches(N), key=KEY)
    assert set(result.metrics) == {"distortion", "mse", "psnr"}
    assert result.kl_per_dim is None
    with pytest.raises(InputError, match=r"iw_\d+: needs a bound on log p\(x\) .*; use a VAE"):
        evaluate(model, state, batches(N), key=KEY, k=(5,))
    with pytest.raises(InputError, match="does not provide a prior"):
        draw(model, state, KEY, 3)


def test_estimate_and_moments_equal_numpy():
    values = np.random.default_rng(0).normal(5, 2, 17)
    estimate = Estimate.of(values)
    np.testing.assert_allclose((estimate.value, estimate.stderr), (values.mean(), values.std(ddof=1) / np.sqrt(17)))
    assert Estimate.of(values[:1]).stderr is None
    rows = 1e6 + 1e-3 * np.random.default_rng(1).normal(size=(1000, 3))  # E[x^2] - E[x]^2 would give rubbish
    moments = Moments()
    for part in np.split(rows, [1, 400, 990]):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, rows.mean(0))
    np.testing.assert_allclose(moments.variance, rows.var(0), rtol=1e-6)


@pytest.mark.parametrize(
    ("bad", "words"), [({"k": (0,)}, "1 or more"), ({"k": (5, 2**31)}, r"below 2\^31"), ({"limit": -1}, "0")]
)
def test_bad_numbers(bad, words):
    model, state = trained()
    with pytest.raises(InputError, match=words):
        evaluate(model, state, batches(N), key=KEY, **bad)
    with pytest.raises(InputError, match="empty"):
        evaluate(model, state, [], key=KEY)


def test_codes_do_not_depend_on_the_batch_size():
    model, state = trained()
    whole, parts = (encode_all(model, state, batches(size), key=KEY) for size in (N, 5))
    for got, want in zip(parts[:4], whole[:4]):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    spread = (whole.z - whole.mean) / np.exp(0.5 * whole.log_var)
    assert 0.5 < spread.std() < 1.5
    images = decode_all(model, state, whole.z)
    assert images.shape == (N, *SHAPE)
    nested = decode_all(model, state, whole.z[:6].reshape(2, 3, D))
    np.testing.assert_allclose(nested.reshape(6, *SHAPE), images[:6], rtol=1e-5, atol=1e-6)


def test_decoding_in_chunks_is_decoding_at_once(monkeypatch):
    model, state = trained()
    z = np.random.default_rng(0).normal(size=(37, D))
    whole = decode_all(model, state, z)
    monkeypatch.setattr("vae_jax.evaluation.codes.CHUNK", 8)
    np.testing.assert_allclose(decode_all(model, state, z), whole, rtol=1e-5, atol=1e-6)
    drawn = decode_all(model, state, z, pixels="sample", key=KEY)
    assert set(np.unique(drawn)) == {0.0, 1.0}


def test_walks():
    a, b = np.array([[3.0, 0.0]]), np.array([[0.0, 3.0]])
    line, arc = (latents.interpolate(a, b, 5, path) for path in ("linear", "spherical"))
    for way in (line, arc):
        np.testing.assert_allclose(way[:, [0, -1]], np.stack([a, b], 1), atol=1e-12)
    np.testing.assert_allclose(line[0, 2], [1.5, 1.5])
    np.testing.assert_allclose(np.linalg.norm(arc, axis=-1), 3.0)
    same = latents.interpolate(a, 2 * a, 3, "spherical")  # no angle: straight
    np.testing.assert_allclose(same[0], [[3, 0], [4.5, 0], [6, 0]])

    z = latents.traverse(np.arange(3.0), np.array([2, 0]), np.array([-1.0, 0.0, 1.0]))
    assert z.shape == (2, 3, 3)
    np.testing.assert_allclose(z[0], [[0, 1, -1], [0, 1, 0], [0, 1, 1]])
    np.testing.assert_allclose(z[1, :, 0], [-1, 0, 1])

    model, state = trained()
    codes = encode_all(model, state, batches(N))
    walk = latents.walk(codes, [0.1, 3.0, float("nan"), 1.0], prior=(1.0, 2.0), reach=1.0, steps=3)
    assert walk.dims.tolist() == [1, 3, 0, 2]
    np.testing.assert_allclose(walk.values, np.tile([-1.0, 1.0, 3.0], (4, 1)))
    quantiles = latents.walk(codes, None, dims=(2,), steps=1, quantiles=True)
    np.testing.assert_allclose(quantiles.values, [[np.median(codes.mean[:, 2])]])
    plane = latents.plane(3)
    np.testing.assert_allclose(plane[1, 1], 0, atol=1e-12)
    assert plane[0, 0, 1] > 0 > plane[0, 0, 0]
