"""The likelihood of a table against scipy.stats, column by column, and its rows; linear VAE of a table = pPCA."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from scipy import special, stats
from test_oracles import NOISE, SIGNAL, SPECTRUM, exact_data, log_p_optimum, set_linear

from vae_jax import spec
from vae_jax.errors import InputError, on_command_line
from vae_jax.files.columns import Column, starts, width
from vae_jax.likelihoods import LIKELIHOODS, Table
from vae_jax.models import M2, MODELS, VAE, Autoencoder, Multimodal
from vae_jax.networks import MLP, Linear
from vae_jax.spec import ArraySpec, DataSpec

RNG = np.random.default_rng(0)
COLUMNS = (
    Column("town", "categorical", ("Bern", "Oslo", "Rome")),
    Column("height", "numeric", mean=170.0, std=9.0),
    Column("visits", "count", mean=4.0, whole=True),
    Column("income", "numeric", mean=8.0, std=1.5, log=True),
    Column("grade", "ordinal", ("1", "2", "3", "4")),
    Column("smoker", "binary", ("no", "yes")),
    Column("gain", "student", mean=-2.0, std=0.5),
    Column("size", "ordinal", ("small", "large")),
    Column("plan", "categorical", ("a", "b")),
    Column("only", "categorical", ("one",)),
    Column("calls", "count", mean=900.0, whole=True),
)
NAMES = [c.name for c in COLUMNS]
N = 6
# Where each kind is among the outputs: numeric, student, binary, count, ordinal, categorical.
OUT = {"height": 0, "income": 1, "gain": 2, "smoker": 3, "visits": 4, "calls": 5, "grade": 6, "size": 7}
LOGITS = {"town": slice(8, 11), "plan": slice(11, 13), "only": slice(13, 14)}


def made(counts_as="negative-binomial", rows=N):
    """Returns (p(x|z), outputs float64 [rows, 14], parameters, the likelihood)."""
    likelihood = Table(counts_as=counts_as, min_log_std=-60.0).of_columns(COLUMNS)
    assert likelihood.outputs(width(COLUMNS)) == 14
    params = {
        name: value + 0.3 * jnp.asarray(RNG.normal(size=value.shape), jnp.float32)
        for name, value in likelihood.params_for((width(COLUMNS),)).items()
    }
    out = RNG.normal(size=(rows, 14)).astype(np.float32)
    return likelihood.build(jnp.asarray(out), params, {}), out.astype(np.float64), params, likelihood


def rows(count=N):
    """Returns (x float32 [count, E], values by column)."""
    values = {
        "town": RNG.integers(0, 3, count),
        "height": RNG.normal(size=count),
        "visits": RNG.integers(0, 12, count),
        "income": RNG.normal(size=count),
        "grade": np.arange(count) % 4,
        "smoker": RNG.integers(0, 2, count),
        "gain": 3 * RNG.normal(size=count),
        "size": RNG.integers(0, 2, count),
        "plan": RNG.integers(0, 2, count),
        "only": np.zeros(count, int),
        "calls": RNG.integers(0, 3000, count),
    }
    parts = [np.eye(len(c.levels))[values[c.name]] if c.is_block else values[c.name][:, None] for c in COLUMNS]
    return jnp.asarray(np.concatenate(parts, 1), jnp.float32), values


def exact(values, out, params, counts_as):
    """Returns log p by column in the units of the table, by scipy."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    std, found = np.exp(p["log_std"]), {}
    # Standardized z = (x - mean) / std: the density of x itself is taken at x, with mean and scale in its units.
    for i, (name, mean, sd) in enumerate((("height", 170, 9), ("income", 8, 1.5))):
        x = values[name].astype(np.float32).astype(np.float64) * sd + mean
        loc, scale = out[:, OUT[name]] * sd + mean, std[i] * sd
        found[name] = stats.norm.logpdf(x, loc, scale) if name == "height" else stats.lognorm.logpdf(
            np.exp(x), scale, scale=np.exp(loc)
        )  # fmt: skip
    x = values["gain"].astype(np.float32) * 0.5 - 2
    found["gain"] = stats.t.logpdf(x, 1 + np.log1p(np.exp(p["df"][0])), out[:, 2] * 0.5 - 2, std[2] * 0.5)
    found["smoker"] = stats.bernoulli.logpmf(values["smoker"], special.expit(out[:, 3]))
    for i, (name, mean) in enumerate((("visits", 4), ("calls", 900))):
        m = mean * np.log1p(np.exp(out[:, OUT[name]])) / math.log(2)
        t = np.exp(p["log_theta"][i]) if counts_as == "negative-binomial" else None
        found[name] = (
            stats.poisson.logpmf(values[name], m) if t is None else stats.nbinom.logpmf(values[name], t, t / (t + m))
        )
    # Ordered logit by hand: p(y <= k) = sigmoid(t_k - score).
    for i, (name, levels) in enumerate((("grade", 4), ("size", 2))):
        t = p["threshold"][i] + np.concatenate([[0], np.cumsum(np.exp(p["log_gap"][i][: levels - 2]))])
        below = np.pad(special.expit(t - out[:, [OUT[name]]]), ((0, 0), (1, 1)))
        below[:, -1] = 1
        found[name] = np.log(np.diff(below, axis=1)[np.arange(len(out)), values[name]])
    for name, part in LOGITS.items():
        found[name] = special.log_softmax(out[:, part], 1)[np.arange(len(out)), values[name]]
    return np.stack([found[name] for name in NAMES], 1)


@pytest.mark.parametrize("counts_as", ["negative-binomial", "poisson"])
def test_every_column_is_scipys(counts_as):
    (p_x, out, params, _), (x, values) = made(counts_as), rows()
    want = exact(values, out, params, counts_as)
    np.testing.assert_allclose(p_x.by_column(x), want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(p_x.log_prob(x), want.sum(1), rtol=1e-5)


def test_a_missing_column_adds_exactly_0():
    (p_x, _, _, _), (x, _) = made(), rows()
    whole = np.asarray(p_x.by_column(x))
    for i, (column, start) in enumerate(zip(COLUMNS, starts(COLUMNS)[:-1], strict=True)):
        seen = np.ones(x.shape, bool)
        seen[::2, start : start + column.width] = False
        found = np.asarray(p_x.by_column(jnp.where(seen, x, 0.0), jnp.asarray(seen)))
        assert np.all(found[::2, i] == 0)
        kept = np.delete(whole, i, 1)
        np.testing.assert_array_equal(np.delete(found, i, 1), kept)
        np.testing.assert_array_equal(found[1::2], whole[1::2])
    np.testing.assert_array_equal(p_x.log_prob(x, jnp.ones_like(x, bool)), p_x.log_prob(x))


def test_gradients_are_finite_where_all_is_missing_and_far_out():
    _, _, params, likelihood = made()
    x, _ = rows()

    @jax.jit
    def gradient(out, params, seen):
        return jax.grad(lambda *a: jnp.sum(likelihood.build(*a, {}).log_prob(x, seen)), (0, 1))(out, params)

    for scale in (0.0, 1.0, 1e3, -1e3, 1e6):
        for seen in (True, False):
            found = gradient(jnp.full((N, 14), scale), params, jnp.full(x.shape, seen))
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found)), (scale, seen)
            assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(found)) == seen


def test_samples_are_rows_and_have_the_probabilities():
    count = 4000
    _, out, params, likelihood = made(rows=1)
    many = likelihood.build(jnp.asarray(np.repeat(out, count, 0), jnp.float32), params, {})
    x = np.asarray(jax.jit(lambda p, keys: p.sample(keys))(many, jax.random.split(jax.random.key(1), count)))
    mean, mode = np.asarray(many.mean())[0], np.asarray(many.mode())[0]
    assert np.all(np.isfinite(many.log_prob(jnp.asarray(x))))
    first = starts(COLUMNS)
    for column, start in zip(COLUMNS, first[:-1], strict=True):
        part, expected = x[:, start : start + column.width], mean[start : start + column.width]
        if column.is_block:
            np.testing.assert_array_equal(np.sort(part, 1)[:, -1], 1)
            np.testing.assert_array_equal(part.sum(1), 1)
            assert mode[start : start + column.width].argmax() == expected.argmax()
            np.testing.assert_allclose(expected.sum(), 1, rtol=1e-5)
        if column.kind == "count":
            np.testing.assert_array_equal(part, np.rint(part))
        # Five standard errors of the mean.
        np.testing.assert_array_less(np.abs(part.mean(0) - expected), 5 * part.std(0) / math.sqrt(count) + 1e-6)


def test_the_encoder_sees_logs_of_counts():
    likelihood = Table().of_columns(COLUMNS)
    x, values = rows()
    seen = np.asarray(likelihood.seen(x))
    first = dict(zip(NAMES, starts(COLUMNS)[:-1], strict=True))
    counts = [first["visits"], first["calls"]]
    np.testing.assert_allclose(seen[:, counts[1]], np.log1p(values["calls"]), rtol=1e-6)
    np.testing.assert_array_equal(np.delete(seen, counts, 1), np.delete(np.asarray(x), counts, 1))
    assert Table().seen(x) is x


# --- linear VAE of a table = pPCA ---


def test_a_linear_vae_of_a_table_is_ppca():
    """At the optimum of pPCA the ELBO is log p(x), in the units of the table: less the logs of its deviations."""
    x, vectors, mean = exact_data()
    stds = np.linspace(0.5, 30.0, len(mean))
    columns = tuple(Column(f"x{i}", mean=float(i), std=float(s)) for i, s in enumerate(stds))
    likelihood = Table(scale="table")
    model = VAE(len(SIGNAL), Linear(), likelihood).build(spec.vectors(len(mean), columns=columns))
    batch = {"x": jnp.asarray(x, jnp.float32)}
    params, state = jax.jit(model.init)(jax.random.key(0), batch)
    floor = likelihood.min_log_std
    log_std = np.array([floor + math.log(math.expm1(0.5 * math.log(NOISE) - floor))])
    w = vectors[:, : len(SIGNAL)] * np.sqrt(np.asarray(SIGNAL) - NOISE)
    params = set_linear(params, w, mean, NOISE, log_std=log_std)
    want = log_p_optimum(SPECTRUM, len(SIGNAL)) - np.log(stds).sum()
    # The same in the table's own units, by scipy.
    scale = np.diag(stds)
    raw, center = x * stds + np.arange(len(mean)), mean * stds + np.arange(len(mean))
    gauss = stats.multivariate_normal(center, scale @ (w @ w.T + NOISE * np.eye(len(mean))) @ scale)
    np.testing.assert_allclose(gauss.logpdf(raw).mean(), want, rtol=1e-8)
    assert abs(mean_elbo(model, params, state, batch, 2000) - want) < 0.02


def mean_elbo(model, params, state, batch, repeats):
    """Returns the ELBO of a batch, a mean over so many draws of its codes."""
    ctx = support.context(model, len(batch["x"]), train=False)

    @jax.jit
    def run(keys):
        return jax.lax.map(lambda key: jnp.mean(model.terms(params, state, key, batch, ctx)["elbo"]), keys)

    return float(np.mean(run(jax.random.split(jax.random.key(9), repeats))))


# --- what goes with a table ---

NUMBERS = (Column("a"), Column("b", "student"))
WITH_LABEL = DataSpec(ArraySpec((width(COLUMNS),), "vector"), classes=2, columns=COLUMNS)


@pytest.mark.parametrize("name", [n for n in LIKELIHOODS if n not in ("table", "ms-ssim")])
def test_other_likelihoods_are_refused_and_the_advice_works(name):
    config = VAE(2, MLP((4,)), LIKELIHOODS[name]())
    with on_command_line(), pytest.raises(InputError, match=r"use --model\.likelihood table$") as caught:
        config.build(WITH_LABEL)
    assert name in str(caught.value)
    VAE(2, MLP((4,)), LIKELIHOODS["table"]()).build(WITH_LABEL)


def test_numbers_alone_take_any_density_on_the_real_line():
    about = spec.vectors(2, columns=NUMBERS)
    for name in ("gaussian", "gaussian-learned", "laplace", "student-t"):
        VAE(2, MLP((4,)), LIKELIHOODS[name]()).build(about)
    for name in ("bernoulli", "poisson", "logistic-256"):
        with pytest.raises(InputError, match="standardized numbers"):
            VAE(2, MLP((4,)), LIKELIHOODS[name]()).build(about)


@pytest.mark.parametrize("cls", [VAE, Autoencoder, M2, Multimodal])
def test_every_model_takes_a_table(cls):
    assert cls in MODELS.values()
    model = support.small(cls, 2, MLP((8,)), likelihood=Table()).build(WITH_LABEL)
    x, _ = rows(2)
    batch = {"x": x, "label": jnp.array([0, 1]), "paired_x": x, "paired_label": jnp.array([0, 1])}
    ctx = support.context(model, 2)

    @jax.jit
    def step(key):
        params, state = model.init(key, batch)
        return jax.value_and_grad(lambda p: model.loss(p, state, key, batch, ctx)[0])(params)

    value, gradient = step(jax.random.key(0))
    assert np.isfinite(value)
    assert all(np.any(g != 0) for g in jax.tree.leaves(gradient["vae"]["likelihood"]))
