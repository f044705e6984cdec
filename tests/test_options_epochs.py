"""`--epochs`, options that count steps given in epochs, and samples kept at chosen ones."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from options import cli, covers

from vae_jax import schedules
from vae_jax.cli import main
from vae_jax.cli.options import parse_config
from vae_jax.options.ranges import in_steps
from vae_jax.runs import experiments as index
from vae_jax.runs.config import Config
from vae_jax.tasks import training
from vae_jax.train.loop import Event

EXAMPLES = 1437  # training examples of `digits`


def _digits() -> Config:
    return index.load(index.find("vae_digits"))


def _parsed(*words: str) -> Config:
    return parse_config(_digits(), words, "train")


def _refused(capsys, *words: str) -> str:
    assert main.run(list(words)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("words", [("--epochs", "5"), ("--epochs=5",), ("--steps", "5epochs"), ("--steps=5ep",)])
def test_epochs_are_steps_of_this_data_set(capsys, words):
    assert _parsed(*words, "--data.batch-size", "100").steps == 72  # 5 * 1437 / 100 = 71.85
    assert "5 epochs of 1,437 examples in batches of 100 are 72 steps" in capsys.readouterr().err


def test_batch_and_data_that_are_given_behind_count_as_well():
    assert _parsed("--epochs", "2", "--data.batch-size", "479").steps == 6
    assert _parsed("--epochs", "2", "--data.limit", "100", "--data.batch-size", "10").steps == 20


def test_an_epoch_of_balanced_draws_is_all_of_them(capsys, tmp_path):
    """30 examples of one class and 10 of another are 60 draws, of which every class has half."""
    images = np.random.default_rng(0).integers(0, 256, (44, 8, 8), np.uint8)
    parts = {"train_images": images[:40], "train_labels": np.arange(40) // 30}
    np.savez(tmp_path / "x.npz", **parts, test_images=images[40:], test_labels=np.zeros(4, int))
    words = ("--data", str(tmp_path / "x.npz"), "--data.balance", "draws", "--data.batch-size", "10")
    assert _parsed("--epochs", "2", *words).steps == 12
    assert "2 epochs of 60 balanced draws in batches of 10 are 12 steps" in capsys.readouterr().err


def test_every_option_that_counts_steps_takes_epochs():
    config = _parsed(
        *("--model.objective.schedule", "linear", "--model.objective.schedule.steps", "2epochs"),
        *("--model.objective.schedule.hold=1epoch", "--logging.eval-every", ".5epochs"),
        *("--logging.samples-at", "1epoch", "2epochs", "7", "--data.batch-size", "479", "--steps", "9"),
    )
    assert config.model.objective.schedule == schedules.Linear(steps=6, hold=3)
    assert config.logging.eval_every == 2  # 1.5, rounded to even
    assert config.logging.samples_at == (3, 6, 7)
    assert config.steps == 9


def test_options_that_count_steps_are_marked():
    """An option that counts steps is found by its range; a new one must not be missed."""
    marked = in_steps(_parsed("--model.objective.schedule", "linear"))
    assert {"steps", "optimizer.schedule.warmup_steps", "logging.log_every", "model.objective.schedule.hold"} <= set(
        marked
    )
    assert not {"seed", "accumulate", "patience", "data.batch_size"} & set(marked)


def test_epochs_of_what_does_not_count_steps_are_refused(capsys):
    assert "--seed: '3epochs' is not a whole number" in _refused(capsys, "train", "vae_digits", "--seed", "3epochs")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epochs"], "--epochs: nothing is not a number of epochs; give one, as in --epochs 20"),
        (["--epochs", "many"], "--epochs: many is not a number of epochs"),
        (["--epochs", "-3"], "--epochs: -3 is not a number of epochs"),
        (["--epochs", "inf"], "--epochs: inf is not a number of epochs"),
        (
            ["--epochs", "0.001"],
            "0.001 epochs of 1,437 examples in batches of 64 are less than one step; use --steps 1",
        ),
        (["--epochs", "2", "--steps", "9"], "--epochs: the length of training was given twice"),
        (["--epochs", "2", "--epochs", "3"], "--epochs: the length of training was given twice"),
        (["--num_epochs", "5"], "--num_epochs: no such option; did you mean --epochs?"),
        (["--max-epochs=5"], "--max-epochs: no such option; did you mean --epochs?"),
        # Refused after the epochs were counted, of which the line says nothing.
        (
            ["--epochs", "2", "--evaluation.split", "validation", "--data.protocol", "full"],
            "evaluation.split: 'digits' has no validation split",
        ),
        (["--epochs", "2", "--data.batch-size", "0"], "data.batch_size"),
    ],
)
def test_epochs_that_cannot_be_read(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    assert said in _refused(capsys, "train", "vae_digits", *words)
    assert not any(tmp_path.iterdir())
    assert _parsed("--epochs", "20").steps == round(20 * EXAMPLES / 64)  # what the advice says


def test_the_steps_are_said_as_training_begins(capsys, tmp_path):
    words = ["train", "vae_digits", "--epochs", ".002", "--data.batch-size", "2", "--evaluation.limit", "2"]
    words += ["--logging.figures-minutes", "0", "--logging.tensorboard", "False", "--model.network.hidden", "4"]
    assert main.run([*words, "--mesh.data", "1", "--quiet", "--workdir", str(tmp_path / "run")]) == 0
    said = "note: --steps: 0.002 epochs of 1,437 examples in batches of 2 are 1 steps\n"
    assert capsys.readouterr().err == said


def test_a_weight_is_held_before_it_moves():
    hold = schedules.Linear(steps=4, start=5.0, hold=3)
    seen = [float(hold(jnp.int32(step))) for step in range(9)]
    assert seen == [5.0, 5.0, 5.0, 5.0, 4.0, 3.0, 2.0, 1.0, 1.0]


def test_an_event_is_due_at_its_steps_alone():
    event = Event(lambda state, step: None, at=(2, 5))
    assert [step for step in range(8) if event.due(step, 0.0)] == [2, 5]


@covers("train", "logging.samples-at")
def test_samples_are_kept_at_their_steps(tmp_path):
    """The files of a stopped and resumed run are those of one that was not, and show the same codes at each step."""
    words = ["train", "vae_digits", "--data.batch-size", "480", "--quiet", "--logging.tensorboard", "False"]
    words += ["--logging.figures-minutes", "0", "--evaluation.limit", "8", "--model.network.hidden", "8"]
    whole = tmp_path / "whole"
    assert cli(*words, "--steps", "7", "--workdir", whole, "--logging.samples-at", "1epoch", "5") == 0
    assert sorted(p.name for p in (whole / "samples").iterdir()) == ["step_00000003.png", "step_00000005.png"]
    assert json.loads((whole / "config.json").read_text())["logging"]["samples_at"] == [3, 5]

    parted = tmp_path / "parted"
    assert cli(*words, "--steps", "4", "--workdir", parted, "--logging.samples-at", "3") == 0
    more = ["--steps", "7", "--logging.samples-at", "3", "5", "--quiet"]
    assert cli("train", "--resume", parted, *more) == 0
    for name in ("step_00000003.png", "step_00000005.png"):
        assert _pixels(whole / "samples" / name) == _pixels(parted / "samples" / name)
    assert _pixels(whole / "samples" / "step_00000003.png") != _pixels(whole / "samples" / "step_00000005.png")


def _pixels(path: Path) -> bytes:
    from PIL import Image

    return np.asarray(Image.open(path))[60:].tobytes()  # without the title, which names the run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["vae_digits", "--logging.samples-at", "50", "--steps", "20"],
            "50 is after the last step 20; leave --logging.samples-at out, or use --steps 50",
        ),
        (
            ["vae_digits", "--logging.samples-at", "3", "5", "50", "--steps", "20"],
            "50 is after the last step 20; use --logging.samples-at 3 5, or use --steps 50",
        ),
        (["vae_digits", "--logging.samples-at", "0"], "logging.samples_at: 0 is out of range"),
    ],
)
def test_samples_that_cannot_be_kept(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    assert said in _refused(capsys, "train", *words)
    assert not any(tmp_path.iterdir())
    if "last step" in said:
        for fix in said.partition("; ")[2].split(", or use "):
            more = fix.removeprefix("use ").split() if fix.startswith(("use", "--")) else []
            rest = words if more else words[:1]
            training.prepare(_parsed(*rest[1:], *more))


def test_a_sweep_keeps_no_samples(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "vae_digits", "--seeds", "0:2", "--steps", "4", "--logging.samples-at", "2"]
    assert "members of a sweep keep no samples while they train; leave it out" in _refused(capsys, *words)
    assert not any(tmp_path.iterdir())
