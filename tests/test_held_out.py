"""Evaluations while a run trains: the best checkpoint, patience, resuming both, and what is refused."""

import dataclasses
import importlib
import json
import shutil
from typing import Literal, get_type_hints

import jax
import numpy as np
import pytest

from vae_jax import data
from vae_jax.cli import main
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, on_command_line
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.runs.run import Run, history
from vae_jax.tasks import held_out, training
from vae_jax.tasks.measuring import evaluate_run
from vae_jax.train import MeshConfig

# Values of the evaluations at steps 2, 4, ...: the best of the first four is at step 4, a NaN is none.
VALUES = [-9.0, -7.0, -8.0, float("nan"), -7.5, -6.0, -5.0, -4.0]
LONG = Config(
    steps=16,
    data=DataConfig("digits", batch_size=8),
    model=VAE(3, MLP((8,))),
    mesh=MeshConfig(data=1),
    logging=Logging(4, 8, keep=1, eval_every=2, figures_minutes=0.0, tensorboard=False, best="elbo"),
    evaluation=Evaluation(limit=20, batch_size=20),
)


def put(config, **options):
    return dataclasses.replace(config, **options)


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """Returns (step, whether patience has run out) of the figures, in place of which nothing is drawn."""
    found = []
    monkeypatch.setattr(training, "_figures", lambda run, state, step, ended=False: found.append((step, ended)))
    return found


@pytest.fixture
def scripted(monkeypatch):
    """Evaluations give `VALUES` by their step; returns the splits that were measured."""
    real, splits = held_out.evaluate, []
    batches = Run.batches
    monkeypatch.setattr(Run, "batches", lambda self, split, *a, **kw: splits.append(split) or batches(self, split, *a))

    def evaluate(model, state, examples, *, key):
        result = real(model, state, examples, key=key)
        value = dataclasses.replace(result.metrics["elbo"], value=VALUES[int(state.step) // 2 - 1])
        return dataclasses.replace(result, metrics=result.metrics | {"elbo": value})

    monkeypatch.setattr(held_out, "evaluate", evaluate)
    return splits


def lines(run, split):
    found = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["elbo"]) for line in found if line["split"] == split]


def leaves(state):
    raw = dataclasses.replace(state, key=jax.random.key_data(state.key))
    return jax.tree.leaves(jax.device_get(raw))


def same(a, b):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_best_checkpoint_is_kept_apart_and_named(tmp_path, scripted):
    said = []
    run = training.train_run(put(LONG, steps=10), "x", tmp_path / "run", say=said.append)
    assert [p.name for p in (run.path / "best").iterdir() if p.name.isdigit()] == ["4"]
    # keep=1: the newest one is all that rotation left.
    assert run.newest_step == 10
    assert run.checkpoints().steps() == [10]
    assert set(scripted) == {"validation"}
    assert said[-1] == f'best elbo -7 on the validation split at step 4: `vj.evaluate_run("{run.path}", step="best")`'
    # The state of step 4 itself, to the bit.
    plain = put(LONG, steps=4, logging=Logging(4, figures_minutes=0.0, tensorboard=False))
    short = training.train_run(plain, "x", tmp_path / "short")
    same(run.restore("best"), short.restore())
    # Every command takes it; a number is measured of it, and filed under its step.
    assert evaluate_run(run, metrics=("elbo",), step="best", limit=5)["step"] == 4
    with on_command_line():
        assert main.run(["sample", str(run.path), "--step", "best", "--n", "2", "--out", str(tmp_path / "s.npz")]) == 0


@pytest.mark.parametrize("command", [name for name in main.COMMANDS if name not in ("train", "sweep", "data")])
def test_every_command_that_takes_a_checkpoint_takes_the_best(command):
    module, _, name = main.COMMANDS[command][0].partition(":")
    step = get_type_hints(getattr(importlib.import_module(module), name)).get("step", int | Literal["best"] | None)
    assert step == int | Literal["best"] | None


def test_no_run_continues_from_before_its_best_step(tmp_path, scripted):
    config = put(LONG, steps=10, logging=put(LONG.logging, keep=9))
    run = training.train_run(config, "x", tmp_path / "run")
    # Steps 2 and 4 improved; 8 and 10 are those of checkpoint_every and the end.
    assert run.checkpoints().steps() == [2, 4, 8, 10]


@pytest.mark.parametrize("killed", [4, 6, 8])
def test_patience_ends_a_run_and_resume_counts_on(tmp_path, scripted, drawn, monkeypatch, killed):
    said = []
    config = put(LONG, patience=3)
    run = training.train_run(config, "x", tmp_path / "run", say=said.append)
    # -8, NaN and -7.5 did not improve on -7 of step 4.
    assert [step for step, _ in lines(run, "validation")] == [2, 4, 6, 8, 10]
    assert run.checkpoints().steps() == [10]
    assert run.last_step == 10
    assert drawn == [(10, True)]
    assert history(run.path)[-1]["event"] == "early stop"
    assert history(run.path)[-1]["best"] == [4, -7.0]
    assert said[-2].startswith("ended at step 10 of 16: 3 evaluations in a row did not improve elbo (patience 3); ")
    assert lines(run, "train")[-1][0] == 10
    assert evaluate_run(run, metrics=("elbo",), limit=5)["step"] == 10  # finished

    # Killed right after the checkpoint of a step, before its evaluation, and continued: the same end, to the bit.
    class Killed(BaseException):
        pass

    def kill(self, state, step):
        if step == killed:
            raise Killed
        return measure(self, state, step)

    measure = held_out.HeldOut.measure
    monkeypatch.setattr(held_out.HeldOut, "measure", kill)
    with pytest.raises(Killed):
        training.train_run(put(config, logging=put(config.logging, checkpoint_every=2)), "x", tmp_path / "again")
    monkeypatch.setattr(held_out.HeldOut, "measure", measure)
    again = training.train_run(config, "x", tmp_path / "again", resume=True)
    assert str(lines(again, "validation")) == str(lines(run, "validation"))
    same(again.restore(), run.restore())
    same(again.restore("best"), run.restore("best"))
    assert again.last_step == 10


def test_a_run_that_ended_early_continues_with_more_patience(tmp_path, scripted):
    run = training.train_run(put(LONG, patience=3), "x", tmp_path / "run")
    said = []
    # As it is it has ended: nothing is trained.
    again = training.train_run(put(LONG, patience=3), "x", run.path, resume=True, say=said.append)
    assert again.newest_step == again.last_step == 10
    advice = said[-2].partition("; ")[2]
    assert advice == f'`vj.resume("{run.path}", patience=6)` continues'
    longer = training.train_run(put(LONG, patience=6), "x", run.path, resume=True)
    assert longer.newest_step == longer.last_step == 16
    assert int(longer.restore("best").step) == 16
    plain = training.train_run(put(LONG, patience=0), "x", tmp_path / "whole")
    same(longer.restore(), plain.restore())


def test_another_metric_starts_the_count_anew(tmp_path, scripted):
    run = training.train_run(put(LONG, steps=8, logging=put(LONG.logging, best="mse")), "x", tmp_path / "run")
    training.train_run(put(LONG, steps=10), "x", run.path, resume=True)
    # The ELBO of step 4 was higher, but the weights of that step were not kept for it.
    assert int(run.restore("best").step) == 10


def test_less_is_better_where_it_is(tmp_path, monkeypatch):
    assert held_out.better("mse") == "less"
    config = put(LONG, steps=6, logging=put(LONG.logging, best="mse"))
    run = training.train_run(config, "x", tmp_path / "run")
    found = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    measured = {line["step"]: line["mse"] for line in found if line["split"] == "validation"}
    assert int(run.restore("best").step) == min(measured, key=lambda step: measured[step])


def refused(config, tmp_path):
    with pytest.raises(InputError) as info:
        training.train_run(config, "x", tmp_path / "no")
    assert not (tmp_path / "no").exists()
    return str(info.value)


def test_what_cannot_be_chosen_by_is_refused_and_the_advice_works(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "fit", lambda feed, state, **kw: state)

    def follows(config, **logging):
        fixed = put(config, steps=4, logging=put(config.logging, **logging))
        assert training.train_run(fixed, "x", tmp_path / f"run-{len(list(tmp_path.iterdir()))}").path.is_dir()

    none = put(LONG, patience=2, logging=put(LONG.logging, best=None))
    assert refused(none, tmp_path) == (
        'patience: 2 counts evaluations that do not improve a metric, but none is named; add **{"logging.best": "elbo"}'
    )
    follows(none, best="elbo")
    unmeasured = put(LONG, steps=100, logging=put(LONG.logging, eval_every=0))
    assert refused(unmeasured, tmp_path) == (
        "logging.best: 'elbo' is measured while the run trains, but no evaluations are made; add "
        '**{"logging.eval_every": 5}'
    )
    follows(unmeasured, eval_every=5)
    for name in ("rate", "loss", "active_units", "iw_50"):
        wrong = put(LONG, logging=put(LONG.logging, best=name))
        assert refused(wrong, tmp_path) == (
            f"logging.best: {name!r} is not a metric of this run's evaluations of which more or less is better; use "
            '**{"logging.best": "elbo"} (or "distortion" or "mse" or "psnr")'
        )
    follows(LONG, best="psnr")


def test_the_test_split_never_chooses(tmp_path):
    config = put(LONG, data=put(LONG.data, protocol="full"))
    assert "validation" not in data.load(config.data, "train").info.sizes
    line = refused(config, tmp_path)
    assert line.startswith(
        "logging.best: 'elbo' decides by the validation split, but 'digits' does not have one under protocol"
    )
    assert line.endswith('\'full\'; use **{"data.protocol": "standard"}, or **{"logging.best": None}')
    training.train_run(put(config, steps=2, logging=put(LONG.logging, best=None)), "x", tmp_path / "full")
    training.train_run(put(LONG, steps=2), "x", tmp_path / "run")  # as advised


SMALL = ["--steps", "2", "--data.batch-size", "4", "--evaluation.limit", "8", "--quiet", "--mesh.data", "1"]
SMALL += ["--model.network.hidden", "8", "--model.latent-dim", "2", "--logging.tensorboard", "False"]
SMALL += ["--logging.eval-every", "1"]


@pytest.fixture
def own(tmp_path):
    """Returns files of the user's own, by name."""
    x = np.random.default_rng(0).integers(256, size=(40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=x)
    np.savez(tmp_path / "parts.npz", train_images=x[:30], test_images=x[30:])
    np.savez(tmp_path / "two.npz", images=np.repeat(x[:2], 5, axis=0))
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i * 0.37},{i * i * 0.11}\n" for i in range(40)))
    return {name: str(tmp_path / name) for name in ("x.npz", "parts.npz", "two.npz", "t.csv")}


OFF, HELD_OUT = "--logging.eval-every 0", "--data.protocol held-out"


@pytest.mark.parametrize(
    ("exp", "data_of", "more", "name", "fixes"),
    [
        ("vae_digits", "x.npz", "--data.protocol standard", "npz", [HELD_OUT, OFF]),
        ("own_table", "t.csv", "--data.protocol standard", "table", [HELD_OUT, OFF]),
        ("vae_digits", "parts.npz", "--data.protocol standard", "npz", [OFF]),
        ("vae_digits", "two.npz", "", "npz", [OFF]),
        # The other images are in the test split, which has training images and more.
        ("vae_digits", "digits", "--data.protocol full --data.limit 30", "digits", ["--data.protocol standard", OFF]),
        (
            "vae_digits",
            "x.npz",
            "--data.protocol standard --logging.best elbo --patience 3",
            "npz",
            [HELD_OUT, "--logging.eval-every 0 --logging.best None --patience 0"],
        ),
        # The one protocol of these images with a validation split needs --data.binarize dynamic.
        ("vae_digits", "fashion_mnist", "", "fashion_mnist", [OFF]),
    ],
)
def test_no_test_split_is_measured_while_a_run_trains(own, tmp_path, capsys, exp, data_of, more, name, fixes):
    words = ["train", exp, "--data", own.get(data_of, data_of), *more.split(), *SMALL]
    assert main.run([*words, "--workdir", str(tmp_path / "no")]) == 2
    line, *others = capsys.readouterr().err.splitlines()
    what = "logging.best: 'elbo' decides by" if "best" in more else "logging.eval_every: 1 measures"
    assert line.startswith(f"vae-jax: {what} the validation split")
    assert f", but {name!r} does not have one under protocol " in line
    assert line.partition("; use ")[2] == ", or ".join(fixes)
    assert not others
    assert not (tmp_path / "no").exists()
    for i, fix in enumerate(fixes):
        assert main.run([*words, *fix.split(), "--workdir", str(tmp_path / f"run{i}")]) == 0
        text = (tmp_path / f"run{i}" / "metrics.jsonl").read_text()
        measured = {json.loads(line)["split"] for line in text.splitlines()}
        assert measured == ({"train", "validation"} if "protocol" in fix else {"train"})


@pytest.mark.parametrize(
    "option",
    ["--logging.eval-every 1", "--evaluation.split validation", "--logging.best elbo", "--patience 2"],
)
def test_a_run_that_is_continued_is_not_sent_to_another_protocol(own, tmp_path, capsys, option):
    start = ["train", "vae_digits", "--data", own["x.npz"], "--data.protocol", "standard", *SMALL[:-2]]
    assert main.run([*start, "--workdir", str(tmp_path / "run")]) == 0
    words = ["train", "--resume", str(tmp_path / "run"), "--steps", "3", "--quiet", *option.split()]
    capsys.readouterr()
    assert main.run(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    fix = line.partition("; use ")[2].split(", or ")[-1]
    assert "data.protocol" not in line
    assert main.run([*words, *fix.split()[:2]]) == 0


@pytest.mark.parametrize("data_of", ["x.npz", "digits"])
def test_what_is_tested_on_its_training_data_has_a_curve_of_them(own, tmp_path, data_of):
    """Protocol "full" holds nothing out that a curve could use up."""
    words = ["train", "vae_digits", "--data", own.get(data_of, data_of), "--data.protocol", "full", *SMALL]
    assert main.run([*words, "--workdir", str(tmp_path / "run")]) == 0
    found = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in found if line["split"] == "test"] == [1, 2]


def test_a_run_without_a_best_checkpoint_says_how_to_get_one(tmp_path, capsys):
    shutil.copytree("tests/runs/vae", tmp_path / "vae")
    assert main.run(["sample", str(tmp_path / "vae"), "--step", "best"]) == 2
    assert capsys.readouterr().err == (
        f"vae-jax: --step best: {tmp_path / 'vae'} keeps no best checkpoint; train it with --logging.best elbo "
        "--logging.eval-every N\n"
    )
    assert main.run(["sample", str(tmp_path / "vae"), "--step", "last"]) == 2
    assert capsys.readouterr().err == "vae-jax: --step: 'last' is not a whole number or best\n"


def test_a_sweep_refuses_what_it_does_not_do(tmp_path, capsys):
    words = ["sweep", "vae_digits", "--workdir", str(tmp_path / "sweep"), "--seeds", "0:2", "--smoke"]
    asked = ["--logging.best", "elbo", "--logging.eval-every", "1", "--patience", "1"]
    # What --smoke leaves out is asked for again by nothing: without it the sweep is refused.
    long = [word for word in words if word != "--smoke"]
    assert main.run([*long, "--steps", "2", *asked]) == 2
    line = capsys.readouterr().err
    assert line == (
        "vae-jax: logging.best: members of a sweep are not evaluated while they train; use --logging.best None "
        "--patience 0\n"
    )
    assert not (tmp_path / "sweep").exists()
    assert main.run([*words, *asked, "--logging.best", "None", "--patience", "0"]) == 0
