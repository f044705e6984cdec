"""Damaged run folders: the last good checkpoint and a sentence, or one line and exit code 2; never other numbers."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import support

from vae_jax.cli import main
from vae_jax.runs.run import Run

# The runs of this file draw their figures (conftest.py).
FIGURES = True
EXPERIMENT = '''"""A model that trains in no time."""

from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.data.config import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.train import MeshConfig


def get_config():
    return Config(
        steps=12,
        data=DataConfig("digits", batch_size=8),
        model=VAE(latent_dim=2, network=MLP((8,))),
        mesh=MeshConfig(data=1),
        logging=Logging(log_every=4, checkpoint_every=4, tensorboard={tensorboard}),
        evaluation=Evaluation(limit=50, batch_size=25),
    )
'''
WAYS = ("truncate", "zero", "flip")
PLACES = ("first", "middle", "last")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a folder with an experiment, a finished run of it and a fitted density of its codes."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "tiny.py").write_text(EXPERIMENT.format(tensorboard=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.run(["train", "tiny", "--workdir", "run", "--quiet"]) == 0
        assert main.run(["fit-prior", "run", "--components", "2"]) == 0
    return folder


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    """Makes a copy of that folder the current one."""
    shutil.copytree(home, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def damage(file: Path, way: str, place: str = "middle") -> bool:
    """Damages a file from one place on; returns whether that changed it."""
    data = file.read_bytes()
    at = {"first": 0, "middle": len(data) // 2, "last": max(len(data) - 1, 0)}[place]
    new = bytearray(data)
    if way == "delete":
        file.unlink()
        return True
    if way == "truncate":
        del new[at:]
    elif way == "zero":
        new[at : at + 64] = bytes(len(new[at : at + 64]))
    elif new:
        new[at] ^= 0xFF
    file.write_bytes(new)
    return bytes(new) != data


def harm(*files: Path):
    """Yields (file, way, place): each file truncated, zeroed and flipped at three places, and deleted."""
    for file in files:
        yield file, "delete", "first"
        yield from ((file, way, place) for way in WAYS for place in PLACES)


def ruin(run: str, step: int) -> None:
    """Cuts the arrays of a checkpoint short."""
    for file in (Path(run) / "checkpoints" / str(step) / "state" / "d").iterdir():
        damage(file, "truncate")


def said(capsys, code: int, *words: str) -> str:
    """Runs a command; returns stderr, which has one line at most and no traceback."""
    capsys.readouterr()
    assert main.run(list(words)) == code
    err = capsys.readouterr().err
    assert err.count("\n") <= 1, err
    assert "Traceback" not in err
    return err.strip()


def numbers(path: Path) -> dict[str, float]:
    return {name: held["value"] for name, held in json.loads(path.read_text())["metrics"].items()}


def test_any_damage_to_a_checkpoint_is_the_same_numbers_or_the_older_ones_and_a_sentence(here, capfd):
    """All files. TensorStore's threads write tracebacks to stderr where they find their loop gone."""
    run = Run.load("run")
    new, old = run.restore(12), run.restore(8)
    folder = here / "run" / "checkpoints" / "12"
    copy = here / "copy"
    shutil.copytree(folder, copy)
    outcomes = {"same": 0, "older": 0}
    for file, way, place in harm(*sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())):
        if place != "middle" and way != "delete" and not re.search("data/metadata|/d/", str(file)):
            continue  # three places of the others: in the slow test
        if damage(folder / file, way, place):
            words: list[str] = []
            state = run.restore(say=words.append)
            outcomes["older" if words else "same"] += 1
            support.assert_trees_equal(state, old if words else new)
            assert len(words) <= 1
            for word in words:
                assert re.fullmatch(
                    r".*/checkpoints: the checkpoint of step 12 cannot be read \(.*\); falling back to that of step 8",
                    word,
                ), (file, way, place)
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)
    assert outcomes["same"] > 0
    assert outcomes["older"] > 20  # most of the files; TensorStore decides how many there are
    assert capfd.readouterr().err == ""


def test_eval_and_report_name_the_damaged_checkpoint_and_both_ways_on_work(here, capsys):
    before = numbers(here / "run" / "eval.json")
    ruin("run", 12)
    for command in ("eval", "report"):
        line = said(capsys, 2, command, "run")
        assert line == (
            f"vae-jax: {here}/run/checkpoints: the checkpoint of step 12 cannot be read (a file is damaged); falling "
            "back to that of step 8, unfinished, at step 8 of 12; continue it with `vae-jax train --resume run`, or "
            "measure it as it is with --step 8"
        )
    assert said(capsys, 0, "report", "run", "--step", "8") == ""
    assert said(capsys, 0, "eval", "run", "--step", "8", "--out", "at8.json") == ""
    assert json.loads(Path("at8.json").read_text())["step"] == 8
    assert numbers(Path("at8.json")) != before
    advice = re.search("`vae-jax ([^`]*)`", line)
    assert advice is not None
    assert said(capsys, 0, *advice[1].split()) == ""
    assert said(capsys, 0, "eval", "run", "--out", "at12.json") == ""
    assert numbers(Path("at12.json")) == before


def test_a_damaged_step_that_is_named_is_refused_and_the_step_offered_works(here, capsys):
    ruin("run", 12)
    line = said(capsys, 2, "eval", "run", "--step", "12", "--out", "a.json")
    assert line == (
        f"vae-jax: {here}/run/checkpoints: the checkpoint of step 12 cannot be read (a file is damaged); use --step 8 "
        "(there are also [4])"
    )
    assert said(capsys, 0, "eval", "run", "--step", "8", "--out", "a.json") == ""
    assert not list(here.glob(".a.*"))


def arrays(file: str) -> dict[str, np.ndarray]:
    with np.load(file) as stored:
        return dict(stored)


COMMANDS = {
    "sample": ["sample", "run", "--n", "2"],
    "reconstruct": ["reconstruct", "run", "--n", "2"],
    "traverse": ["traverse", "run", "--steps", "2"],
    "interpolate": ["interpolate", "run", "--indices", "0", "1", "--steps", "2"],
    "arithmetic": ["arithmetic", "run", "--from", "3", "--to", "8", "--n", "2", "--steps", "2", "--learn", "50"],
    "encode": ["encode", "run", "--input", "digits"],
    "decode": ["decode", "run", "--input", "z.npy"],
    "impute": ["impute", "run", "--input", "holes.npz", "--k", "2"],
    "fit-prior": ["fit-prior", "run", "--components", "2"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_fall_back_and_say_so_in_one_line(here, capsys, command):
    np.save("z.npy", np.zeros((2, 2), np.float32))
    np.savez("holes.npz", images=np.where(np.eye(8) > 0, np.nan, 0.5)[None])
    words, out = COMMANDS[command], "density" if command == "fit-prior" else "a.npz"
    ruin("run", 12)
    line = said(capsys, 0, *words, "--out", out)
    assert line == (
        f"vae-jax: warning: {here}/run/checkpoints: the checkpoint of step 12 cannot be read (a file is damaged); "
        "falling back to that of step 8"
    )
    assert said(capsys, 0, *words, "--step", "8", "--out", f"8{out}") == ""
    fallen, named = (arrays(f"{n}{out}" + ("/gmm.npz" if command == "fit-prior" else "")) for n in ("", "8"))
    assert fallen.keys() == named.keys()
    for name in fallen:
        np.testing.assert_array_equal(fallen[name], named[name])


def test_no_good_checkpoint_is_one_line(here, capsys):
    for step in (4, 8, 12):
        ruin("run", step)
    line = said(capsys, 2, "sample", "run", "--out", "a.png")
    assert line == (
        f"vae-jax: {here}/run/checkpoints: the checkpoints of steps 4, 8, 12 cannot be read (a file is damaged); put "
        "the folder back from a copy, or train again with another --workdir"
    )
    assert not Path("a.png").exists()
    assert "cannot be read" in said(capsys, 2, "train", "tiny", "--workdir", "run", "--resume", "--quiet")
    assert said(capsys, 0, "train", "tiny", "--workdir", "again", "--quiet") == ""
    assert said(capsys, 0, "sample", "again", "--out", "a.png") == ""


def test_resume_makes_the_damaged_steps_again_bit_for_bit(here, capsys):
    whole = Run.load("run").restore()
    ruin("run", 12)
    ruin("run", 8)
    capsys.readouterr()
    assert main.run(["train", "tiny", "--workdir", "run", "--resume"]) == 0
    seen = capsys.readouterr()
    text = " ".join(seen.out.split())
    assert "warning:" in text
    assert "the checkpoints of steps 8, 12 cannot be read (a file is damaged); falling back to that of step 4" in text
    assert seen.err == ""
    words: list[str] = []
    support.assert_trees_equal(Run.load("run").restore(say=words.append), whole)
    assert words == []


def test_a_damaged_population_of_a_sweep_is_passed_over(here, capsys, monkeypatch):
    """Stopped before its end, the sweep has checkpoints of all members together; the newest of them is damaged."""
    from vae_jax.tasks.sweeps import group
    from vae_jax.train.signals import Interrupted

    words = ["sweep", "tiny", "--seeds", "0:2"]
    assert main.run([*words, "--workdir", "whole"]) == 0
    with monkeypatch.context() as patch:

        def stop(states):
            raise Interrupted(2, 12)

        patch.setattr(group, "member_states", stop)
        assert main.run([*words, "--workdir", "parts"]) == 130
    steps = sorted(int(p.name) for p in Path("parts/population/0").iterdir())
    assert steps == [4, 8, 12]
    for file in Path("parts/population/0/12/state/d").iterdir():
        damage(file, "zero")
    capsys.readouterr()
    assert main.run([*words, "--workdir", "parts", "--resume"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "population/0: the checkpoint of step 12 cannot be read" in text
    assert "falling back to that of step 8" in text
    for name in ("seed=0", "seed=1"):
        support.assert_trees_equal(Run.load(f"parts/{name}").restore(), Run.load(f"whole/{name}").restore())


# Of each kind of file beside the checkpoints, one; no number of `eval` comes from these.
HARMLESS = ("env.json", "log.txt", "figures/samples.png", "tensorboard/events", "prior/gmm.npz")


@pytest.mark.parametrize("name", HARMLESS)
def test_damage_to_what_holds_no_numbers_changes_none(here, capsys, name):
    before = numbers(here / "run" / "eval.json")
    (file,) = here.glob(f"run/{name}*") if name == "tensorboard/events" else [here / "run" / name]
    whole = file.read_bytes()
    for _, way, place in harm(file):
        if way == "delete" or place == "middle":
            file.write_bytes(whole)
            damage(file, way, place)
            assert said(capsys, 0, "eval", "run", "--out", "a.json") == ""
            assert numbers(Path("a.json")) == before


def test_report_says_that_env_json_cannot_be_read(here, capsys):
    for text in ("[]", "[1]", '{"packages": 3}', "\xff", ""):
        (here / "run" / "env.json").write_text(text, encoding="latin-1")
        assert said(capsys, 0, "report", "run") == ""
        assert "not there, or cannot be read" in Path("run/report.html").read_text()
        assert Run.load("run").provenance()["commit"] is None


def test_a_damaged_density_is_refused_and_fitting_it_again_works(here, capsys):
    draw = ["sample", "run", "--prior", "gmm", "--n", "2", "--out", "a.npz"]
    assert said(capsys, 0, *draw) == ""
    before = arrays("a.npz")["images"]
    for name in ("gmm.npz", "gmm.json"):
        file = here / "run" / "prior" / name
        whole = file.read_bytes()
        for _, way, place in harm(file):
            Path("a.npz").unlink(missing_ok=True)
            file.write_bytes(whole)
            if not damage(file, way, place):
                continue
            capsys.readouterr()
            code = main.run(draw)
            err = capsys.readouterr().err
            if code == 0:  # the last byte of a JSON file is the end of its line
                np.testing.assert_array_equal(arrays("a.npz")["images"], before)
                assert (name, place) == ("gmm.json", "last")
                continue
            assert code == 2, (name, way, place)
            assert err.count("\n") == 1
            assert "vae-jax fit-prior" in err
            assert not Path("a.npz").exists()
    assert said(capsys, 0, "fit-prior", "run", "--components", "2") == ""
    assert said(capsys, 0, *draw) == ""
    np.testing.assert_array_equal(arrays("a.npz")["images"], before)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["eval", "report", "train"])
def test_any_damage_to_any_file_of_a_run(here, capfd, command):
    """Every file of the folder, three places each: the same numbers, older ones and a sentence, or one line."""
    words = {
        "eval": ["eval", "run", "--out", "a.json"],
        "report": ["report", "run", "--out", "a.html"],
        "train": ["train", "tiny", "--workdir", "run", "--resume", "--quiet"],
    }[command]
    before = numbers(here / "run" / "eval.json")
    whole = Run.load("run").restore()
    shutil.copytree("run", "copy")
    failures, cases = [], 0
    for file, way, place in harm(*sorted(p.relative_to("copy") for p in Path("copy").rglob("*") if p.is_file())):
        if place != "middle" and re.match("checkpoints/[48]/", str(file)):
            continue  # read only where that of step 12 is damaged
        shutil.rmtree("run")
        shutil.copytree("copy", "run")
        Path("a.json").unlink(missing_ok=True)
        if not damage(Path("run") / file, way, place):
            continue
        if (cases := cases + 1) % 25 == 0:
            jax.clear_caches()  # programs keep memory maps, of which a process may have some 65,000
        capfd.readouterr()
        code = main.run(words)
        err = capfd.readouterr().err
        good = code in (0, 2) and "Traceback" not in err and err.count("\n") <= 1 and (code == 0 or err)
        if good and code == 0 and command == "eval":
            good = numbers(Path("a.json")) == before
        if good and code == 0 and command == "train":
            try:
                support.assert_trees_equal(Run.load("run").restore(), whole)
            except Exception as error:
                good, err = False, repr(error)
        if not good:
            failures.append(f"{file} {way} {place}: exit {code}, {err.strip().splitlines()[-1:]}")
    assert not failures, "\n".join(failures)
