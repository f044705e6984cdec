"""Options of training through `train_run`: each moves the state of the run as it says, not only the part it belongs to.

Every part has its own test; these hold the lines between them: which optimizer, gate, schedule, average and
microbatch the step of a real run gets.
"""

import dataclasses
import itertools
import json
import math

import jax
import numpy as np
import pytest
import support

from vae_jax.data.config import DataConfig
from vae_jax.evaluation import evaluate
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import Aggressive, Beta, Factor
from vae_jax.posteriors import Categorical
from vae_jax.priors import UniformCategorical
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.runs.run import Run
from vae_jax.schedules import Linear
from vae_jax.tasks import training
from vae_jax.train import LearningRate, MeshConfig, Optimizer

SMALL = MLP((16,))
BASE = Config(
    steps=2,
    data=DataConfig("digits", batch_size=16),
    model=VAE(3, SMALL),
    mesh=MeshConfig(data=1),
    logging=Logging(log_every=1, checkpoint_every=1, keep=20, figures_minutes=0.0, tensorboard=False),
    evaluation=Evaluation(limit=50, batch_size=25),
)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr(training, "_figures", lambda run, state, step, *more: None)


def put(**options) -> Config:
    return dataclasses.replace(BASE, **options)


def trained(folder, config: Config) -> list:
    """Returns the states of a run after 0, 1, 2, ... steps."""
    run = training.train_run(config, "wiring", folder)
    return [run.init(), *(run.restore(step) for step in range(1, config.steps + 1))]


def logged(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def moved(before, after, group: str) -> float:
    """Returns the largest change of a parameter of the group."""
    pairs = zip(jax.tree.leaves(before.params[group]), jax.tree.leaves(after.params[group]), strict=True)
    return max(float(np.abs(np.asarray(b) - np.asarray(a)).max()) for a, b in pairs)


def length(before, after) -> float:
    """Returns the Euclidean length of an update of all parameters."""
    pairs = zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True)
    return math.sqrt(sum(float(np.square(np.asarray(b, np.float64) - np.asarray(a)).sum()) for a, b in pairs))


FACTOR = put(model=VAE(3, SMALL, objective=Factor(hidden=(16,))))


def test_the_critic_has_its_own_learning_rate(tmp_path):
    start, one, two = trained(tmp_path / "own", FACTOR)
    # Adam's first update is as long as the learning rate, in every entry with a gradient.
    assert moved(start, one, "critic") == pytest.approx(FACTOR.critic_optimizer.lr, rel=1e-3)
    assert moved(start, one, "vae") == pytest.approx(FACTOR.optimizer.lr, rel=1e-3)
    still = dataclasses.replace(FACTOR, critic_optimizer=Optimizer(lr=1e-30, b1=0.5))
    _, still_one, still_two = trained(tmp_path / "still", still)
    assert moved(start, still_two, "critic") < 1e-25
    # The first update of the others meets the same critic; the second meets one that has not learned.
    support.assert_trees_equal(still_one.params["vae"], one.params["vae"])
    assert moved(still_two, two, "vae") > 0
    # Its gradient arrives all the same.
    support.assert_trees_equal(still_one.opt_state, one.opt_state)


def test_accumulated_microbatches_are_one_batch(tmp_path, monkeypatch):
    sizes = []
    build = VAE.build

    def watched(self, *args):
        model = build(self, *args)

        def loss(params, state, key, batch, ctx):
            sizes.append(len(batch["x"]))
            return model.loss(params, state, key, batch, ctx)

        return model._replace(loss=loss)

    monkeypatch.setattr(VAE, "build", watched)
    whole = trained(tmp_path / "whole", put(data=DataConfig("digits", batch_size=16)))
    assert set(sizes) == {16}
    sizes.clear()
    parts = trained(tmp_path / "parts", put(data=DataConfig("digits", batch_size=16), accumulate=2))
    assert set(sizes) == {8}
    for a, b in zip(whole[1:], parts[1:], strict=True):
        support.assert_trees_close(a.params, b.params, rtol=1e-4, atol=2e-6)
        support.assert_trees_close(a.opt_state, b.opt_state, rtol=1e-3, atol=1e-6)
    for a, b in zip(logged(tmp_path / "whole"), logged(tmp_path / "parts"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_aggressive_training_gates_the_decoder(tmp_path):
    config = put(steps=8, model=VAE(3, SMALL, objective=Aggressive(inner=3, steps=6)))
    states = trained(tmp_path / "run", config)
    steps = list(itertools.pairwise(states))
    assert [moved(a, b, "vae") > 0 for a, b in steps] == [False, False, True, False, False, True, True, True]
    assert all(moved(a, b, "encoder") > 0 for a, b in steps)


def test_gumbel_temperature_is_final_after_anneal_steps(tmp_path):
    def config(start: float, final: float) -> Config:
        posterior = Categorical(temperature=start, final_temperature=final, anneal_steps=1)
        model = VAE(3, SMALL, posterior=posterior, prior=UniformCategorical())
        return put(steps=3, model=model, optimizer=Optimizer("sgd", lr=0.01, b1=0.0))

    annealed = trained(tmp_path / "annealed", config(1.0, 0.25))
    hot, cold = trained(tmp_path / "hot", config(1.0, 1.0)), trained(tmp_path / "cold", config(0.25, 0.25))
    support.assert_trees_close(annealed[1].params, hot[1].params, rtol=1e-6)
    assert moved(annealed[1], cold[1], "vae") > 1e-5
    assert moved(annealed[2], hot[2], "vae") > 1e-5
    # From the state after step 1 the run goes on as one that was cold from the start.
    run = Run.load(tmp_path / "cold")
    feed = training.make_feed(run, run.source("train"), annealed[1])
    state, _, finite = feed.advance(jax.tree.map(lambda x: x.copy(), annealed[1]), 2)
    assert bool(finite)
    support.assert_trees_close(annealed[3].params, state.params, rtol=1e-5, atol=1e-7)


def test_the_kl_weight_follows_its_schedule(tmp_path):
    objective = Beta(Linear(steps=2, start=0.0), beta=4.0)
    trained(tmp_path / "run", put(steps=4, model=VAE(3, SMALL, objective=objective)))
    assert [line["beta"] for line in logged(tmp_path / "run")] == [0.0, 2.0, 4.0, 4.0]


def test_the_moving_average_has_the_decay_of_the_config(tmp_path):
    start, *states = trained(tmp_path / "run", put(steps=3, ema_decay=0.75))
    want = start.params
    for state in states:
        want = jax.tree.map(lambda average, new: 0.75 * average + 0.25 * new, want, state.params)
        support.assert_trees_close(state.ema, want, rtol=1e-5, atol=1e-7)
        support.assert_trees_equal(state.eval_params, state.ema)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (LearningRate(), [1, 1, 1, 1]),
        (LearningRate("cosine"), [(1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]),
        (LearningRate(warmup_steps=2), [0, 0.5, 1, 1]),
    ],
    ids=["constant", "cosine", "warm-up"],
)
def test_the_learning_rate_follows_its_schedule_over_the_run(tmp_path, schedule, shares):
    """Plain descent moves by rate x gradient, whose norm is logged."""
    optimizer = Optimizer("sgd", lr=1e-3, b1=0.0, schedule=schedule)
    states = trained(tmp_path / "run", put(steps=4, optimizer=optimizer))
    norms = [line["grad_norm"] for line in logged(tmp_path / "run")]
    rates = [length(a, b) / norm for a, b, norm in zip(states[:-1], states[1:], norms, strict=True)]
    np.testing.assert_allclose(rates, 1e-3 * np.asarray(shares), rtol=1e-3, atol=1e-9)


def test_clipping_bounds_the_update_of_a_run(tmp_path):
    optimizer = Optimizer("sgd", lr=1.0, b1=0.0, clip=0.01)
    start, one = trained(tmp_path / "run", put(steps=1, optimizer=optimizer))
    assert logged(tmp_path / "run")[0]["grad_norm"] > 0.1
    assert length(start, one) == pytest.approx(0.01, rel=1e-3)


def test_held_out_curves_are_of_the_validation_split(tmp_path):
    """The curve by which a run is judged while it trains must not be that of the test images."""
    rng = np.random.default_rng(0)
    sizes, split, n = {"train": 64, "test": 20, "validation": 30}, "validation", 30
    parts = {f"{part}_images": rng.integers(256, size=(m, 8, 8), dtype=np.uint8) for part, m in sizes.items()}
    np.savez(tmp_path / "mine.npz", **parts)
    data = DataConfig("npz", source=str(tmp_path / "mine.npz"), batch_size=16)
    evaluation = Evaluation(limit=n, batch_size=25)
    # Five steps: the end is no multiple of two, and is evaluated by the command, not by the curve.
    config = put(steps=5, data=data, logging=dataclasses.replace(BASE.logging, eval_every=2), evaluation=evaluation)
    run = training.train_run(config, "mine", tmp_path / "run")
    held_out = [line for line in logged(tmp_path / "run") if line["split"] != "train"]
    assert [(line["step"], line["split"]) for line in held_out] == [(2, split), (4, split)]
    want = evaluate(run.model, run.restore(2), run.batches(split, 25), key=jax.random.key(0), limit=n)
    assert held_out[0]["elbo"] == pytest.approx(want.metrics["elbo"].value, rel=1e-5)
