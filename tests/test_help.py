"""Ranges in the help: every option that has one shows it, in the words that refuse a value outside of it."""

import dataclasses
import importlib
import re
import shutil

import numpy as np
import pytest
from test_cli_look import config, make

from vae_jax.cli.main import COMMANDS
from vae_jax.cli.main import run as cli
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.options.ranges import AtLeast, Between, Each, NotNegative, Positive, ranges


def classes():
    """Returns command -> the dataclass of its options, of the commands that have one."""
    homes = {name: home.split(":") for name, (home, _) in COMMANDS.items()}
    found = {name: getattr(importlib.import_module(module), attribute) for name, (module, attribute) in homes.items()}
    return {name: cls for name, cls in found.items() if isinstance(cls, type)}


RANGED = [(c, f, allowed) for c, cls in classes().items() for f, allowed in ranges(cls).items() if allowed is not None]


def shown(capsys, *words):
    """Returns the help as one line, without the frames."""
    capsys.readouterr()
    assert cli([*words, "--help"]) == 0
    return " ".join(re.sub("[│╭╰╮╯─]", " ", capsys.readouterr().out).split())


def test_commands_that_take_numbers_have_ranges():
    found = {command for command, *_ in RANGED}
    assert found == {
        *("sample", "reconstruct", "interpolate", "traverse", "arithmetic"),
        *("encode", "decode", "score", "impute", "eval", "fit-prior", "baseline", "report", "compress", "decompress"),
    }


@pytest.mark.parametrize("width", ["80", "120"])
def test_train_shows_ranges(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    out = shown(capsys, "train", "vae_digits", "--model.posterior", "categorical", "--model.prior", "categorical")
    for words in (
        "--steps INT Updates to make. (1 or more; default: 5000)",
        "data order, noise. (in [0, 2^31); default: 0)",
        "--ema-decay FLOAT Decay of the moving average of weights that evaluation then uses; 0 keeps none. (in [0, 1); "
        "default: 0.0)",
        "--optimizer.lr FLOAT Peak learning rate. (positive; default: 0.001)",
        "(a list of sizes of 1 or more; default: ",
        "(2 or more values per variable; default: 10)",
        "(zero or more; default:",
    ):
        assert words in out
    assert "(default: standard)" in out  # an option without a range is as before


@pytest.mark.parametrize("command", dict.fromkeys(command for command, *_ in RANGED))
def test_commands_show_ranges(command, capsys):
    cls = classes()[command]
    parts = re.split(r" --(?=[a-z-]+ [{A-Z])", shown(capsys, command))  # one for each option
    about = {text.partition(" ")[0].replace("-", "_"): text for text in parts}
    for field in dataclasses.fields(cls):
        allowed = ranges(cls)[field.name]
        if allowed is not None:
            default = "" if field.default is None else f"; default: {field.default}"
            assert f"({allowed.words}{default})" in about[field.name]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    made = make(tmp_path_factory.mktemp("runs") / "vae", config(VAE(3, MLP((8,)))))
    np.save(made / "codes.npy", np.zeros((2, 3)))
    return made


def outside(allowed):
    """Returns a value that a range does not allow."""
    if isinstance(allowed, Each):
        return outside(allowed.range)
    if isinstance(allowed, Between):
        return int(allowed.low) - 1
    return {AtLeast: getattr(allowed, "low", 0) - 1, Positive: 0.0, NotNegative: -1.0}[type(allowed)]


READERS = {"chains": "ais", "temperatures": "ais", "leapfrog": "ais", "samples": "mmd", "points": "mig", "bins": "mig"}
READERS |= {"outlier_k": "anomaly", "regret_steps": "anomaly"}
READERS |= {"local_steps": "amortisation_gap", "local_samples": "amortisation_gap"}
NEEDED = {
    "arithmetic": ["--from", "0", "--to", "1"],
    "encode": ["--input", "digits", "--out", "codes.npz", "--draw", "True"],
    "decode": ["--input", "run/codes.npy", "--out", "x.npz", "--pixels", "sample"],
    "impute": ["--input", "run/codes.npy", "--out", "x.npy"],
    "score": ["--input", "digits", "--out", "x.csv"],
    "compress": ["digits", "--out", "x.vjc"],
    "decompress": ["x.vjc", "--out", "x.png"],
}


@pytest.mark.parametrize(("command", "field", "allowed"), RANGED, ids=[f"{c}-{f}" for c, f, _ in RANGED])
def test_a_value_outside_is_refused_in_these_words(command, field, allowed, path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    copy, value = shutil.copytree(path, tmp_path / "run"), outside(allowed)
    option = f"--{field.replace('_', '-')}"
    what = "digits" if command == "baseline" else "run"
    words = [command, what, *NEEDED.get(command, []), option, str(value)]
    words += ["--metrics", READERS.get(field, "iwae")] if command == "eval" else []
    words += ["--kind", "flow"] if (command, field) == ("fit-prior", "steps") else []
    before = sorted(copy.rglob("*"))
    assert cli(words) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"{option}: {value} is out of range; it must be {allowed.words}" in line
    assert sorted(copy.rglob("*")) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
