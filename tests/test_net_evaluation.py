"""Lines between parts of the evaluation: which split, which rows, which keys, which seeds."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support

from vae_jax import data, spec
from vae_jax.data.config import DataConfig
from vae_jax.data.pipeline import examples
from vae_jax.data.pixels import transform
from vae_jax.data.source import from_arrays
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.evaluation import anomaly, disentanglement, evaluate, sandwich
from vae_jax.evaluation import inference_gaps as gaps
from vae_jax.evaluation.ais import Annealed, Steps
from vae_jax.evaluation.codes import Codes
from vae_jax.model import Encoding, Joint
from vae_jax.models import VAE
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.priors import PRIORS, Links
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.spaces import Real
from vae_jax.tasks import training
from vae_jax.train import MeshConfig

TINY = VAE(latent_dim=2, network=MLP((4,)))


# --- Which split ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "split"), [("standard", "validation"), ("full", "test")])
def test_the_held_out_curve_is_of_validation_where_there_is_one(tmp_path, monkeypatch, protocol, split):
    """Although the evaluation after training is of `test`; its numbers are of the part of it that `limit` takes."""
    monkeypatch.setattr(training, "_figures", lambda run, state, step, *more: None)
    config = Config(
        steps=2,
        data=DataConfig("sprites", protocol=protocol, batch_size=8),
        model=TINY,
        mesh=MeshConfig(data=1),
        logging=Logging(log_every=1, eval_every=1, checkpoint_every=1, figures_minutes=0.0, tensorboard=False),
        evaluation=Evaluation(split="test", limit=20, batch_size=10),
    )
    run = training.train_run(config, "mine", tmp_path / "run")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    held = [line for line in lines if line["split"] != "train"]
    assert [(line["step"], line["split"]) for line in held] == [(1, split), (2, split)]
    for line in held:
        state = run.restore(line["step"])
        want = evaluate(run.model, state, run.batches(split, 10, 20), key=jax.random.key(0)).metrics
        assert want["elbo"].n == 20
        for metric in ("elbo", "mse"):
            assert line[metric] == pytest.approx(want[metric].value, rel=1e-5)


# --- Which rows ----------------------------------------------------------------------------------------------------


def subject(order, points):
    """Returns a stand-in for a run whose split holds 400 codes and factors in this order."""
    rng = np.random.default_rng(0)
    factors = np.stack([np.arange(400) // 100, rng.integers(3, size=400)], axis=1)
    codes = factors + 0.4 * rng.normal(size=factors.shape)
    held = Codes(codes[order], None, codes[order], np.arange(400), {"factors": factors[order]})
    info = SimpleNamespace(factor_sizes=(4, 3), factor_names=("class", "other"))
    return SimpleNamespace(
        settings=SimpleNamespace(points=points, bins=20),
        source=SimpleNamespace(info=info),
        run=SimpleNamespace(
            model=SimpleNamespace(about=SimpleNamespace(latents=Real((2,)))),
            config=SimpleNamespace(data=SimpleNamespace(name="x")),
        ),
        size=400,
        codes=held,
        seed=0,
        split="test",
        protocol={},
    )


SORTED = np.arange(400)
SHUFFLED = np.random.default_rng(1).permutation(400)


@pytest.mark.parametrize("points", [10_000, 300])
@pytest.mark.parametrize("metric", ["dci_linear", "explicitness", "mig"])
def test_rows_sorted_by_class_score_like_shuffled_ones(metric, points):
    """The rows to learn from, those to test with and the first `points` are cut from shuffled rows.

    Of rows as they lie, sorted by class, the first two thirds hold three of the four classes.
    """
    both = [getattr(disentanglement, metric)(subject(order, points)) for order in (SORTED, SHUFFLED)]
    for name, found in both[0].items():
        assert found.value == pytest.approx(both[1][name].value, abs=0.06), name
    facts = disentanglement.gather(subject(SORTED, points), metric)
    # Half as many again as `points` are more than there are, so either takes two thirds to learn from.
    assert (facts.train, facts.test) == (267, 133)
    for part in (facts.factors[: facts.train], facts.factors[facts.train :]):
        assert np.bincount(part[:, 0], minlength=4).min() >= 0.15 * len(part)


# --- Which keys ----------------------------------------------------------------------------------------------------


def words(keys):
    """Returns the keys as a set of tuples."""
    return {tuple(k) for k in np.asarray(jax.random.key_data(keys)).reshape(-1, 2).tolist()}


def test_chains_are_tuned_and_run_on_keys_and_starts_of_their_own(monkeypatch):
    """Tuning, the forward and the reverse run: no key in common; the trial chains start at draws of their own."""
    seen: dict[str, list] = {"tune": [], "ais": []}

    def tune(first, ratio, z0, betas, keys, *, leapfrog):
        seen["tune"].append((np.asarray(z0), words(keys)))
        return Steps(jnp.asarray(betas), jnp.zeros((len(betas), z0.shape[1])))

    def ais(first, ratio, z0, betas, keys, steps, *, leapfrog):
        seen["ais"].append((np.asarray(z0), words(keys)))
        return Annealed(jnp.zeros(z0.shape[:2]), jnp.ones(z0.shape[1]))

    monkeypatch.setattr(sandwich, "tune", tune)
    monkeypatch.setattr(sandwich, "ais", ais)
    model = TINY.build(spec.images(6, 5, 1))
    batch = support.images(3, (6, 5, 1))
    params, state = model.init(jax.random.key(0), batch)
    trained = SimpleNamespace(eval_params=params, model_state=state)
    program = sandwich._program(model.density.joint, model.encode, "both", 4, 3, 1, "prior")
    with jax.disable_jit():
        program(trained, jax.random.key(1), {"x": batch["x"]}, jnp.arange(3))
    ((trial, tuning),) = seen["tune"]
    (start, forward), (_, reverse) = seen["ais"]
    assert len(tuning) == len(forward) == len(reverse) == 12
    assert not tuning & forward
    assert not tuning & reverse
    assert not forward & reverse
    assert trial.shape == start.shape
    assert not np.isin(trial, start).any()


def recorded():
    """Returns (encode, joint of a batch, list of the codes that were decoded): z with q = N(0, I) are their noise."""
    seen: list[tuple] = []

    def log_likelihood(z):
        jax.debug.callback(lambda z: seen.extend(tuple(row) for row in np.asarray(z).reshape(-1, 3).tolist()), z)
        return -jnp.sum(jnp.square(z - 3.0), -1)

    def encode(params, state, keys, batch):
        zeros = jnp.zeros((len(batch["x"]), 3))
        return Encoding(zeros, DiagGaussian(zeros, zeros))

    def joint(params, state, batch):
        prior = DiagGaussian(jnp.zeros((1, 3)), jnp.zeros((1, 3)))
        return Joint(prior, log_likelihood, lambda keys: keys, lambda keys, z: {})

    return encode, joint, seen


def distinct(program, seen, draws):
    """Asserts that the program decodes `draws` codes, no two of them the same."""
    trained = SimpleNamespace(eval_params={}, model_state={})
    batch = {"x": jnp.zeros((2, 4, 4, 1))}
    out = program(trained, jax.random.key(3), batch, jnp.arange(2))
    jax.block_until_ready(out)
    jax.effects_barrier()
    assert len(seen) == draws
    assert len(set(seen)) == draws
    return out


def test_regret_is_judged_on_draws_that_its_q_was_not_fitted_on():
    """One step from N(0, I): its draw, and 64 of the judges for each of the two q, are all different."""
    encode, joint, seen = recorded()
    out = distinct(anomaly._regret.__wrapped__(encode, joint, 1).__wrapped__, seen, 2 * (1 + 2 * anomaly.JUDGES))
    assert np.all(out > 0)


def test_a_local_q_is_scored_on_draws_that_it_was_not_fitted_on():
    encode, joint, seen = recorded()
    program = gaps._program.__wrapped__(joint, encode, 1, 8).__wrapped__
    amortized, optimized = distinct(program, seen, 2 * (8 + 2 * gaps.DRAWS))
    assert np.all(optimized > amortized)


# --- Which seeds ---------------------------------------------------------------------------------------------------

GRAY = np.full((2, 4, 8, 1), 128, np.uint8)


def bits(image):
    """Returns the pixels of binary images as hexadecimal digits, one string an image."""
    return [np.packbits(np.asarray(one, np.uint8).ravel()).tobytes().hex() for one in image]


def test_static_binarization_is_the_same_data_set_for_ever():
    """A half-gray image of each split, at its first two places: numbers of other versions must compare."""
    found = {}
    for split in ("train", "test"):
        batch = {"image": GRAY, "index": np.arange(2)}
        one = transform(DataConfig("digits", binarize="static"), train=False, split=split)
        found[split] = bits(one(jax.random.key(0), batch)["x"])
        np.testing.assert_array_equal(bits(one(jax.random.key(99), batch)["x"]), found[split])
    assert found == {"train": ["d09c059c", "4b80ff40"], "test": ["9e93d6c7", "a46033d8"]}


def test_noise_of_evaluation_is_pinned():
    """Dynamic binarization and dequantization of two gray test images, under no key of the caller's."""
    gray = np.full((2, 8, 8, 1), 128, np.uint8)
    source = from_arrays(data.load(DataConfig("digits"), "test").info, "test", {"image": gray}, "device")

    def first(**options):
        return np.asarray(examples(source, DataConfig("digits", **options), np.arange(2))["x"])

    assert bits(first(binarize="dynamic")) == ["b002c5e881aca17a", "bd7a6e61ebacaf29"]
    noise = np.floor((first(dequantize=True)[:, 0, :4, 0] * 256 - 128) * 65536)
    assert noise.tolist() == [[10420.0, 36418.0, 4614.0, 22880.0], [30376.0, 42132.0, 27942.0, 20928.0]]


# --- Temperature ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["normal", "learned-normal", "conditional-normal", "mog", "laplace", "autoregressive"])
def test_temperature_scales_the_distance_from_the_center(name):
    """z(t) - z(0) = t (z(1) - z(0)) under one key, z(0) the center: that of the condition, where there is one."""
    prior, key = PRIORS[name](), jax.random.key(0)
    links = Links(3, (2, 2, 1), lambda x: None, cond=jnp.eye(4), blocks=(1, 1, 1))
    params = jax.tree.map(lambda p: p + 0.3, prior.init(jax.random.key(1), links))
    if name == "autoregressive":  # a later dimension depends on those before it
        params = jax.tree.map(jnp.zeros_like, params)
    at = {t: np.asarray(prior.sample(params, {}, key, 8, links, temperature=t)) for t in (0.0, 0.5, 1.0, 2.0)}
    for t in (0.5, 2.0):
        np.testing.assert_allclose(at[t] - at[0.0], t * (at[1.0] - at[0.0]), rtol=1e-4, atol=1e-5)
    assert np.abs(at[1.0] - at[0.0]).min(0).max() > 1e-3
    if name == "conditional-normal":
        center = prior.distribution(params, {}, links).mean
        np.testing.assert_allclose(at[0.0], np.tile(center, (2, 1)), rtol=1e-6)


def test_temperature_reaches_the_conditional_prior_through_the_model():
    config = VAE(2, MLP((4,)), prior=PRIORS["conditional-normal"](), condition=Condition("label"))
    model = config.build(support.spec((6, 5, 1)))
    params, state = model.init(jax.random.key(0), support.images(3, (6, 5, 1)))

    def means(seed, temperature):
        return np.asarray(model.sample(params, state, jax.random.key(seed), 6, temperature=temperature).mean())

    np.testing.assert_array_equal(means(0, 0.0), means(1, 0.0))
    assert np.abs(means(0, 1.0) - means(1, 1.0)).max() > 1e-4
    assert np.abs(means(0, 0.5) - means(0, 1.0)).max() > 1e-4
