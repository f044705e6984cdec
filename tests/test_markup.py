"""Names of folders, labels and options are printed as they are: "[red]" is no color, ":key:" no picture."""

import ast
import shutil

import pytest
from test_cli_look import config, make
from test_layers import ROOT

from vae_jax.cli.main import run as cli
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.tasks.sweeps import table

NAMES = ("[red]x[/red]", "[bold]", "[/]", ":key:", "[link=file:]")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "run", config(VAE(2, MLP((8,)))))


@pytest.mark.parametrize("name", [n for n in NAMES if "/" not in n] + ["[red]x[red]"])
def test_folders(made, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    path = shutil.copytree(made, tmp_path / name)
    assert cli(["eval", str(path), "--metrics", "mse"]) == 0
    assert str(path) in capsys.readouterr().out.replace("\n", "")
    assert cli(["compare", str(path), str(made)]) == 0
    out = capsys.readouterr().out
    assert f" {name} " in out, "the head of its column"
    assert f"{name}: eval.json" in out
    assert cli(["report", str(path)]) == 0
    assert f"{name}/report.html" in capsys.readouterr().out
    assert name in (path / "report.html").read_text()
    assert cli(["sample", str(path / "none")]) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_experiments_data_and_likelihoods(made, tmp_path, capsys, monkeypatch, name):
    from vae_jax.cli.evaluate import print_result
    from vae_jax.runs.run import Run
    from vae_jax.tasks.measuring import evaluate_run
    from vae_jax.tasks.progress import Progress

    monkeypatch.setenv("COLUMNS", "300")
    result = evaluate_run(Run.load(made), metrics=("mse",), write=False)
    target = {"value": 0.1, "tolerance": 0.1, "source": name, "pass": True}
    result |= {"experiment": name, "data": f"d{name}", "expected": {name: target | {"pass": None}}}
    result["metrics"] = {f"m{name}": {"value": 1.0, "stderr": 0.5, "n": 3}}
    print_result(result)
    out = capsys.readouterr().out
    for text in (f"{name}, step 4: d{name} 8x8x1", f" m{name} ", f"targets not measured: {name}"):
        assert text in out
    with Progress(3) as progress:
        progress.say(f"run folder {name}")
    assert capsys.readouterr().out == f"run folder {name}\n"
    member = {"name": f"a{name}", "seed": 0, "values": {"data.source": name}, "metrics": {}, "state": "diverged"}
    member["diverged"] = {"what": [name], "step": 3}
    row = {"values": member["values"], "metric": "mse", "n": 1, "mean": 1.0, "sd": None}
    row |= {"best": 1.0, "best_seed": 0, "diverged": 1}
    sweep = {"experiment": name, "seeds": [0], "vary": {"data.source": [name]}, "members": [member], "table": [row]}
    monkeypatch.setattr(table, "main_metrics", lambda sweep: ["mse"])
    table.print_table(sweep)
    out = capsys.readouterr().out
    for text in (f"{name}: 1 seeds each", f" {name} ", f"a{name} diverged: {name} was not finite"):
        assert text in out


def test_every_console_takes_text_as_it_is():
    """A console without markup=False and emoji=False would read tags in the names of others' folders."""
    found = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("Console", "TextColumn"):
                words = {k.arg: ast.unparse(k.value) for k in node.keywords}
                plain = words.get("markup") == "False"
                if ast.unparse(node.func).endswith("Console"):
                    plain = plain and words.get("emoji") == "False"
                fixed = bool(node.args) and _constant(node)
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", plain or fixed))
    assert len(found) > 6
    assert [where for where, plain in found if not plain] == []


def _constant(node: ast.Call) -> bool:
    """Returns whether a column shows one fixed text of ours."""
    return isinstance(node.args[0], ast.Constant) and "{" not in str(node.args[0].value)
