"""Continuing a run: its own options, what may change, other data, other weights, and what a kill leaves behind."""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import support
from tensorboardX.proto.event_pb2 import Event, SessionLog
from test_training import SMALL, assert_same, put

import vae_jax as vj
from vae_jax.cli import main
from vae_jax.errors import InputError, command, on_command_line
from vae_jax.figures import read_metrics
from vae_jax.files.lock import locked
from vae_jax.runs import log as runlog
from vae_jax.runs.run import Run, check_free, is_torso
from vae_jax.tasks import resuming, training
from vae_jax.tasks.measuring import finished
from vae_jax.train import LearningRate, Optimizer
from vae_jax.train.loop import NonFinite
from vae_jax.train.metrics import MetricsWriter
from vae_jax.train.signals import Interrupted

EXPERIMENT = """
import dataclasses, sys
sys.path.insert(0, {tests!r})
from test_training import SMALL
def get_config():
    return dataclasses.replace(SMALL, steps=8, expected={{"elbo": (-20.0, 5.0, "here")}})
"""


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    drawn = []
    monkeypatch.setattr(training, "_figures", lambda run, state, step, *more: drawn.append(step))
    return drawn


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder with an experiment `tiny`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tiny.py").write_text(EXPERIMENT.format(tests=os.path.dirname(__file__)))
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 8 steps; copy it, do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_figures", lambda run, state, step, *more: None)
        return training.train_run(put(SMALL, steps=8), "tiny", tmp_path_factory.mktemp("trained") / "run").path


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """What a refused command wrote is looked for here, and not in the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run8(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def vae_jax(line: str, code: int = 0) -> None:
    assert main.run(shlex.split(line)[1:]) == code


def advised(text: str) -> str:
    """Returns the command that a message gives."""
    found = re.search(r"`(vae-jax [^`]+)`", text)
    assert found, text
    return found[1]


def snapshot(path):
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}


def refused(capsys, line: str) -> str:
    """Runs a command that must be refused, in one line and with nothing written; returns the line."""
    before = snapshot(Path())
    capsys.readouterr()
    vae_jax(line, 2)
    assert snapshot(Path()) == before
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


def stored(path):
    return json.loads((Path(path) / "config.json").read_text())


def stop_at(step, monkeypatch):
    """Makes the next training stop after a checkpoint of this step, as a signal does."""
    real = training.fit

    def fit(*args, steps, **more):
        real(*args, steps=step, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", fit)
    return lambda: monkeypatch.setattr(training, "fit", real)


# -- options ----------------------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_to_its_own_steps_with_its_own_options(folder, capsys, monkeypatch):
    again = stop_at(4, monkeypatch)
    vae_jax("vae-jax train tiny --steps 12 --model.latent-dim 5 --seed 3 --quiet", 130)
    again()
    # The run's seed, size and length, none of which the experiment has.
    vae_jax("vae-jax train tiny --resume --quiet")
    run = Run.load("runs/tiny")
    assert (run.config.steps, run.config.model.latent_dim, run.config.seed) == (12, 5, 3)
    assert int(finished(run).step) == 12
    vae_jax("vae-jax train tiny --steps 12 --model.latent-dim 5 --seed 3 --quiet --workdir whole")
    assert_same(run.restore(), Run.load("whole").restore())
    assert [line["event"] for line in resuming.history(run.path)] == ["start", "resume"]


def test_resume_needs_no_experiment_and_writes_new_steps_back(folder, capsys):
    vae_jax("vae-jax train tiny --quiet")
    assert stored("runs/tiny")["expected"]
    vae_jax("vae-jax train --resume runs/tiny --steps 12 --quiet")
    assert stored("runs/tiny")["steps"] == 12
    assert int(Run.load("runs/tiny").restore().step) == 12
    # The targets were those of 8 steps.
    assert stored("runs/tiny")["expected"] == {}
    vae_jax("vae-jax eval runs/tiny")
    line = resuming.history(Path("runs/tiny"))[-1]
    assert line["step"] == 8
    assert line["changes"]["steps"] == [8, 12]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", line["time"])
    assert "commit" in line


def test_targets_stay_where_nothing_that_they_depend_on_changes(folder):
    vae_jax("vae-jax train tiny --quiet")
    vae_jax("vae-jax train --resume runs/tiny --logging.keep 2 --quiet")
    assert stored("runs/tiny")["expected"] == {"elbo": [-20.0, 5.0, "here"]}
    assert stored("runs/tiny")["logging"]["keep"] == 2


@pytest.mark.parametrize(
    "line",
    [
        "vae-jax train --resume runs/tiny --quiet",
        "vae-jax train --resume=runs/tiny --quiet",
        "vae-jax train runs/tiny --resume --quiet",
        "vae-jax train tiny --resume runs/tiny --quiet",
        "vae-jax train --resume tiny --quiet",
        "vae-jax train --quiet --resume --workdir runs/tiny",
        "vae-jax train tiny --resume --workdir runs/tiny --quiet",
        "vae-jax train --resume runs/tiny --workdir runs/tiny --quiet",
    ],
)
def test_every_way_to_name_the_run(folder, run8, monkeypatch, line):
    from vae_jax.cli import train

    (folder / "runs").mkdir()
    run8.rename(folder / "runs" / "tiny")
    called = []
    monkeypatch.setattr(train, "_train", lambda *args, **more: called.append((args, more)) or 0)
    vae_jax(line)
    [((config, name, path, flags), more)] = called
    assert (config, name, path, more) == (Run.load(path).config, "tiny", Path("runs/tiny"), {"resume": True})
    assert "--quiet" in flags


def test_nothing_to_train_still_makes_figures_and_numbers(run8, no_figures, capsys):
    vae_jax(f"vae-jax train --resume {run8} --steps 8")
    out = capsys.readouterr().out
    assert "nothing to train, it has made its 8 steps; --steps N makes more" in out
    assert no_figures == [8]
    assert json.loads((run8 / "eval.json").read_text())["step"] == 8
    vae_jax(f"vae-jax eval {run8}")


def test_fewer_steps_than_were_made_are_refused_with_both_numbers(run8, capsys):
    line = refused(capsys, f"vae-jax train --resume {run8} --steps 5")
    assert f"steps: 5 is fewer than the 8 steps that {run8} has made; use --steps 8 or more" in line
    vae_jax(f"vae-jax train --resume {run8} --steps 8 --quiet")
    vae_jax(f"vae-jax eval {run8}")


def test_what_may_not_change_is_refused_by_name(run8, capsys):
    line = refused(capsys, f"vae-jax train --resume {run8} --model.latent-dim 4 --data.batch-size 16")
    assert "cannot resume with a changed config (data.batch_size: 8 -> 16; model.latent_dim: 3 -> 4)" in line
    assert "leave it as it was" in line
    vae_jax(f"vae-jax train --resume {run8} --quiet")


def test_the_message_of_an_unfinished_run_gives_the_command_that_finishes_it(folder, monkeypatch, capsys):
    again = stop_at(4, monkeypatch)
    vae_jax("vae-jax train tiny --steps 12 --quiet", 130)
    again()
    line = refused(capsys, "vae-jax eval runs/tiny")
    assert "unfinished, at step 4 of 12" in line
    assert advised(line) == "vae-jax train --resume runs/tiny"
    vae_jax(advised(line))
    vae_jax("vae-jax eval runs/tiny")


def test_a_run_of_another_experiment_is_refused_with_the_command_that_works(folder, run8, capsys):
    (folder / "experiments" / "other.py").write_text((folder / "experiments" / "tiny.py").read_text())
    line = refused(capsys, f"vae-jax train other --resume --workdir {run8}")
    assert "is a run of 'tiny', not of 'other'" in line
    vae_jax(advised(line) + " --quiet")


def test_resume_and_other_run_options(folder, run8, capsys):
    line = refused(capsys, f"vae-jax train --resume {run8} --workdir elsewhere")
    assert f"--workdir elsewhere: a run is resumed in its own folder {run8}; leave --workdir out" in line
    line = refused(capsys, f"vae-jax train --resume {run8} --smoke")
    assert f"--smoke: {run8} was not made with it" in line
    assert "leave --smoke out" in line
    line = refused(capsys, f"vae-jax train --resume {run8} --init-from {run8}")
    assert "leave out --resume or --init-from" in line
    assert "did you mean 'tiny'?" in refused(capsys, "vae-jax train tinny --resume")
    assert "no run to resume" in refused(capsys, "vae-jax train tiny --resume")
    line = refused(capsys, "vae-jax train --resume")
    assert "--resume: which run? name its folder, as in" in line
    (folder / "runs").mkdir()
    run8.rename(folder / "runs" / "mine")
    vae_jax(advised(refused(capsys, "vae-jax train --resume --steps 9")) + " --quiet")


def test_a_smoke_run_is_resumed_with_or_without_the_flag(folder):
    vae_jax("vae-jax train tiny --smoke --quiet")
    vae_jax("vae-jax train tiny --resume --smoke --quiet")
    vae_jax("vae-jax train tiny --resume --quiet")
    assert [line["step"] for line in resuming.history(Path("runs/tiny"))] == [0, 2, 2]


# -- learning rate ----------------------------------------------------------------------------------------------------


def test_another_learning_rate_on_the_command_line_is_noted_and_used(run8, capsys):
    vae_jax(f"vae-jax train --resume {run8} --steps 12 --optimizer.lr 0.0001")
    out = capsys.readouterr().out
    assert "optimizer: the learning rate at step 8 was 0.001 and becomes 0.0001" in out
    changed = resuming.history(run8)[-1]["changes"]
    assert changed["optimizer.lr"] == [0.001, 0.0001]
    assert set(changed) == {"steps", "optimizer.lr"}
    assert stored(run8)["optimizer"]["lr"] == 0.0001


def test_the_new_learning_rate_moves_the_weights(trained, tmp_path):
    ends = []
    for lr in (1e-3, 1e-4):
        path = Path(shutil.copytree(trained, tmp_path / str(lr)))
        start = Run.load(path).restore().params
        end = vj.resume(path, steps=9, quiet=True, **{"optimizer.lr": lr}).restore().params
        moved = [np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in zip(*map(leaves, (start, end)), strict=True)]
        ends.append(max(moved))
    assert ends[1] == pytest.approx(ends[0] / 10, rel=0.02)


def leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def test_from_python_a_complete_config_keeps_the_learning_rate(run8, tmp_path):
    config = Run.load(run8).config
    before = snapshot(run8)
    slower = put(config, steps=12, optimizer=put(config.optimizer, lr=1e-4))
    with pytest.raises(InputError, match=r"changed config \(optimizer.lr: 0.001 -> 0.0001\)") as caught:
        vj.train_run(slower, run8, resume=True, quiet=True)
    assert snapshot(run8) == before
    call = re.search(r"`(vj\.resume\(.*\))`", str(caught.value))[1]
    eval(call.replace(")", ", quiet=True)"), {"vj": vj})  # as somebody in Python would type it
    assert stored(run8)["optimizer"]["lr"] == 1e-4
    run = vj.train_run(put(slower, steps=10), run8, resume=True, quiet=True)
    assert stored(run8)["steps"] == 10
    assert int(run.restore().step) == 10


def test_vj_resume_takes_only_what_changes(run8):
    run = vj.resume(run8, steps=10, quiet=True, **{"optimizer.lr": 5e-4})
    assert (run.config.steps, run.config.optimizer.lr, int(run.restore().step)) == (10, 5e-4, 10)
    with pytest.raises(InputError, match="no such option; did you mean 'steps'"):
        vj.resume(run8, stepz=10)


def test_a_cosine_that_becomes_longer_says_what_its_rate_was_and_becomes(tmp_path, capsys):
    config = put(SMALL, steps=8, optimizer=Optimizer(lr=0.01, schedule=LearningRate("cosine")))
    training.train_run(config, "tiny", tmp_path / "run")
    vae_jax(f"vae-jax train --resume {tmp_path / 'run'} --steps 16")
    out = capsys.readouterr().out
    # Half of a cosine from 0.01 to 0: its middle.
    assert "optimizer: the learning rate at step 8 was 0 and becomes 0.005, whose cosine" in out
    assert "schedule now ends at step 16, not 8\n" in out
    capsys.readouterr()
    vae_jax(f"vae-jax train --resume {tmp_path / 'run'}")
    assert "learning rate" not in capsys.readouterr().out


def test_after_nan_the_run_says_so_and_continues_with_a_lower_rate(tmp_path, capsys, monkeypatch):
    path = tmp_path / "run"
    config = put(SMALL, steps=8, optimizer=Optimizer(name="sgd", lr=1e-3))
    training.train_run(config, "tiny", path)
    said = []
    with on_command_line(), pytest.raises(NonFinite) as caught:
        training.train_run(
            put(config, steps=12, optimizer=put(config.optimizer, lr=1e30)), "tiny", path,
            resume=True, retune=True, say=said.append,
        )  # fmt: skip
    assert advised(said[-1]) == f"vae-jax train --resume {path} --optimizer.lr 3e+29"
    line = resuming.history(path)[-1]
    assert (line["event"], line["step"]) == ("not finite", caught.value.step)
    # Resumed as it is, it says what is ahead of it, and fails there again.
    assert main.run(["train", "--resume", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"this run failed at step {caught.value.step} before ({' and '.join(caught.value.names)} became" in out
    assert "--optimizer.lr 3e+29" in out
    vae_jax(f"vae-jax train --resume {path} --optimizer.lr 0.001")
    assert int(finished(Run.load(path)).step) == 12
    # What lies behind is not said again.
    capsys.readouterr()
    vae_jax(f"vae-jax train --resume {path} --steps 13")
    assert "failed at step" not in capsys.readouterr().out


# -- data -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(folder):
    def make(seed=0, n=40):
        rng = np.random.default_rng(seed)
        np.savez("mine.npz", images=rng.integers(0, 256, (n, 8, 8), dtype=np.uint8))

    make()
    return make


NPZ = "--data.name npz --data.source mine.npz --quiet"


def test_other_data_of_the_same_shape_are_refused_and_init_from_takes_them(pictures, capsys):
    vae_jax(f"vae-jax train tiny {NPZ}")
    assert len(stored("runs/tiny")["data_sha256"]) == 64
    pictures(seed=1)
    line = refused(capsys, "vae-jax train --resume runs/tiny --steps 9")
    assert "the training data (npz, mine.npz) are not those that it was trained on" in line
    assert advised(line) == "vae-jax train --init-from runs/tiny"
    vae_jax(advised(line) + " --quiet")
    assert stored("runs/tiny-2")["data_sha256"] != stored("runs/tiny")["data_sha256"]
    pictures(seed=0)  # restored: the other advice
    vae_jax("vae-jax train --resume runs/tiny --steps 9 --quiet")


def test_the_advice_names_data_that_the_run_does_not(pictures, capsys):
    vae_jax(f"vae-jax train tiny {NPZ}")
    Path("mine.npz").rename("other.npz")
    pictures(seed=1)
    line = refused(capsys, "vae-jax train --resume runs/tiny --data other.npz --data.source mine.npz")
    assert advised(line) == "vae-jax train --init-from runs/tiny"
    Path("mine.npz").rename("new.npz")
    line = refused(capsys, "vae-jax train --resume runs/tiny --data new.npz")
    assert advised(line) == "vae-jax train --init-from runs/tiny --data new.npz"
    vae_jax(advised(line) + " --quiet")
    assert stored("runs/tiny-2")["data"]["source"] == "new.npz"


def test_a_folder_whose_checkpoints_could_not_be_read_back_is_refused(folder, capsys):
    line = refused(capsys, "vae-jax train tiny --workdir runs/[red]dir")
    assert "choose a --workdir without them" in line
    assert not Path("runs").exists()
    vae_jax("vae-jax train tiny --workdir runs/red-dir --quiet")


def test_data_may_move(pictures, folder):
    vae_jax(f"vae-jax train tiny {NPZ}")
    Path("mine.npz").rename("moved.npz")
    vae_jax("vae-jax train --resume runs/tiny --data.source moved.npz --steps 9 --quiet")
    assert stored("runs/tiny")["data"]["source"] == "moved.npz"


def test_a_run_of_before_continues_with_one_line_and_gets_its_hash(run8, capsys):
    values = stored(run8)
    sha256 = values.pop("data_sha256")
    spec = values.pop("data_spec")
    values["image_shape"] = spec["x"]["shape"]
    values["facts"] = {name: spec[name] for name in ("examples", "classes", "factors", "cond")}
    (run8 / "config.json").write_text(json.dumps(values))
    vae_jax(f"vae-jax train --resume {run8} --steps 9")
    assert capsys.readouterr().out.count("kept no hash of the training data") == 1
    assert stored(run8)["data_sha256"] == sha256
    vae_jax(f"vae-jax train --resume {run8} --steps 10")
    assert "no hash" not in capsys.readouterr().out


def test_a_run_of_before_still_knows_how_many_examples_it_had(pictures, capsys):
    vae_jax(f"vae-jax train tiny {NPZ} --data.protocol full")
    values = stored("runs/tiny")
    del values["data_sha256"]
    Path("runs/tiny/config.json").write_text(json.dumps(values))
    pictures(n=50)
    line = refused(capsys, "vae-jax train --resume runs/tiny")
    assert "was trained on 40 examples, the data now has 50 examples" in line


def test_a_sweep_of_before_keeps_its_split(pictures):
    line = f"vae-jax sweep tiny --seeds 0:2 --workdir sweep {NPZ}"
    vae_jax(f"{line} --data.protocol random-tenth")
    record = json.loads(Path("sweep/sweep.json").read_text())
    record["config"]["data"]["protocol"] = "standard"  # its name of then
    for member in record["members"]:
        member["state"] = "waiting"
    Path("sweep/sweep.json").write_text(json.dumps(record))
    values = stored("sweep/seed=0")
    del values["data_sha256"]
    values["data"]["protocol"] = "standard"
    Path("sweep/seed=0/config.json").write_text(json.dumps(values))
    shutil.rmtree("sweep/seed=1")
    vae_jax(f"{line} --resume")
    assert stored("sweep/seed=1")["data"]["protocol"] == "random-tenth"
    for seed in (0, 1):
        assert Run.load(f"sweep/seed={seed}").source("test").size == 4
    vae_jax(f"{line} --resume")
    vae_jax(f"{line} --resume --data.protocol random-tenth")


def test_a_sweep_refuses_other_data(pictures, capsys):
    line = f"vae-jax sweep tiny --seeds 0:2 --workdir sweep {NPZ}"
    vae_jax(line)
    pictures(seed=1)
    record = json.loads(Path("sweep/sweep.json").read_text())
    record["members"][0]["state"] = "waiting"
    Path("sweep/sweep.json").write_text(json.dumps(record))
    capsys.readouterr()
    vae_jax(line + " --resume", 2)
    assert "are not those that it was trained on" in capsys.readouterr().err


# -- weights of another run -------------------------------------------------------------------------------------------


def test_init_from_starts_at_step_0_with_the_evaluated_weights(tmp_path, capsys):
    config = put(SMALL, steps=4, ema_decay=0.5)
    first = training.train_run(config, "tiny", tmp_path / "first")
    given = first.restore()
    run = vj.train_run(put(config, seed=7), tmp_path / "second", init_from=first.path, quiet=True)
    at_zero = run.restore(0)
    support.assert_trees_equal(at_zero.params, given.ema)
    support.assert_trees_equal(at_zero.ema, given.ema)
    assert int(at_zero.step) == 0
    assert int(run.restore().step) == 4
    assert resuming.history(run.path)[0]["init_from"] == [str(first.path), 4]


def test_a_run_with_other_weights_has_no_targets(folder, run8):
    targets = {"elbo": (-20.0, 5.0, "here")}
    run = vj.train_run(put(SMALL, steps=8, expected=targets), folder / "python", init_from=run8, quiet=True)
    assert run.config.expected == stored(run.path)["expected"] == {}
    vae_jax(f"vae-jax train tiny --init-from {run8} --workdir command --quiet")
    assert stored("command")["expected"] == {}


def test_a_run_with_other_weights_that_is_killed_at_once_keeps_them(tmp_path, trained, monkeypatch):
    config = put(Run.load(trained).config, steps=4)
    whole = vj.train_run(config, tmp_path / "whole", init_from=trained, quiet=True)
    shutil.copytree(whole.path, tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints")
    again = vj.resume(tmp_path / "killed", quiet=True)
    assert_same(again.restore(), whole.restore())


def test_the_weights_are_read_once(tmp_path, trained, monkeypatch):
    real, restored = Run.restore, []
    monkeypatch.setattr(Run, "restore", lambda run, *a, **k: restored.append(run.path) or real(run, *a, **k))
    training.train_run(put(Run.load(trained).config, steps=1), "tiny", tmp_path / "new", init_from=Run.load(trained))
    assert restored == [trained]


def test_weights_that_do_not_fit_are_refused_by_name(folder, run8, capsys):
    line = refused(capsys, f"vae-jax train tiny --init-from {run8} --model.latent-dim 4 --workdir new")
    assert f"--init-from {run8}: params.vae.decoder" in line
    assert re.search(
        r"is float32 \[3, 16\], this model wants float32 \[4, 16\]; give the model options of that run", line
    )
    # Both pieces of advice.
    vae_jax(f"vae-jax train tiny --init-from {run8} --workdir new --quiet")
    vae_jax(f"vae-jax train --init-from {run8} --workdir newer --quiet")
    assert "--init-from: needs a run folder" in refused(capsys, "vae-jax train tiny --init-from")
    assert "not a run folder" in refused(capsys, "vae-jax train tiny --init-from nowhere")


# -- commands in messages ---------------------------------------------------------------------------------------------

SPACED = "my  run"  # a shell takes it for two words, and whoever joins words by one space for another folder


def stderr_of(capsys, *words: str) -> str:
    capsys.readouterr()
    assert main.run(list(words)) == 2
    return capsys.readouterr().err


def without_checkpoints(run, capsys) -> str:
    shutil.rmtree(run.path / "checkpoints")
    (run.path / "checkpoints").mkdir()
    return stderr_of(capsys, "eval", SPACED)


def with_damaged_numbers(run, capsys) -> str:
    (run.path / "eval.json").write_text("{")
    return stderr_of(capsys, "report", SPACED)


def as_a_torso(run, capsys) -> str:
    shutil.rmtree(run.path)
    torso(run.path, TORSOS["lock"])
    return stderr_of(capsys, "train", "--resume", SPACED)


def as_another_experiment(run, capsys) -> str:
    (Path("experiments") / "other.py").write_text((Path("experiments") / "tiny.py").read_text())
    return stderr_of(capsys, "train", "other", "--resume", "--workdir", SPACED)


def as_the_newest_of_all(run, capsys) -> str:
    Path("runs").mkdir()
    run.path.rename(Path("runs") / SPACED)
    return stderr_of(capsys, "train", "--resume")


def of(error_of):
    with pytest.raises(InputError) as caught:
        error_of()
    return str(caught.value)


COMMANDS_SAID = {
    "taken": lambda run, capsys: stderr_of(capsys, "train", "tiny", "--workdir", SPACED),
    "unfinished": lambda run, capsys: of(lambda: finished(dataclasses.replace(run, config=put(run.config, steps=12)))),
    "no checkpoint": without_checkpoints,
    "eval.json": with_damaged_numbers,
    "torso": as_a_torso,
    "other experiment": as_another_experiment,
    "newest": as_the_newest_of_all,
    "signal": lambda run, capsys: str(Interrupted(2, 4, run.path)),
    "learning rate": lambda run, capsys: of(
        lambda: resuming.check_changes(run, put(run.config, optimizer=put(run.config.optimizer, lr=0.5)))
    ),
    "other data": lambda run, capsys: of(
        lambda: resuming.check_data(dataclasses.replace(run, data_sha256="0" * 64), run.source("train"))
    ),
    "not finite": lambda run, capsys: resuming.lower_rate(run),
    "no density": lambda run, capsys: stderr_of(capsys, "sample", SPACED, "--prior", "gmm"),
    "density": lambda run, capsys: command("sample", run.path, prior=run.path / "gmm.json"),
}


@pytest.mark.parametrize("name", COMMANDS_SAID)
def test_a_command_in_a_message_names_a_folder_with_spaces(folder, trained, capsys, name):
    run = Run.load(shutil.copytree(trained, SPACED))
    with on_command_line():
        words = shlex.split(advised(COMMANDS_SAID[name](run, capsys)))
    assert {str(Path(word)) for word in words} & {SPACED, f"runs/{SPACED}"}, words
    if name == "density":
        assert f"{SPACED}/gmm.json" in words


# -- what a kill leaves behind ----------------------------------------------------------------------------------------


def damage_metrics(path):
    file = path / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    return file, lines


def test_a_torn_last_line_is_dropped_and_logged(run8):
    file, lines = damage_metrics(run8)
    file.write_bytes(lines[0] + lines[1] + b'{"step": 9, "spl')
    vj.resume(run8, steps=12, quiet=True)
    assert [line["step"] for line in read_metrics(run8)] == [4, 8, 12]
    assert len(file.read_text().splitlines()) == 3
    assert "left out: line 3 (the last was cut" in (run8 / "log.txt").read_text()


def test_resume_says_which_lines_are_dropped(run8, capsys):
    file, lines = damage_metrics(run8)
    file.write_bytes(b"x\n" * 20 + lines[0] + b"\xff\n" + lines[1])
    vae_jax(f"vae-jax train --resume {run8} --steps 12")
    numbers = "1, 2, 3, 4, 5, 6, 7, 8, ... (21 lines)"
    assert f"warning: {file}: cannot be read and left out: lines {numbers}\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["compare", "report"])
def test_readers_name_damaged_lines_once_on_stderr(run8, capsys, command):
    file, lines = damage_metrics(run8)
    other = shutil.copytree(run8, run8.parent / "other")
    file.write_bytes(lines[0] + b"\xff\n" + lines[1])
    vae_jax(f"vae-jax {command} {run8} {other}")
    warning = f"vae-jax: warning: {file}: cannot be read and left out: line 2\n"
    assert capsys.readouterr().err == warning


def test_a_damaged_line_costs_no_other(run8):
    file, lines = damage_metrics(run8)
    file.write_bytes(lines[0] + b"\xff\x00garbage\n" + b'"a word"\n{"split": "train"}\n' + lines[1])
    assert [line["step"] for line in read_metrics(run8)] == [4, 8]
    vj.resume(run8, steps=12, quiet=True)
    assert [line["step"] for line in read_metrics(run8)] == [4, 8, 12]
    assert "left out: lines 2, 3, 4\n" in (run8 / "log.txt").read_text()


@pytest.mark.parametrize("way", ["emptied", "gone"])
def test_the_numbers_of_lost_checkpoints_are_kept_aside(run8, capsys, monkeypatch, way):
    def lose():
        shutil.rmtree(run8 / "checkpoints")
        if way == "emptied":
            (run8 / "checkpoints").mkdir()
        return (run8 / "metrics.jsonl").read_bytes(), (run8 / "eval.json").read_bytes()

    vae_jax(f"vae-jax eval {run8}")
    first = lose()
    again = stop_at(4, monkeypatch)
    vae_jax(f"vae-jax train --resume {run8}", 130)
    again()
    assert (
        f"warning: {run8}: has no checkpoint, so that it starts at step 0 again; metrics.jsonl is kept as "
        "metrics-lost-1.jsonl and eval.json is kept as eval-lost-1.json\n"
    ) in capsys.readouterr().out
    assert not (run8 / "eval.json").exists(), "no numbers of step 8 beside a run of 4 steps"
    vae_jax(f"vae-jax train --resume {run8} --quiet")
    assert [line["step"] for line in read_metrics(run8)] == [4, 8]
    assert json.loads((run8 / "eval.json").read_text())["step"] == 8
    second = lose()
    vae_jax(f"vae-jax train --resume {run8} --quiet")
    for number, held in enumerate((first, second), 1):
        names = f"metrics-lost-{number}.jsonl", f"eval-lost-{number}.json"
        assert tuple((run8 / name).read_bytes() for name in names) == held


@pytest.mark.parametrize("text", [None, b"", b'{"step": 4, "spl', b'{"step": 0, "split": "train"}\n'])
def test_without_numbers_nothing_is_kept_aside(run8, capsys, text):
    shutil.rmtree(run8 / "checkpoints")
    (run8 / "metrics.jsonl").write_bytes(text) if text is not None else (run8 / "metrics.jsonl").unlink()
    vae_jax(f"vae-jax train --resume {run8}")
    assert "has no checkpoint" not in capsys.readouterr().out
    assert not list(run8.glob("*-lost-*"))


def test_metrics_are_rewritten_aside(tmp_path, monkeypatch):
    """Killed in the middle of it, the file still has its lines."""
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n')
    real = Path.write_text

    def half(self, text, *args, **more):
        real(self, text[: len(text) // 2], *args, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        MetricsWriter(tmp_path, resume_step=1, tensorboard=False)
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_tensorboard_shows_the_lines_of_the_file(tmp_path):
    """Both keep the step of the checkpoint, whose line no resumed run writes again, and drop what follows it."""
    for start, made in ((0, {1: 1.0, 2: 2.0, 3: 3.0}), (2, {3: 30.0, 4: 40.0})):
        writer = MetricsWriter(tmp_path, resume_step=start)
        for step, value in made.items():
            writer.write(step, "train", {"elbo": value})
        writer.close()
        # Event files are named after the second.
        (file,) = (tmp_path / "tensorboard").glob("events.*")
        file.rename(file.with_name(f"{start}.{file.name}"))
    board: dict[int, float] = {}
    for file in sorted((tmp_path / "tensorboard").iterdir()):
        for event in tensorboard_events(file):
            # What TensorBoard does at a restart: it forgets this step and later ones.
            if event.session_log.status == SessionLog.START:
                board = {step: value for step, value in board.items() if step < event.step}
            for value in event.summary.value:
                board[event.step] = value.simple_value
    assert board == {line["step"]: line["elbo"] for line in read_metrics(tmp_path)}
    assert board == {1: 1.0, 2: 2.0, 3: 30.0, 4: 40.0}


def tensorboard_events(file: Path) -> Iterator[Event]:
    """Yields the events of a file: length (8 bytes), checksum (4), event, checksum (4)."""
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_an_evaluation_that_a_kill_prevented_is_made_up_for(tmp_path):
    """The checkpoint of a step is saved before its evaluation."""
    config = put(SMALL, steps=8, logging=put(SMALL.logging, eval_every=4))
    path = training.train_run(config, "tiny", tmp_path / "run").path
    whole = [(line["step"], line["split"], line["elbo"]) for line in read_metrics(path)]
    assert [line[:2] for line in whole] == [(4, "train"), (4, "validation"), (8, "train"), (8, "validation")]
    file = path / "metrics.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:3]))
    for _ in range(2):
        vj.resume(path, quiet=True)
        assert [(line["step"], line["split"], line["elbo"]) for line in read_metrics(path)] == whole


@pytest.mark.parametrize("name", ["metrics.jsonl", "history.jsonl"])
def test_readers_take_torn_lines(run8, capsys, name):
    with (run8 / name).open("ab") as file:
        file.write(b'{"step": 9, "e\xc3')
    vae_jax(f"vae-jax eval {run8} --limit 20")
    shutil.copytree(run8, run8.parent / "other")
    (run8 / "eval.json").unlink()  # then the numbers are those of the last readable line
    vae_jax(f"vae-jax compare {run8} {run8.parent / 'other'}")
    vae_jax(f"vae-jax train --resume {run8} --steps 9 --quiet")
    assert [line["event"] for line in resuming.history(run8)] == ["start", "resume"]


TORSOS = {
    "lock": {".lock": "12\n"},
    "temporary": {".config.77.json": '{"exp', ".env.77.json": ""},
    "env": {"env.json": '{"packages": {"vae_jax": "1"}}', "figures/": ""},
    "log": {"log.txt": "2026-01-01 00:00:00,000 INFO vae_jax.tasks.training: x\n"},
    "figures": {"figures/": ""},
}


def torso(path, files):
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name).mkdir() if name.endswith("/") else (path / name).write_text(text)


@pytest.mark.parametrize("files", TORSOS.values(), ids=TORSOS)
def test_folders_of_runs_killed_before_their_config_are_known(folder, capsys, files):
    torso(folder / "named", files)
    check_free(folder / "named")
    said = "named: was stopped before its options were written, so they are unknown; start it anew with"
    for words, name in (("--resume named", "EXP"), ("tiny --resume --workdir named --steps 9", "tiny")):
        line = refused(capsys, f"vae-jax train {words}")
        assert said in line
        assert advised(line) == f"vae-jax train {name} --workdir named"
        assert line.endswith(" and the options of its first start\n")


def test_an_empty_folder_is_no_run_to_resume_but_free(folder, run8, capsys):
    torso(folder / "empty", {})
    check_free(folder / "empty")
    for line in ("vae-jax train --resume empty", "vae-jax train tiny --workdir empty --resume"):
        assert "empty: not a run folder (no config.json in it)" in refused(capsys, line)
    with pytest.raises(InputError, match=r"empty: not a run folder \(no config.json in it\)"):
        training.train_run(Run.load(run8).config, "tiny", folder / "empty", resume=True)
    assert list((folder / "empty").iterdir()) == []


@pytest.mark.parametrize("name", [".lock", "log.txt", "figures"])
def test_only_files_of_ours_are_read_and_not_whole(folder, name, monkeypatch):
    theirs = folder / "pipe"
    theirs.mkdir()
    os.mkfifo(theirs / name)  # reading it would wait for ever
    monkeypatch.setattr(Path, "read_text", lambda *a, **k: pytest.fail("was read whole"))
    assert not is_torso(theirs)
    (theirs / name).unlink()
    torso(folder / "log", {"log.txt": TORSOS["log"]["log.txt"] * 1000})
    assert is_torso(folder / "log")


def test_a_run_killed_before_its_config_starts_anew(folder, capsys):
    everything = {name: text for files in TORSOS.values() for name, text in files.items()}
    del everything["figures/"]
    for name in ("new", "resumed"):
        torso(folder / name, {**everything, "figures/": ""})
    vae_jax("vae-jax train tiny --workdir new --quiet")
    # Its options are unknown, so that it is the user who starts it anew, as the message says.
    vae_jax(advised(refused(capsys, "vae-jax train tiny --workdir resumed --resume")) + " --quiet")
    assert_same(Run.load("new").restore(), Run.load("resumed").restore())
    torso(folder / "python", {"env.json": TORSOS["env"]["env.json"]})
    vj.train_run(Run.load("new").config, "python", resume=True, quiet=True)
    assert_same(Run.load("new").restore(), Run.load("python").restore())
    # The log continues; nothing of it is lost.
    assert Path("resumed/log.txt").read_text().startswith("2026-01-01")


@pytest.mark.parametrize(
    "files",
    [{"env.json": '{"mine": 1}'}, {"log.txt": "dear diary"}, {"figures/": "", "figures/plot.png": "x"}, {"a.txt": ""}],
    ids=lambda files: next(iter(files)),
)
def test_what_others_wrote_is_neither_taken_nor_touched(folder, capsys, files):
    torso(folder / "theirs", files)
    line = refused(capsys, "vae-jax train tiny --workdir theirs")
    assert "theirs: already there, and it is not a run; choose another --workdir" in line
    assert "not a run folder" in refused(capsys, "vae-jax train --resume theirs")
    vae_jax("vae-jax train tiny --workdir ours --quiet")


def test_an_existing_run_is_not_trained_over(folder, run8, capsys):
    line = refused(capsys, f"vae-jax train tiny --workdir {run8}")
    assert "already there; continue it with" in line
    vae_jax(advised(line) + " --quiet")


def test_killed_between_config_and_env(run8):
    (run8 / "env.json").unlink()
    vj.resume(run8, quiet=True)
    assert json.loads((run8 / "env.json").read_text())["packages"]["vae_jax"]


# -- one process, one log ---------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from vae_jax.files.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_second_process_is_refused_by_pid_until_the_first_is_killed(folder, run8, capsys):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run8)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        line = refused(capsys, f"vae-jax train --resume {run8} --steps 9")
        assert f"{run8}: process {process.pid} is training in this folder; wait until it ends, stop it with" in line
        assert f"`kill {process.pid}`" in line
        # A new run in a folder that another process has just made.
        with locked(folder / "fresh"):
            assert f"process {os.getpid()} is training" in refused(capsys, "vae-jax train tiny --workdir fresh")
    finally:
        process.kill()
        process.communicate()
    vae_jax(f"vae-jax train --resume {run8} --steps 9 --quiet")
    assert (run8 / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_run_is_read_again_under_the_lock(run8, monkeypatch):
    config = Run.load(run8).config

    @contextlib.contextmanager
    def other_first(path):  # another process trained between the check and the lock
        values = stored(run8)
        values["optimizer"]["lr"] = 0.25
        (run8 / "config.json").write_text(json.dumps(values))
        yield

    monkeypatch.setattr(training, "locked", other_first)
    with pytest.raises(InputError, match=r"cannot resume with a changed config \(optimizer.lr: 0.25 -> "):
        training.train_run(put(config, steps=9), "tiny", run8, resume=True)
    assert stored(run8)["optimizer"]["lr"] == 0.25


@pytest.mark.parametrize("method", ["create", "resume"])
def test_the_record_of_a_sweep_is_made_under_its_lock(folder, monkeypatch, method):
    from vae_jax.tasks.sweeps.record import Record

    line = "vae-jax sweep tiny --seeds 0:1 --workdir sweep --quiet --steps 1"
    if method == "resume":
        vae_jax(line)
        line += " --resume"
    else:  # what a kill leaves is no obstacle
        torso(folder / "sweep", {".lock": "7", ".sweep.0123456789abcdef.json": "{"})
    free: list[bool] = []

    def seen(path, *rest):
        try:
            with locked(path):
                free.append(True)
        except InputError:
            free.append(False)
        if not free[-1]:
            raise KeyboardInterrupt
        return real(path, *rest)

    real = getattr(Record, method)
    monkeypatch.setattr(Record, method, seen)
    vae_jax(line, 130)
    assert free == ([True, False] if method == "resume" else [False])


def test_a_sweep_is_locked_and_so_are_its_members(folder, capsys, monkeypatch):
    from vae_jax.tasks.sweeps import run as sweeps

    line = "vae-jax sweep tiny --seeds 0:2 --workdir sweep --quiet"
    real, seen = sweeps.train_group, []

    def busy(*args, **more):
        for words in (f"{line} --resume", f"vae-jax train --resume {args[0][0].path}"):
            assert main.run(shlex.split(words)[1:]) == 2
            seen.append(capsys.readouterr().err)
        return real(*args, **more)

    monkeypatch.setattr(sweeps, "train_group", busy)
    vae_jax(line)
    assert f"sweep: process {os.getpid()} is training in this folder" in seen[0]
    assert f"sweep/seed=0: process {os.getpid()} is training in this folder" in seen[1]


def test_logs_of_two_runs_in_two_threads_do_not_mix(tmp_path):
    """Both fail at NaN, at the same time; each log has its own end and nothing of the other."""
    import logging

    config = put(SMALL, steps=4, optimizer=Optimizer(name="sgd", lr=1e30))
    meet = threading.Barrier(2)

    def fail(name):
        def say(text):
            if "run folder" in text:
                meet.wait(60)  # both logs are open now
            logging.getLogger("vae_jax.test").info("%s says %s", name, text)

        with pytest.raises(NonFinite):
            training.train_run(config, name, tmp_path / name, say=say)

    threads = [threading.Thread(target=fail, args=(name,)) for name in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, other in (("left", "right"), ("right", "left")):
        text = (tmp_path / name / "log.txt").read_text()
        assert text.count("ERROR vae_jax.tasks.training: stopped: ") == 1
        assert f"{name} says" in text
        assert f"{other} says" not in text


def test_the_logger_is_restored_whichever_log_ends_last(tmp_path):
    import logging

    package = logging.getLogger("vae_jax")
    before = package.level, package.propagate, list(package.handlers)
    first, second = runlog.log_to(tmp_path / "a"), runlog.log_to(tmp_path / "b")
    first.__enter__()
    second.__enter__()
    first.__exit__()
    assert package.propagate is False
    package.info("still here")
    second.__exit__()
    assert (package.level, package.propagate, list(package.handlers)) == before
    assert "still here" in (tmp_path / "b").read_text()
    assert (tmp_path / "a").read_text() == ""
