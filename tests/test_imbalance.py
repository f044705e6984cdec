"""Classes of unequal size: balanced draws and class weights, in training alone and named where they count."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax as vj
from vae_jax import data
from vae_jax.cli.main import run as command
from vae_jax.data import balance
from vae_jax.data.config import DataConfig
from vae_jax.data.pipeline import eval_batches, make_batch_fn, make_transform
from vae_jax.data.stream import GrainStream
from vae_jax.errors import InputError, on_command_line
from vae_jax.likelihoods import GaussianOptimal, Multinomial
from vae_jax.models import M2, VAE, Autoencoder, Multimodal
from vae_jax.networks import MLP
from vae_jax.objectives import IWAE, DipI
from vae_jax.spec import images

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)
COUNTS = [60, 25, 10, 5]
LABELS = RNG.permutation(np.repeat(np.arange(4), COUNTS))
IMAGES = RNG.integers(0, 256, (100, 8, 8), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _at_the_command_line():
    """Messages are read as somebody at the command line reads them."""
    with on_command_line():
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("imbalance") / "mine.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    return str(path)


def of(file, **options):
    return DataConfig("npz", source=file, **{"protocol": "full", "batch_size": 24, **options})


def refusal(call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    (line,) = str(caught.value).splitlines()
    return line


def drawn(config, steps, first=0):
    """Returns the rows of these steps, int [steps * B], from the device pipeline."""
    source = data.load(config, "train")
    make = jax.jit(make_batch_fn(source, config))
    batches = [make(dict(source.arrays), KEY, step) for step in range(first, first + steps)]
    return np.concatenate([np.asarray(batch["index"]) for batch in batches]), batches


def test_an_epoch_of_balanced_draws_has_every_class_equally_often(file):
    config = of(file, balance="draws")
    assert data.load(config, "train").epoch == 4 * 60
    rows, _ = drawn(config, 50)
    for epoch in range(5):
        mine = rows[240 * epoch : 240 * (epoch + 1)]
        assert np.bincount(LABELS[mine]).tolist() == [60] * 4
        for label, count in enumerate(COUNTS):
            times = np.bincount(mine, minlength=100)[label == LABELS]
            # As often as they fit in, give or take one.
            assert times.min() >= 60 // count
            assert times.max() <= -(-60 // count)
    # Orders of epochs differ, and so do the examples of 25 that come once more in 60 draws.
    assert (rows[:240] != rows[240:480]).any()
    often = np.stack([np.bincount(rows[240 * e : 240 * (e + 1)], minlength=100)[LABELS == 1] for e in range(5)])
    assert len(np.unique(often, axis=0)) > 1


def test_the_host_draws_what_the_device_draws_and_any_step_is_exact(file):
    config = of(file, balance="draws")
    rows, batches = drawn(config, 25)
    source = data.load(dataclasses.replace(config, pipeline="grain"), "train")
    for step in (0, 9, 21):
        host = next(GrainStream(source, config, KEY, step=step))
        np.testing.assert_array_equal(host["index"], batches[step]["index"])
        np.testing.assert_array_equal(host["visit"], batches[step]["visit"])
        np.testing.assert_array_equal(host["label"], batches[step]["label"])
    again, _ = drawn(config, 4, first=21)
    np.testing.assert_array_equal(again, rows[21 * 24 :])
    other = data.load(config, "train")
    assert other.draws == data.load(config, "train").draws
    assert make_batch_fn(other, config) is make_batch_fn(data.load(config, "train"), config)


def test_classes_that_do_not_occur_are_no_gap():
    found = balance.draws(np.array([0, 5, 5, 5]), "x")
    assert found.size == 6
    rows = np.asarray(found.rows(KEY, jnp.arange(6), jnp.zeros(6, jnp.uint32)))
    assert np.bincount(rows).tolist() == [3, 1, 1, 1]
    many = np.concatenate([np.arange(50_000), np.zeros(50_000, int)])
    line = refusal(balance.draws, many, "x")
    assert "--data.balance none --data.class-weights balanced" in line
    assert len(balance.weights(many, 50_000, "balanced")) == 50_000


@pytest.mark.parametrize("given", ["balanced", (1.0, 2.0, 0.0, 4.0)])
def test_weights_have_mean_one_and_the_ratios_that_were_given(file, given):
    source = data.load(of(file, class_weights=given), "train")
    found = np.array(source.weights)
    assert found[LABELS].mean() == pytest.approx(1.0)
    wanted = 1 / np.array(COUNTS) if given == "balanced" else np.array(given)
    np.testing.assert_allclose(found / found[0], wanted / wanted[0])
    _, (batch, *_) = drawn(of(file, class_weights=given), 1)
    np.testing.assert_allclose(batch["weight"], found[LABELS[batch["index"]]], rtol=1e-6)
    # Host pipeline, and an evaluation, which weighs nothing.
    config = of(file, class_weights=given, pipeline="grain")
    streamed = data.load(config, "train")
    host = make_transform(streamed, config)(KEY, next(GrainStream(streamed, config, KEY)))
    np.testing.assert_array_equal(host["weight"], batch["weight"])
    assert all("weight" not in batch for batch in eval_batches(source, config))


MODELS = {
    "vae": VAE(2, MLP((8,))),
    "m2": M2(2, MLP((8,)), width=4),
    "multimodal": Multimodal(2, MLP((8,)), width=4),
    "autoencoder": Autoencoder(2, MLP((8,))),
    # They fit a variance to the batch: that of the weighted errors.
    "sigma": VAE(2, MLP((8,)), GaussianOptimal()),
    "sigma, two samples": VAE(2, MLP((8,)), GaussianOptimal(), objective=IWAE(k=2)),
    "sigma autoencoder": Autoencoder(2, MLP((8,)), GaussianOptimal()),
}


def losses(model, batch, index):
    """Returns the loss and its gradients as a vector, of a batch whose examples have these noise numbers."""
    built = model.build(images(8, 8, 1, classes=4, examples=100))
    params, state = built.init(jax.random.key(0), {"x": jnp.zeros((1, 8, 8, 1))})
    ctx = built.context(batch)._replace(index=jnp.asarray(index), train=True)

    def loss(params):
        return built.loss(params, state, KEY, batch, ctx)

    (value, aux), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    flat = np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)])
    return np.asarray(value), flat, aux.metrics


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_one_change_no_bit_and_weights_of_two_are_duplicated_rows(name):
    x = jnp.asarray(IMAGES[:4, ..., None] / 255, jnp.float32)
    batch = {"x": x, "label": jnp.asarray([0, 1, 2, 3])}
    model, every = MODELS[name], np.arange(4)
    plain, ones = losses(model, batch, every), losses(model, {**batch, "weight": jnp.ones(4)}, every)
    assert plain[0] == ones[0]
    np.testing.assert_array_equal(plain[1], ones[1])
    # The oracle: half of the rows with weight 2 are these rows twice.
    weighted = losses(model, {**batch, "weight": jnp.asarray([2.0, 0, 2, 0])}, every)
    twice = np.array([0, 2, 0, 2])
    doubled = losses(model, {key: value[twice] for key, value in batch.items()}, twice)
    np.testing.assert_allclose(weighted[0], doubled[0], rtol=1e-5)
    np.testing.assert_allclose(weighted[1], doubled[1], rtol=1e-4, atol=1e-5)
    assert abs(weighted[0] - plain[0]) > 1e-3
    if name.startswith("sigma"):  # its distortion is measured with the variance that the weights enter
        return
    # What is logged beside the loss is never weighted.
    np.testing.assert_allclose(weighted[2]["distortion"], plain[2]["distortion"], rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("likelihood", [GaussianOptimal(decay=0.9), Multinomial()])
def test_statistics_of_a_batch_count_examples_by_their_weight(likelihood, masked):
    """Weights of whole numbers are repeated examples, in the fitted variance and in every running state."""
    if masked and not likelihood.takes_mask(1):
        return
    rng = np.random.default_rng(3)
    out, x = (jnp.asarray(rng.integers(0, 9, (4, 2, 3, 1)) / 4, jnp.float32) for _ in range(2))
    mask = {"mask": jnp.asarray(rng.random(x.shape) < 0.6)} if masked else {}

    def fitted(rows, state, weight=None):
        kept = np.asarray(rows)
        more = {name: value[kept] for name, value in mask.items()} | ({} if weight is None else {"weight": weight})
        return likelihood.fit(out[kept], x[kept], {}, state, None, **more)

    every, start = [0, 1, 2, 3], likelihood.init_state()
    for weight in ([3.0, 0, 2, 1], [2.0, 2, 2, 2], [0.0, 1, 0, 0]):
        rows = np.repeat(every, np.asarray(weight, int))
        (p_x, state), (want, want_state) = fitted(every, start, jnp.asarray(weight)), fitted(rows, start)
        if isinstance(likelihood, GaussianOptimal):
            np.testing.assert_allclose(p_x.log_std, want.log_std, rtol=1e-6)
        name, by = ("mse", "weight") if isinstance(likelihood, GaussianOptimal) else ("total", None)
        found, wanted = (s[name] / (s[by] if by else 1) for s in (state, want_state))
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    # Examples of no weight say nothing.
    _, state = fitted(every, start, jnp.asarray([3.0, 0, 2, 1]))
    _, after = fitted(every, state, jnp.zeros(4))
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_a_batch_of_little_weight_moves_the_running_mean_as_little():
    likelihood, x = GaussianOptimal(decay=0.5), jnp.zeros((2, 1, 1, 1))
    _, state = likelihood.fit(x + 1.0, x, {}, likelihood.init_state(), None, weight=jnp.asarray([1.5, 1.5]))
    _, state = likelihood.fit(x + 2.0, x, {}, state, None, weight=jnp.asarray([0.5, 0.5]))
    # Decays once: (0.5 * 1.5 * 1 + 0.5 * 4) / (0.5 * 1.5 + 0.5).
    np.testing.assert_allclose(state["mse"] / state["weight"], 2.75 / 1.25, rtol=1e-6)
    counts = Multinomial()
    _, state = counts.fit(x, x + 10.0, {}, counts.init_state(), None, weight=jnp.asarray([3.0, 3.0]))
    _, state = counts.fit(x, x + 2.0, {}, state, None, weight=jnp.asarray([1.0, 1.0]))
    np.testing.assert_allclose(state["total"], 8.0, rtol=1e-6)


def test_runs_name_what_they_do_and_evaluations_do_it_not(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", "vae_digits", "--data", file, "--data.protocol", "full", "--steps", "4", "--mesh.data", "1"]
    words += ["--data.batch-size", "8", "--evaluation.k", "2", "--logging.tensorboard", "False"]
    for name, options, said in (
        ("draws", ["--data.balance", "draws"], "training draws classes equally often (data.balance)"),
        ("weights", ["--data.class-weights", "balanced"], "(data.class_weights balanced)"),
    ):
        assert command([*words, *options, "--workdir", name]) == 0
        assert said in capsys.readouterr().out
        held = json.loads((tmp_path / name / "eval.json").read_text())
        assert said in held["protocol"]["splits"]
        assert held["metrics"]["elbo"]["n"] == 100
        assert command(["report", name]) == 0
        assert said in (tmp_path / name / "report.html").read_text()
    # The number is that of the same weights measured plainly.
    state = vj.load("weights").restore()
    config = vj.load("weights").config
    plain = dataclasses.replace(config, data=dataclasses.replace(config.data, class_weights="none"))
    run = vj.train_run(plain, "plain", quiet=True)
    a, b = (vj.evaluate_run(r, state=state, write=False)["metrics"] for r in ("weights", run))
    assert a["elbo"] == b["elbo"]
    assert command(["train", "--resume", "draws", "--steps", "6", "--data.balance", "none", "--quiet"]) == 2
    assert "data.balance: draws -> none" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"balance": "draws"}, {"class_weights": "balanced"}])
def test_a_run_that_is_resumed_is_the_one_that_never_stopped(file, tmp_path, options):
    config = vj.experiment("vae_digits", steps=6, **{"data.batch_size": 8, "mesh.data": 1, "evaluation.k": ()})
    config = dataclasses.replace(config, data=of(file, batch_size=8, **options))
    whole = vj.train_run(config, tmp_path / "a", quiet=True)
    vj.train_run(dataclasses.replace(config, steps=3), tmp_path / "b", quiet=True)
    parts = vj.resume(tmp_path / "b", steps=6, quiet=True)
    for x, y in zip(*(jax.tree.leaves(run.restore().params) for run in (whole, parts)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_options_that_do_not_fit_and_what_to_do(file, tmp_path):
    def load(**options):
        return data.load(of(file, **options), "train")

    both = refusal(load, balance="draws", class_weights="balanced")
    assert "use --data.class-weights none, or --data.balance none" in both
    few = refusal(load, class_weights=(1.0, 2.0))
    assert "2 weights for the 4 classes" in few
    assert "as in --data.class-weights 1 1 1 1" in few
    assert load(class_weights=(1.0, 1.0, 1.0, 1.0)).weights == (1.0,) * 4
    assert "give one of them more than 0" in refusal(load, class_weights=(0.0,) * 4)
    for bad in ((-1.0, 1, 1, 1), (float("nan"), 1, 1, 1), (), "some"):
        assert "a number of 0 or more for each class" in refusal(load, class_weights=bad)
    np.savez(tmp_path / "plain.npz", images=IMAGES)
    np.savez(tmp_path / "partly.npz", images=IMAGES, labels=np.where(np.arange(100) % 2, LABELS, -1))
    for name, value in (("balance", "draws"), ("class_weights", "balanced")):
        off = {name: "none"}
        for other in ("plain", "partly"):
            config = of(str(tmp_path / f"{other}.npz"), **{name: value})
            line = refusal(data.load, config, "train")
            assert f"use --data.{name.replace('_', '-')} none" in line
            assert data.load(dataclasses.replace(config, **off), "train").size == 100
        assert "some of 'npz' are unknown" in refusal(load, labels=8, **{name: value})


def test_an_objective_that_couples_examples_takes_draws_in_place_of_weights(file):
    from vae_jax.tasks import training

    config = vj.experiment("vae_digits", steps=1, **{"mesh.data": 1})
    config = dataclasses.replace(config, model=VAE(2, MLP((8,)), objective=DipI()))
    weighted = dataclasses.replace(config, data=of(file, class_weights="balanced"))
    line = refusal(training.prepare, weighted)
    assert "use --data.class-weights none, or with it --data.balance draws" in line
    assert training.prepare(dataclasses.replace(config, data=of(file, balance="draws")))[0].draws is not None
