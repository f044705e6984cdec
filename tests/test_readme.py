"""Every command of the README runs, in the order of the README, on two-step runs."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from vae_jax.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.S)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_there_are_commands_of_both_kinds():
    found = commands()
    assert found[:2] == ["make train EXP=beta_vae", "make test"]
    assert sum(c.startswith("vae-jax ") for c in found) >= 10


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_make_targets_exist(command):
    done = subprocess.run(["make", "-n", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_vae_jax_command_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.run(["train", "beta_vae", "--smoke", "--quiet", "--mesh.data", "1"]) == 0
    for command in commands():
        words = shlex.split(command)[1:]
        if not command.startswith("vae-jax "):
            continue
        if words[0] in ("train", "sweep"):
            words += ["--smoke", "--quiet", "--mesh.data", "1"]
            if "--resume" in words:
                # The newest run of this name is the one with other options, which must not be resumed by mistake.
                words += ["--workdir", "runs/beta_vae"]
        code = main.run(words)
        assert code == 0, (command, capsys.readouterr().err)
    for name in ("traversals.png", "samples.npz"):
        assert (tmp_path / name).stat().st_size > 500


def test_the_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", README, re.S)[0]
    code = code.replace("steps=2000,", "steps=2, seed=3,").replace('"runs/mine"', '"runs/mine", quiet=True')
    code = code.replace("evaluate_run(run)", "evaluate_run(run, limit=20)")
    scope: dict = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["images"].shape == (64, 32, 32, 1)


def test_the_example_of_scores_runs(capsys):
    scope: dict = {}
    exec(compile(re.findall(r"```python\n(.*?)```", README, re.S)[1], "README.md", "exec"), scope)
    assert scope["score"].value > 0.9
    assert scope["dci"].disentanglement.value > 0.9
    assert "Score(value=0.9" in capsys.readouterr().out


def test_pictures_exist():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).stat().st_size > 5_000
