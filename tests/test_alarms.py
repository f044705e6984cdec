"""Warnings while a run trains: dimensions without information, a loss that diverges; and the line on the devices."""

import dataclasses
import json

import jax
import pytest
import support

from vae_jax.data.config import DataConfig
from vae_jax.models import M2, VAE, VQVAE, Autoencoder
from vae_jax.networks import MLP
from vae_jax.objectives import Beta
from vae_jax.quantizers import VQ, SimVQ
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config, Logging
from vae_jax.runs.run import Run
from vae_jax.schedules import Linear
from vae_jax.spec import images
from vae_jax.tasks import training
from vae_jax.train import MeshConfig, Optimizer
from vae_jax.train.alarms import Alarms

TINY = Config(
    steps=40,
    data=DataConfig("digits", batch_size=8),
    model=VAE(3, MLP((32,)), objective=Beta(beta=50.0)),
    optimizer=Optimizer(lr=1e-2),
    mesh=MeshConfig(data=1),
    logging=Logging(10, figures_minutes=0.0, tensorboard=False),
)


def read(lines, key="kl_per_dim"):
    """Returns the warnings on each of a series of lines."""
    alarms = Alarms("use beta", "go slower", "use fsq")
    return [alarms.read(step, {key: value}) for step, value in enumerate(lines, 1)]


def test_dimensions_without_information_are_listed_once_and_again_when_they_change():
    one, two, none = [2.0, 0.05, 0.009], [2.0, 0.01, 0.009], [2.0, 0.1, 0.1]
    said = read([one, one, two, one, [2.0, 0.009, 0.05], [2.0, 0.009, 0.05], none, none, none])
    first = "step 2: latent dimensions that are hardly used (2 of 3): 2 below 0.01 nats, 1 below 0.1 nats; use beta"
    other = "step 6: latent dimensions that are hardly used (2 of 3): 1 below 0.01 nats, 2 below 0.1 nats; use beta"
    back = "step 8: all 3 latent dimensions carry 0.1 nats or more again"
    # The first line of a change waits for the second: values pass the thresholds and waver at them.
    assert said == [[], [first], [], [], [], [other], [], [back], []]


def test_nothing_is_said_of_dimensions_that_are_used_or_that_there_are_none_of():
    assert read([[2.0, 0.1]] * 4) == [[]] * 4
    assert read([None] * 4) == [[]] * 4
    assert read([[[0.0, 0.0]]] * 4) == [[]] * 4


def test_a_long_list_is_cut():
    (text,) = read([[0.0] * 40] * 2)[1]
    assert "(40 of 40): 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, ... below 0.01 nats" in text


def test_codebooks_out_of_use_are_named_once_and_again_when_they_change():
    low, both, none = [0.5, 0.09], [0.01, 0.09], [0.1, 0.1]
    said = read([low, low, low, both, both, none, none, none], "usage")
    first = "step 2: entries that are hardly used (9.0% of codebook 1 chosen in this interval); use fsq"
    other = (
        "step 5: entries that are hardly used (1.0% of codebook 0, 9.0% of codebook 1 chosen in this interval); use fsq"
    )
    assert said == [
        [],
        [first],
        [],
        [],
        [other],
        [],
        ["step 7: every codebook has 10% of its entries in use or more again"],
        [],
    ]
    assert read([none] * 3, "usage") == [[]] * 3
    # Of a model of several levels.
    assert read([low] * 2, "usage/top")[1] == [first.replace("book 1", "book top 1")]


def test_the_advice_on_codebooks_names_options_that_the_quantizer_has(tmp_path):
    def advice(quantizer):
        return training._more_entries(configs.put(TINY, "model", VQVAE(4, support.GRID, quantizer=quantizer)))

    assert advice(VQ(codes=8)).count("model.quantizer") == 2
    assert "revive" not in advice(VQ(codes=8, revive=0.1))
    assert "revive" not in advice(SimVQ(codes=8))
    # Of a codebook far from the data one entry is chosen; the advice, followed, brings the others back.
    model = VQVAE(4, support.GRID, quantizer=VQ(codes=64))
    config = dataclasses.replace(TINY, model=model, steps=60)
    said = []
    training.train_run(config, "x", tmp_path / "few", say=said.append)
    better = configs.put(config, "model.quantizer.revive", 0.1)
    training.train_run(better, "x", tmp_path / "more", say=said.append)
    lines = [json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1]) for name in ("few", "more")]
    assert lines[0]["usage"][0] < lines[1]["usage"][0]


@pytest.mark.parametrize("usual", [50.0, -50.0])
def test_a_loss_that_rises_by_an_order_of_magnitude_is_said_once(usual):
    said = read([usual, usual, usual, 499.0, 501.0, 1e6, 1e9, usual, usual, 1e5], "loss")
    assert [len(texts) for texts in said] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert said[4] == ["step 5: the loss diverges, 501 after 50 in the lines before; go slower"]


def test_a_loss_that_falls_or_passes_zero_does_not_diverge():
    assert read([1e6, 1e4, 100.0, 10.0, 1.0, 0.1, -0.5, -3.0, -100.0, -1e4, -1e3], "loss") == [[]] * 11
    # Two lines are no measure of a loss.
    assert read([0.1, 0.1, 50.0], "loss") == [[]] * 3


def test_they_go_to_the_terminal_and_the_log_with_options_that_help(tmp_path):
    said = []
    run = training.train_run(TINY, "x", tmp_path / "run", say=said.append)
    text = next(line for line in said if "hardly used" in line)
    assert text.startswith(
        "warning: step 30: latent dimensions that are hardly used (3 of 3): 0, 1, 2 below 0.01 nats; "
    )
    assert text.removeprefix("warning: ") in (run.path / "log.txt").read_text()
    fix = (
        'a lower **{"model.objective.beta"} than 50 or an annealed weight with **{"model.objective.schedule": '
        f'"linear", "model.objective.schedule.steps": {TINY.steps // 5}}} makes the code use more of them'
    )
    fix = fix.replace('**{"model.objective.beta"}', "model.objective.beta")
    assert text.endswith(f"; {fix}")
    # The advice, followed: nothing to warn of.
    said.clear()
    model = dataclasses.replace(TINY.model, objective=Beta(beta=0.01, schedule=Linear(1000)))
    training.train_run(dataclasses.replace(TINY, model=model), "x", tmp_path / "better", say=said.append)
    assert not [line for line in said if "hardly used" in line]


def test_the_advice_names_options_that_the_model_has():
    def advice(model):
        return training._more_information(configs.put(TINY, "model", model))

    assert advice(M2(3, MLP((8,)))).startswith("a lower model.beta than 1 ")
    assert "schedule" not in advice(M2(3, MLP((8,))))
    assert "schedule" not in advice(VAE(3, MLP((8,)), objective=Beta(beta=4.0, schedule=Linear(10))))
    assert advice(Autoencoder(3, MLP((8,)))) == "a smaller latent says as much"


def test_divergence_advises_a_lower_rate(tmp_path, monkeypatch):
    said = []
    real = training.Alarms.read
    monkeypatch.setattr(training.Alarms, "read", lambda self, step, line: real(self, step, line | {"loss": 10.0**step}))
    config = dataclasses.replace(TINY, steps=5, logging=dataclasses.replace(TINY.logging, log_every=1))
    run = training.train_run(config, "x", tmp_path / "run", say=said.append)
    (text,) = (line for line in said if "diverges" in line)
    command = f'`vj.resume("{run.path}", **{{"optimizer.lr": 0.003}})`'
    assert text.startswith("warning: step 4: the loss diverges, 1e+04 after 100 in the lines before; lower the ")
    assert text.endswith(f"learning rate: {command}")


def test_a_line_says_on_what_it_trains(tmp_path, monkeypatch):
    said = []
    config = dataclasses.replace(TINY, steps=1)
    run = training.train_run(config, "x", tmp_path / "run", say=said.append)
    line = f"device: 1 x cpu, jax {jax.__version__}, matrix products in float32"
    assert said[1] == line
    assert line in (run.path / "log.txt").read_text()
    with jax.default_matmul_precision("highest"):
        assert training.devices(run) == f"{line}, highest passes"
    half = Run(tmp_path, "x", configs.put(config, "model.precision", "bfloat16"), images(8, 8, 1))
    assert training.devices(half).endswith("matrix products in bfloat16")
