"""Annealed importance sampling against models whose log p(x) is known: pPCA, and its bounds from both sides."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from jax.scipy.stats import norm
from scipy import stats

from vae_jax import prng, spec
from vae_jax.cli.main import run as cli
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError
from vae_jax.evaluation import ais as core
from vae_jax.evaluation.ais import Steps, ais, sigmoid_temperatures, tune
from vae_jax.evaluation.chunks import chunks
from vae_jax.evaluation.likelihood import evaluate
from vae_jax.evaluation.needs import require
from vae_jax.evaluation.sandwich import Chains, annealed, sandwiched
from vae_jax.evaluation.settings import Settings
from vae_jax.likelihoods import Gaussian, MsSsim
from vae_jax.models import M2, VAE, Autoencoder, Multimodal
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP, Linear
from vae_jax.objectives import OBJECTIVES
from vae_jax.posteriors import Delta
from vae_jax.priors import ConditionalNormal, LearnedNormal, Vamp
from vae_jax.runs.config import Config, Logging
from vae_jax.runs.run import Run
from vae_jax.train import TrainState

D, PIXELS, B = 2, 6, 5
KEY = jax.random.key(3)


@functools.cache
def linear():
    """Returns x = W z + b + noise of B examples, z* and x drawn from it, whose noise differs from one to the other."""
    rng = np.random.default_rng(1)
    w, b = rng.normal(size=(PIXELS, D)), rng.normal(size=PIXELS)
    noise = np.array([0.3, 0.5, 0.7, 1.0, 1.5])
    z = rng.normal(size=(B, D))
    x = z @ w.T + b + noise[:, None] * rng.normal(size=(B, PIXELS))
    exact = [
        stats.multivariate_normal(b, w @ w.T + s**2 * np.eye(PIXELS)).logpdf(v) for s, v in zip(noise, x, strict=True)
    ]
    arrays = [np.asarray(a, np.float32) for a in (w, b, noise, z, x)]
    return *arrays, np.array(exact)


def log_prior(z):
    return jnp.sum(norm.logpdf(z), -1)


def log_likelihood(z):
    w, b, noise, _, x, _ = linear()
    return jnp.sum(norm.logpdf(x, z @ w.T + b[None], noise[:, None]), -1)


@functools.cache
def chains(temperatures: int, count: int, reverse: bool = False):
    """Returns (log weights float64 [C, B], acceptance) of chains on `linear`, jitted."""
    betas = sigmoid_temperatures(temperatures)

    @jax.jit
    def run(key):
        def each(site):
            keys = prng.example_keys(prng.site_key(key, site), jnp.arange(B))
            return prng.sample_keys(keys, jnp.arange(count))

        def start(site):
            return jax.vmap(lambda k: prng.normal(k, (D,)))(each(site))

        steps = tune(log_prior, log_likelihood, start("trial"), betas, each("tune"), leapfrog=4)
        if reverse:
            truth = jnp.broadcast_to(linear()[3], (count, B, D))
            return ais(log_prior, log_likelihood, truth, betas[::-1], each("back"), steps, leapfrog=4)
        return ais(log_prior, log_likelihood, start("start"), betas, each("forth"), steps, leapfrog=4)

    found = run(KEY)
    return np.asarray(found.log_weight, np.float64), np.asarray(found.acceptance)


# --- the core ---


def test_temperatures_go_from_prior_to_joint_and_are_dense_at_the_ends():
    for n in (2, 3, 50):
        b = sigmoid_temperatures(n)
        assert (b[0], b[-1], len(b)) == (0.0, 1.0, n)
        assert np.all(np.diff(b) > 0)
        np.testing.assert_allclose(b, 1 - b[::-1], atol=1e-12)
    gaps = np.diff(sigmoid_temperatures(50))
    assert gaps.argmax() == 24
    assert gaps[0] < gaps[24] / 10
    np.testing.assert_allclose(sigmoid_temperatures(5)[1], (1 / (1 + np.e**2) - 1 / (1 + np.e**4)) / np.tanh(2))


def test_forward_weights_average_to_the_likelihood():
    """E[w] = p(x) whatever the number of temperatures: within four standard errors for every x."""
    log_weight, _ = chains(10, 2000)
    ratio = np.exp(log_weight - linear()[-1])
    error = ratio.std(0, ddof=1) / np.sqrt(len(ratio))
    assert error.max() < 0.1
    assert np.all(np.abs(ratio.mean(0) - 1) < 4 * error)


def test_reverse_weights_average_to_the_inverse_likelihood():
    """E[w] = 1 / p(x) over posterior samples: here exact ones, many of each x."""
    w, b, noise, _, x, exact = linear()
    betas, count = sigmoid_temperatures(150), 1000
    precision = jnp.eye(D)[None] + (w.T @ w)[None] / noise[:, None, None] ** 2
    mean = jnp.linalg.solve(precision, ((x - b[None]) @ w)[..., None] / noise[:, None, None] ** 2)[..., 0]
    root = jnp.linalg.cholesky(jnp.linalg.inv(precision))

    @jax.jit
    def run(key):
        keys = prng.sample_keys(prng.example_keys(key, jnp.arange(B)), jnp.arange(count))
        white = jax.random.normal(prng.site_key(key, "posterior"), (count, B, D))
        start = mean[None] + jnp.einsum("bij,cbj->cbi", root, white)
        steps = Steps(jnp.asarray([0.0, 0.1, 1.0]), jnp.log(jnp.asarray([[1.0], [0.5], [0.3]]) * jnp.ones((1, B))))
        return ais(log_prior, log_likelihood, start, betas[::-1], keys, steps, leapfrog=3)

    ratio = np.exp(np.asarray(run(KEY).log_weight, np.float64) + exact)
    error = ratio.std(0, ddof=1) / np.sqrt(count)
    assert error.max() < 0.1
    assert np.all(np.abs(ratio.mean(0) - 1) < 4 * error)


def test_both_ends_bracket_the_exact_value_and_close_on_it():
    exact, gaps = linear()[-1], []
    for temperatures in (4, 16, 64):
        (forth, _), (back, _) = chains(temperatures, 200), chains(temperatures, 200, reverse=True)
        lower, upper = forth.mean(0), -back.mean(0)
        error = np.sqrt(forth.var(0) / 200 + back.var(0) / 200)
        # Of one z* an image, upper is a bound only on average over z*; with 5 images the mean holds it.
        assert np.all(lower < exact + 4 * error)
        assert upper.mean() > exact.mean() - 4 * error.mean()
        gaps.append(upper.mean() - lower.mean())
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0
    log_mean = np.log(np.exp(chains(64, 200)[0] - exact).mean(0))
    np.testing.assert_allclose(log_mean, 0, atol=0.2)


def test_two_temperatures_are_importance_sampling_from_the_first_density():
    z = jax.random.normal(KEY, (7, B, D))
    keys = prng.sample_keys(prng.example_keys(KEY, jnp.arange(B)), jnp.arange(7))
    steps = Steps(jnp.asarray([0.0, 1.0]), jnp.zeros((2, B)))
    found = ais(log_prior, log_likelihood, z, sigmoid_temperatures(2), keys, steps)
    np.testing.assert_allclose(found.log_weight, jax.vmap(log_likelihood)(z), rtol=1e-6)


def test_step_sizes_lead_to_the_acceptance_asked_for():
    """In spite of noise that differs by five, every example is accepted 65 % of the time or so; fixed steps are not."""
    _, acceptance = chains(64, 200)
    # In 64 moves the step size lags behind, for all examples alike.
    assert np.all(np.abs(acceptance - core.TARGET) < 0.15), acceptance
    assert np.ptp(acceptance) < 0.1
    z = jax.random.normal(KEY, (50, B, D))
    keys = prng.sample_keys(prng.example_keys(KEY, jnp.arange(B)), jnp.arange(50))
    steps = Steps(jnp.asarray([0.0, 1.0]), jnp.full((2, B), jnp.log(0.8)))
    fixed = ais(log_prior, log_likelihood, z, sigmoid_temperatures(64), keys, steps, leapfrog=4).acceptance
    assert np.ptp(fixed) > 0.2


def test_step_sizes_between_two_temperatures_are_geometric_means():
    steps = Steps(jnp.asarray([0.0, 0.5, 1.0]), jnp.log(jnp.asarray([[1.0, 2.0], [4.0, 2.0], [9.0, 2.0]])))
    np.testing.assert_allclose(steps(jnp.asarray(0.25)), [2.0, 2.0], rtol=1e-5)
    np.testing.assert_allclose(steps(jnp.asarray(0.75)), [6.0, 2.0], rtol=1e-5)
    np.testing.assert_allclose(steps(jnp.asarray(1.0)), [9.0, 2.0], rtol=1e-5)


def test_memory_is_flat_in_temperatures_and_chains_do_not_know_how_many_they_are():
    def program(temperatures, count):
        betas = sigmoid_temperatures(temperatures)

        def run(key):
            keys = prng.sample_keys(prng.example_keys(key, jnp.arange(B)), jnp.arange(count))
            z = jax.vmap(lambda k: prng.normal(k, (D,)))(keys)
            steps = Steps(jnp.asarray([0.0, 1.0]), jnp.full((2, B), -1.0))
            return ais(log_prior, log_likelihood, z, betas, keys, steps, leapfrog=2).log_weight

        return jax.jit(run)

    sizes = [program(t, 64).lower(KEY).compile().memory_analysis().temp_size_in_bytes for t in (10, 1000)]
    assert sizes[1] < sizes[0] + 16 * 1000
    few, many = program(6, 2)(KEY), program(6, 5)(KEY)
    np.testing.assert_allclose(few, many[:2], rtol=1e-5)


def test_a_path_that_leaves_the_numbers_is_rejected():
    """A huge step overflows: the chain stays, and its weight is that of where it stays."""
    z = jax.random.normal(KEY, (4, B, D))
    keys = prng.sample_keys(prng.example_keys(KEY, jnp.arange(B)), jnp.arange(4))
    steps = Steps(jnp.asarray([0.0, 1.0]), jnp.full((2, B), 40.0))
    found = ais(log_prior, log_likelihood, z, sigmoid_temperatures(20), keys, steps)
    np.testing.assert_allclose(found.log_weight, jax.vmap(log_likelihood)(z), rtol=1e-5)
    np.testing.assert_array_equal(found.acceptance, 0)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="2 or more"):
        sigmoid_temperatures(1)
    z, steps = jnp.zeros((1, B, D)), Steps(jnp.asarray([0.0, 1.0]), jnp.zeros((2, B)))
    keys = prng.sample_keys(prng.example_keys(KEY, jnp.arange(B)), jnp.arange(1))
    for bad, match in (
        (lambda: ais(log_prior, log_likelihood, z, np.zeros(1), keys, steps), "temperatures: 1"),
        (lambda: ais(log_prior, log_likelihood, z[:0], np.arange(2), keys, steps), "chains: 0"),
        (lambda: tune(log_prior, log_likelihood, z, np.arange(2), keys, leapfrog=0), "leapfrog: 0"),
    ):
        with pytest.raises(InputError, match=match):
            bad()


def test_errors_over_chains_are_those_of_repeated_runs():
    """The error of the mean over examples, from its chains alone, against its spread over 2,000 sets of chains."""
    rng = np.random.default_rng(0)
    sets = 0.5 * rng.normal(size=(2000, 20, 16))
    means = [Chains(one, np.ones(20)).log_mean.mean() for one in sets]
    errors = [Chains(one, np.ones(20)).chain_stderr for one in sets[:200]]
    np.testing.assert_allclose(np.mean(errors), np.std(means), rtol=0.1)
    one = Chains(sets[0, :, :1], np.ones(20))
    assert one.spread is None
    assert one.chain_stderr is None
    np.testing.assert_allclose(one.log_mean, sets[0, :, 0])


# --- models ---


def state_of(model, batch, params=None):
    """Returns the initial state of a model, with these parameters if given."""
    own, running = jax.jit(model.init)(jax.random.key(0), batch)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, jax.random.key(0), own if params is None else params, running, {}, None, {})


@functools.cache
def ppca():
    """Returns (model, state, batches of any size, exact log p of every x) of a linear VAE with its exact posterior."""
    rng = np.random.default_rng(0)
    shape, n, sigma = (3, 2, 1), 24, 0.5
    w, mean = rng.normal(size=(PIXELS, D)), rng.normal(size=PIXELS)
    cov = w @ w.T + sigma**2 * np.eye(PIXELS)
    x = rng.multivariate_normal(mean, cov, size=n)
    m = w.T @ w + sigma**2 * np.eye(D)
    v = np.linalg.solve(m, w.T)
    encoder = {
        "kernel": np.concatenate([v.T, np.zeros_like(v.T)], 1),
        "bias": np.concatenate([-v @ mean, np.log(sigma**2 / np.diag(m))]),
    }
    params = {"vae": {"encoder": {"out": encoder}, "decoder": {"out": {"kernel": w.T, "bias": mean}}}}
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    model = VAE(D, Linear(), Gaussian(sigma)).build(spec.images(*shape))
    images = np.asarray(x.reshape(n, *shape), np.float32)
    state = state_of(model, {"x": images[:1]}, params)
    assert jax.tree.map(jnp.shape, model.init(KEY, {"x": images[:1]})[0]) == jax.tree.map(jnp.shape, params)

    def batches(size=n, limit=n):
        for i in range(0, limit, size):
            stop = min(i + size, limit)
            yield {"x": images[i:stop], "index": np.arange(i, stop)}

    return model, state, batches, stats.multivariate_normal(mean, cov).logpdf(x)


@pytest.mark.parametrize("anneal_from", ["prior", pytest.param("posterior", marks=pytest.mark.slow)])
def test_a_linear_vae_is_sandwiched(anneal_from):
    """AIS on data reaches log p(x) of each image; on simulated data the two sides meet."""
    model, state, batches, exact = ppca()
    settings = Settings(chains=64, temperatures=100, leapfrog=4, anneal_from=anneal_from)
    found = annealed(model, state, batches(), KEY, settings)
    assert found.log_weight.shape == (24, 64)
    np.testing.assert_allclose(found.log_mean, exact, atol=0.25)
    assert abs(found.log_mean.mean() - exact.mean()) < 4 * found.chain_stderr + 0.01
    assert found.chain_stderr < 0.02
    forward, reverse = sandwiched(model, state, batches(), KEY, settings)
    lower, upper = forward.log_mean.mean(), -reverse.log_mean.mean()
    assert abs(upper - lower) < 0.1
    # The simulated images are of the model: their log p(x) is spread as that of the data is.
    assert abs(lower - exact.mean()) < 4 * exact.std() * np.sqrt(2 / 24)


def test_no_number_depends_on_the_batch_size(monkeypatch):
    model, state, batches, _ = ppca()
    monkeypatch.setattr("vae_jax.evaluation.chunks.ROWS", 32)  # 8 images in a program: the batches are cut anew
    settings = Settings(chains=4, temperatures=6, leapfrog=1)
    whole = annealed(model, state, batches(), KEY, settings)
    seen = []
    for size in (7, 5):
        parts = annealed(model, state, batches(size), KEY, settings, report=seen.append)
        np.testing.assert_array_equal(parts.log_weight, whole.log_weight)
    assert seen == [8, 16, 24] * 2
    first = annealed(model, state, batches(4, 11), KEY, settings)
    np.testing.assert_allclose(first.log_weight, whole.log_weight[:11], rtol=1e-4)
    other = annealed(model, state, batches(), jax.random.key(4), settings)
    assert not np.any(other.log_weight == whole.log_weight)


def test_chunks_fill_up_the_last_and_lose_none():
    images = np.arange(5 * 4.0).reshape(5, 2, 2, 1)
    parts = [{"x": images[:3], "label": np.arange(3)}, {"x": images[3:], "label": np.arange(3, 5)}]
    found = list(chunks(parts, 2000))
    assert [n for _, n in found] == [2, 2, 1]
    assert [batch["label"].tolist() for batch, _ in found] == [[0, 1], [2, 3], [4]]
    ((batch, n),) = chunks(parts, 100)
    assert n == 5
    assert batch["index"].tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    np.testing.assert_array_equal(batch["x"], images[[0, 1, 2, 3, 4, 4, 4, 4]])
    with pytest.raises(InputError, match="empty"):
        list(chunks([], 8))


SMALL = MLP(hidden=(8,))
FAMILIES = {
    "condition in decoder and prior": VAE(D, SMALL, prior=ConditionalNormal(), condition=Condition("label")),
    "summed class": M2(D, SMALL),
    "two modalities": Multimodal(D, SMALL),
    "prior that encodes": VAE(D, SMALL, prior=Vamp(4)),
}


@pytest.mark.parametrize("name", support.slow_but(list(FAMILIES)[:3], FAMILIES))  # the last is a VAE like the first
def test_every_family_agrees_with_importance_weights(name):
    """Against many importance samples, whose program shares nothing with `joint`: within the errors of the chains."""
    n, shape = 6, (4, 4, 1)
    model = FAMILIES[name].build(support.spec(shape))
    batch = {k: v for k, v in support.images(n, shape).items() if not k.startswith("paired")}
    batch["x"] = jnp.round(batch["x"])
    state = state_of(model, batch)
    # At the start p(x|z) hardly depends on z: weights of some size make it.
    decoders = {
        name: jax.tree.map(lambda w: 2.0 * w, v) for name, v in state.params["vae"].items() if "decoder" in name
    }
    state = dataclasses.replace(state, params={"vae": {**state.params["vae"], **decoders}})
    settings = Settings(chains=100, temperatures=30, leapfrog=3)
    found = annealed(model, state, [batch], KEY, settings)
    ctx = support.context(model, n, train=False)
    bound = jax.jit(functools.partial(model.density.bound, ctx=ctx, k=8_000))
    want = bound(state.params, state.model_state, KEY, batch)
    weight = np.exp(found.log_weight - found.log_mean[:, None])
    errors = weight.std(1, ddof=1) / np.sqrt(settings.chains)
    assert errors.max() < 0.3
    assert np.all(np.abs(found.log_mean - want) < 4 * errors + 0.05)
    assert abs(found.log_mean.mean() - np.mean(want)) < 4 * found.chain_stderr + 0.02


def test_from_the_posterior_with_two_temperatures_it_is_the_importance_weighted_bound():
    model, state, batches, exact = ppca()
    settings = Settings(chains=200, temperatures=2, leapfrog=1, anneal_from="posterior")
    found = annealed(model, state, batches(), KEY, settings)
    bound = evaluate(model, state, batches(), key=KEY, k=(200,)).metrics["iw_200"].value
    error = found.chain_stderr
    assert error < 0.02
    assert abs(found.log_mean.mean() - bound) < 4 * np.sqrt(2) * error
    assert abs(found.log_mean.mean() - exact.mean()) < 4 * error + 0.01


REFUSED = {
    "autoencoder": (Autoencoder(D, SMALL), "ais: needs densities"),
    "loss": (VAE(D, SMALL, MsSsim()), "ais: needs densities"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_without_densities_are_refused(name):
    config, match = REFUSED[name]
    with pytest.raises(InputError, match=match):
        require("ais", ("joint", "euclidean"), config.build(support.spec((16, 16, 1))))


@pytest.mark.parametrize(
    "posterior",
    [
        "gamma",
        "beta",
        "von-mises",
        "categorical",
        "bernoulli",
        "joint",
    ],
)
def test_codes_that_cannot_be_walked_are_refused_by_name(posterior):
    from vae_jax.posteriors import POSTERIORS

    model = support.fitting(D, SMALL, posterior=POSTERIORS[posterior]()).build(support.spec((4, 4, 1)))
    with pytest.raises(
        InputError, match=r"ais: needs latents on all of R\^n, which this model does not provide; request iwae"
    ):
        require("ais", ("joint", "euclidean"), model)


# --- the command ---


def make(folder, model, **data):
    """Returns a run folder whose checkpoint is the untrained state, as that of the last step."""
    config = Config(4, data=DataConfig("digits", batch_size=8, **data), model=model, logging=Logging(1))
    run = Run.create(folder, "tiny", config, spec.images(8, 8, 1))
    support.checkpoint(run)
    return folder


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "vae"
    return make(folder, VAE(D, SMALL, prior=LearnedNormal()), binarize="threshold")


def test_eval_prints_the_ladder_and_its_protocol(binary, tmp_path, capsys):
    out = tmp_path / "eval.json"
    options = ["--limit", "20", "--k", "5", "--chains", "6", "--temperatures", "12", "--leapfrog", "2", "--seed", "9"]
    assert cli(["eval", str(binary), "--metrics", "elbo,iwae,ais,bdmc", *options, "--out", str(out)]) == 0
    held = json.loads(out.read_text())
    metrics = held["metrics"]
    ends = ("bdmc_lower", "bdmc_upper")
    bits = [f"{name}_bits_per_dim" for name in ("iw_5", "ais", *ends)]
    assert metrics.keys() == {"elbo", "iw_5", "ais", *ends, "bdmc_gap", *bits}
    assert all(m["n"] == 20 and m["stderr"] > 0 for m in metrics.values())
    np.testing.assert_allclose(metrics["ais_bits_per_dim"]["value"], -metrics["ais"]["value"] / (64 * np.log(2)))
    gap = metrics["bdmc_upper"]["value"] - metrics["bdmc_lower"]["value"]
    np.testing.assert_allclose(metrics["bdmc_gap"]["value"], gap, rtol=1e-6)
    assert abs(metrics["ais"]["value"] - metrics["iw_5"]["value"]) < 1
    about = held["protocol"]["ais"]
    want = {"images": 20, "split": "test", "chains": 6, "temperatures": 12, "leapfrog": 2, "seed": 9}
    assert want.items() <= about.items()
    assert 0 < about["acceptance"] <= 1
    assert about["chain_spread"] > about["chain_stderr"] > 0
    assert "simulated" in held["protocol"]["bdmc"]["data"]
    # The error of the chains is no error of the estimate: said in the file and under the table, beside the number.
    note = "lower bound of the error: it is the spread of chains that share the bias of an unconverged path, and log "
    assert all(held["protocol"][name]["chain_stderr_note"].startswith(note) for name in ("ais", "bdmc"))
    text = " ".join(capsys.readouterr().out.split())
    assert f"chain_stderr {about['chain_stderr']:.4g}, chain_stderr_note {note}" in text
    for word in ("threshold", "chains 6", "temperatures 12", "leapfrog 2", "seed 9", "k 5", "split test", "bdmc_gap"):
        assert word in text, word


def test_a_refused_measure_does_not_cost_the_others(tmp_path, capsys):
    folder = make(tmp_path / "ae", Autoencoder(D, SMALL))
    assert cli(["eval", str(folder), "--metrics", "mse,ais,bdmc", "--limit", "4"]) == 2
    held = json.loads((folder / "eval.json").read_text())
    assert held["metrics"].keys() == {"mse"}
    assert held["refused"].keys() == {"ais", "bdmc"}
    error = capsys.readouterr().err
    assert "ais: needs densities" in error
    assert len(error.strip().splitlines()) == 1
    point = make(tmp_path / "wae", VAE(D, SMALL, posterior=Delta(), objective=OBJECTIVES["wae-mmd"]()))
    words = ["--metrics", "mse,ais", "--limit", "4", "--anneal-from", "posterior"]
    assert cli(["eval", str(point), *words]) == 2
    assert "use --anneal-from prior" in capsys.readouterr().err
    assert json.loads((point / "eval.json").read_text())["metrics"].keys() == {"mse"}
