"""Parts from outside of the package: the examples of docs/extending.md as they are printed, and what is refused."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support

import vae_jax as vj
from vae_jax import figures
from vae_jax.cli.main import run as cli
from vae_jax.cli.options import parse_config
from vae_jax.config import Config
from vae_jax.errors import InputError
from vae_jax.files import code as codes
from vae_jax.options.ranges import ranges
from vae_jax.runs import config as configs
from vae_jax.runs import experiments as index
from vae_jax.runs import kinds
from vae_jax.runs.kinds import KINDS
from vae_jax.runs.run import Run
from vae_jax.tasks import first_stage, rehearsal

DOCS = (Path(__file__).resolve().parent.parent / "docs" / "extending.md").read_text()
EXAMPLES = dict(re.findall(r"\n## An? ([\w ]+)\n(?:(?!\n## ).)*?```python\n(.*?)```", DOCS, re.DOTALL))
# Example -> (option of its part, a field of it, a value out of its range).
FIELDS = {
    "network": ("model.network", "width", 0),
    "likelihood": ("model.likelihood", "floor", 0.0),
    "prior": ("model.prior", "start", float("nan")),
    "posterior": ("model.posterior", "std", -1.0),
    "objective": ("model.objective", "target", -1.0),
    "gradient estimator": ("model.gradient", "share", 1.5),
    "KL schedule": ("model.objective.schedule", "steps", 0),
    "quantizer": ("model.quantizer", "pull", -1.0),
    "generator": ("model.generator", "decay", -1.0),
    "model": ("model", "weight", -1.0),
    "data set": ("data.name", "", ""),
}
SMALL = (
    "--steps",
    "2",
    "--quiet",
    "--data.batch-size",
    "8",
    "--evaluation.limit",
    "20",
    "--logging.tensorboard",
    "False",
)


def test_every_kind_has_an_example():
    assert list(EXAMPLES) == list(FIELDS)
    assert {option for option, *_ in FIELDS.values()} == {*KINDS, "data.name"}
    assert all(f"`{option}`" in DOCS for option in (*KINDS, "data.name"))


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """Returns example -> (its file, its trained run), each made once and without figures."""
    folder = tmp_path_factory.mktemp("mine")
    made = {}

    def make(example):
        if example not in made:
            file = folder / f"{example.replace(' ', '_')}.py"
            file.write_text(EXAMPLES[example])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(figures, "write_all", lambda *args, **options: [])
                words = ["--workdir", str(folder / file.stem)]
                if "SecondStage" in EXAMPLES[example]:
                    words += ["--stage1", str(folder / "first")]
                    assert cli(["train", "vq_vae_digits", *SMALL, "--workdir", str(folder / "first")]) == 0
                assert cli(["train", str(file), *SMALL, *words]) == 0
            made[example] = file, folder / file.stem
        return made[example]

    return make


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_trains(example, lives):
    _, made = lives(example)
    assert json.loads((made / "eval.json").read_text())["step"] == 2


# A part, the model around them, and the data: what is held and read again is the same code for every part.
@pytest.mark.parametrize("example", support.slow_but(("objective", "model", "data set"), EXAMPLES))
def test_an_example_lives_on_without_its_file(example, lives, tmp_path, capsys, monkeypatch):
    file, made = lives(example)
    path = shutil.copytree(made, tmp_path / "run")  # from a folder of its own
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(codes, "_loaded", [])  # as another process: nothing of the file is there
    monkeypatch.setattr(figures, "write_all", lambda *args, **options: [])
    held = json.loads((path / "config.json").read_text())
    option = FIELDS[example][0]
    name = held["data"]["name"] if option == "data.name" else _held(held, option)["kind"]
    cls = re.search(r"\nclass (\w+)\((?!nn\.)", EXAMPLES[example])
    assert cls is not None
    assert name == f"experiment:{cls.group(1)}"
    assert held["code_sha256"].keys() == {"experiment.py"}
    moved = file.rename(file.with_suffix(".gone"))
    try:
        assert cli(["train", "--resume", "run", "--steps", "3", "--quiet"]) == 0
        assert cli(["eval", "run", "--limit", "20"]) == 0
        assert cli(["sample", "run", "--n", "4", "--out", "samples.npz"]) == 0
        assert cli(["report", "run"]) == 0
        assert np.isfinite(np.load("samples.npz")["images"]).all()
        assert json.loads((path / "eval.json").read_text())["step"] == 3
        (path / "experiment.py").unlink()
        monkeypatch.setattr(codes, "_loaded", [])
        capsys.readouterr()
        assert cli(["eval", "run"]) == 2
    finally:
        moved.rename(file)
    line = capsys.readouterr().err
    assert line == (
        "vae-jax: run/config.json: run/experiment.py: cannot be read (No such file or directory), and the run needs "
        "its classes; restore it from the experiment file, or train again\n"
    )
    shutil.copy(file, path / "experiment.py")  # the advice is good
    assert Run.load(path).config.steps == 3


def test_the_example_of_a_critic_on_z(tmp_path):
    """A critic of one logit for all codes: the encoder pays weight times it, the critic learns its cross-entropy."""
    (code,) = re.findall(r"\n### With a critic on z\n.*?```python\n(.*?)```", DOCS, re.DOTALL)
    file = tmp_path / "matched.py"
    file.write_text(code)
    model = index.load(file).model.build(support.spec((8, 8, 1)))
    batch, ctx = support.images(4, (8, 8, 1)), support.context(model, 4)
    params, state = model.init(jax.random.key(0), batch)
    blind = jax.tree.map(jnp.zeros_like, params["critic"])

    def step(bias):
        given = params | {"critic": blind | {"layer2": blind["layer2"] | {"b": jnp.full(1, bias)}}}
        (loss, aux), grads = jax.value_and_grad(model.loss, has_aux=True)(given, state, jax.random.key(1), batch, ctx)
        return float(loss), aux.metrics, grads["critic"]["layer2"]["b"]

    before, after = step(0.0), step(0.5)
    assert after[0] - before[0] == pytest.approx(2.0 * 0.5, rel=1e-4)
    assert float(after[1]["ratio"]) == 0.5
    assert float(before[1]["critic_loss"]) == pytest.approx(np.log(2))
    # The derivative of (softplus(-b) + softplus(b)) / 2: nothing of what the encoder pays reaches the critic.
    assert float(after[2][0]) == pytest.approx(0.5 * np.tanh(0.25), rel=1e-5)


def _held(values, option):
    for part in option.split("."):
        values = values[part]
    return values


PARTS = """
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import Elbo

if TYPE_CHECKING:
    from nowhere import Thing


@dataclass(frozen=True)
class Tiny(MLP):
    extra: float = 1.0


class Bare(MLP):
    more: int = 3


@dataclass
class Open(MLP):
    __hash__ = None


@dataclass(frozen=True)
class Asks(Elbo):
    def __init__(self, width):
        pass


@dataclass(frozen=True)
class Vague(Elbo):
    thing: "Thing" = None


@dataclass(frozen=True)
class Built:
    latent_dim: int = 2


def function():
    pass
"""
# (option, name, what the line says).
WRONG = [
    ("model.network", "nowhere.nets:Tiny", "no module 'nowhere' is installed; install it with pip, or add the folder"),
    ("model.network", "parts.nets:Tiny", "no module 'parts.nets' is installed"),
    (
        "model.network",
        "../parts:Tiny",
        "../parts is a path, but a module is needed; write parts:Class, with the folder",
    ),
    ("model.network", "parts:Tyni", "parts does not have a class 'Tyni'; did you mean 'Tiny'?"),
    ("model.network", "parts:function", "parts:function is not a network, because it is not a class; name a class"),
    (
        "model.network",
        "parts:Asks",
        "parts:Asks is not a network, because it does not extend vae_jax.networks.Network; write class Asks(Network)",
    ),
    ("model.network", "parts:Bare", "it is not a frozen dataclass; write @dataclass(frozen=True) above class Bare"),
    ("model.network", "broken:Tiny", "broken cannot be imported (ZeroDivisionError: division by zero); correct the"),
    ("model.objective", "parts:Asks", "its field width does not have a default; give it one"),
    ("model.objective", "parts:Vague", "its annotations cannot be read (name 'Thing' is not defined); import what"),
    ("model", "parts:Built", "parts:Built is not a model, because it does not have a method build; define Built.build"),
    ("model.network", "experiment:Tiny", "experiment means the experiment file, but none of its classes are in use"),
    ("data.name", "parts:Tiny", "parts:Tiny is not a data set, because it does not extend vae_jax.data.DataSet; write"),
    ("data.name", "parts:Blob", "parts does not have a class 'Blob'"),
]


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Makes `parts` and `broken` modules that can be imported."""
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / "parts.py").write_text(PARTS.replace("@dataclass\nclass Open", "@dataclass(frozen=True)\nclass Open"))
    (folder / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(folder)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "here"
    for name in ("parts", "broken"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("option", "name", "said"), WRONG, ids=[f"{option}-{name}" for option, name, _ in WRONG])
def test_a_name_that_leads_nowhere_is_one_line(parts, capsys, option, name, said):
    assert cli(["train", "vae_digits", f"--{option}", name, "--smoke"]) == 2
    err = capsys.readouterr().err
    assert err.startswith((f"vae-jax: --{option}: ", f"vae-jax: {option}: "))
    assert said in err
    assert err.count("\n") == 1
    with pytest.raises(InputError) as error:
        vj.experiment("vae_digits", **{option: name})
    assert said in str(error.value)
    assert "--" not in str(error.value)
    assert list(parts.iterdir()) == []


def test_a_class_that_raises_when_it_is_made_is_one_line(parts, capsys):
    raising = (
        "\n\n@dataclass(frozen=True)\nclass Raises(Tiny):\n    def __post_init__(self):\n        raise ValueError('no')"
    )
    with (parts.parent / "installed" / "parts.py").open("a") as file:
        file.write(raising)
    said = "parts:Raises cannot be made (ValueError: no); correct the class"
    assert cli(["train", "vae_digits", "--model.network", "parts:Raises", "--smoke"]) == 2
    assert capsys.readouterr().err == f"vae-jax: --model.network: {said}\n"
    with pytest.raises(InputError, match="ValueError: no"):
        vj.experiment("vae_digits", **{"model.network": "parts:Raises"})
    assert list(parts.iterdir()) == []


def test_a_class_of_an_installed_module(parts, capsys):
    options = {"model.network": "parts:Tiny", "model.network.extra": 2.0, "model.network.hidden": (8,)}
    config = vj.experiment("vae_digits", **options)
    assert configs.kind("model.network", config.model.network) == "parts:Tiny"
    run = Run.create(parts / "run", "mine", config, vj.spec.images(8, 8, 1))
    assert Run.load(run.path).config == config
    assert {p.name for p in run.path.iterdir()} == {
        "config.json",
        "env.json",
        "figures",
    }  # no copy of what is installed
    file = run.path / "config.json"
    values = json.loads(file.read_text())
    values["model"]["network"]["kind"] = "parts:Tyni"
    file.write_text(json.dumps(values))
    assert cli(["eval", "run"]) == 2
    said = "run/config.json: model.network.kind: parts does not have a class 'Tyni'; did you mean 'Tiny'?"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("example", [name for name in FIELDS if name != "data set"])
def test_the_range_of_a_field_of_ones_own(example, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(EXAMPLES[example])
    option, field, value = FIELDS[example]
    assert cli(["train", "mine.py", f"--{option}.{field}", str(value)]) == 2
    line = capsys.readouterr().err
    config = index.load(Path("mine.py"))
    found = ranges(type(configs.get(config, option)))[field]
    if found is None:
        assert (
            line
            == f"vae-jax: {option}.{field}: nan is not a number that can be used; {option}.{field} must be finite\n"
        )
    else:
        assert line == f"vae-jax: {option}.{field}: {value} is out of range; it must be {found.words}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]


def test_help_shows_the_options_of_a_class_of_ones_own(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(EXAMPLES["network"])
    assert cli(["train", str(tmp_path / "mine.py"), "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "--model.network.width INT" in out
    assert "Hidden units. (1 or more; default: 32)" in out
    assert "(default: experiment:Tiny)" in out


def test_a_class_that_no_other_process_finds(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Local(Config().model.network.__class__):
        pass

    config = vj.experiment("vae_digits")
    with pytest.raises(InputError) as error:
        vj.train_run(configs.put(config, "model.network", Local()), tmp_path / "run", quiet=True)
    assert "Local is a class of a function, or no module, so that no other process can import it; move it" in str(
        error.value
    )
    assert list(tmp_path.iterdir()) == []


def test_classes_of_the_experiment_file_by_name(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = "\n\n@dataclass(frozen=True)\nclass Wide(Tiny):\n    more: int = 64\n"
    circle = EXAMPLES["data set"].split("def get_config")[0]
    Path("mine.py").write_text(circle + EXAMPLES["network"].replace("\n\ndef get_config", f"{more}\n\ndef get_config"))
    given = {"model.network": "experiment:Wide", "data": "experiment:Circle", "model.likelihood": "gaussian"}
    config = vj.experiment("mine.py", **given)
    assert config.model.network.more == 64
    assert config == vj.experiment("mine.py", **(given | {"data.name": given["data"]}))
    words = [word for option, name in given.items() for word in (f"--{option}", name)]
    assert cli(["train", "mine.py", *words, "--model.network.width", "0"]) == 2  # the class is there, with its range
    assert "model.network.width: 0" in capsys.readouterr().err
    assert parse_config(index.load(Path("mine.py")), words, "train") == config
    assert config.data.shown == "experiment:Circle"


@pytest.mark.usefixtures("command_line")
def test_own_classes_in_both_stages(tmp_path, monkeypatch):
    """The file of the first stage is kept; what stands above it comes from a module."""
    for name, example in (("signs", "quantizer"), ("counted", "generator")):
        (tmp_path / f"{name}.py").write_text(EXAMPLES[example])
    first, second = (index.load(tmp_path / f"{name}.py") for name in ("signs", "counted"))

    def above(model, config):  # as training puts them together, before anything is written
        run = types.SimpleNamespace(config=dataclasses.replace(first, model=model), path=tmp_path / "run")
        return first_stage.within(config, cast(Run, run))

    with pytest.raises(
        InputError, match=r"^model\.generator: its class is in .*counted\.py, .* of .*signs\.py"
    ) as line:
        above(first.model, second)
    folder, words = re.findall(r"add (\S+) to PYTHONPATH, and give (--model\.generator counted:\w+)$", str(line.value))[
        0
    ]
    assert folder == str(tmp_path)
    monkeypatch.syspath_prepend(folder)
    both = above(first.model, parse_config(second, words.split(), "train"))
    assert kinds.code_of(both).path == tmp_path / "signs.py"
    assert kinds.code_above(both) is None
    assert kinds.kind("model.generator", both.model.generator) == words.split()[1]
    # A file and its copy are one.
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(EXAMPLES["quantizer"] + EXAMPLES["generator"])
    here, copy = (index.load(tmp_path / name / "mine.py") for name in ("a", "b"))
    signs = sys.modules[kinds.code_of(copy).module].Signs()
    assert kinds.code_of(above(dataclasses.replace(first.model, quantizer=signs), here)) is not None
    # Named like the copy in a run folder, a file is no module that could be named.
    (tmp_path / "experiment.py").write_text(EXAMPLES["generator"])
    with pytest.raises(InputError, match=r"move what --model\.generator names to a module in PYTHONPATH"):
        above(first.model, index.load(tmp_path / "experiment.py"))


@pytest.mark.usefixtures("command_line")
def test_an_edited_file_of_both_stages(tmp_path, capsys, monkeypatch):
    """The first stage of a run has the classes of the run's copy, which those of the edited file cannot stand above."""
    monkeypatch.chdir(tmp_path)
    file = Path("mine.py")
    file.write_text(EXAMPLES["quantizer"] + EXAMPLES["generator"])
    held = index.load(file)
    own = sys.modules[kinds.code_of(held).module]
    vq = vj.experiment("vq_vae_digits").model
    config = configs.put(held, "model.first", dataclasses.replace(vq, features=4, quantizer=own.Signs()))
    run = Run.create(tmp_path / "run", "mine", config, vj.spec.images(8, 8, 1))
    file.write_text(file.read_text() + "\n# edited\n")
    with pytest.raises(InputError, match=r"^model\.generator: .* give --model\.generator mine:Unigram$"):
        first_stage.within(index.load(file), None, run)
    assert cli(["train", "mine.py", "--resume", "--workdir", "run"]) == 2
    assert capsys.readouterr().err.endswith("continue the run as it is with `vae-jax train --resume run`\n")


# Files beside the experiment

HELPED = """
from __future__ import annotations

from dataclasses import dataclass

from helpers import WIDTH, Net
from vae_jax.config import Config
from vae_jax.data import DataConfig
from vae_jax.models import VAE


@dataclass(frozen=True)
class Own(Net):
    width: int = WIDTH


def get_config():
    import late

    return Config(steps=late.STEPS, data=DataConfig("digits"), model=VAE(2, Own()))
"""
HELPERS = """
from __future__ import annotations

from dataclasses import dataclass
from random import random  # of Python, whatever is called so beside this file

from vae_jax.networks import MLP

WIDTH = {width}


@dataclass(frozen=True)
class Net(MLP):
    hidden: tuple[int, ...] = (8,)
"""


def beside(folder, width):
    """Writes an experiment and the files that it imports into a folder, and returns the experiment."""
    folder.mkdir()
    (folder / "helpers.py").write_text(HELPERS.format(width=width))
    (folder / "late.py").write_text("import helpers\n\nSTEPS = helpers.WIDTH + 1\n")
    (folder / "random.py").write_text("1 / 0\n")
    (folder / "unrelated.py").write_text("1 / 0\n")
    (folder / "mine.py").write_text(HELPED)
    return folder / "mine.py"


def test_files_beside_an_experiment(tmp_path):
    first, second = beside(tmp_path / "a", 3), beside(tmp_path / "b", 5)
    path, modules = list(sys.path), set(sys.modules)
    configs_of = [index.load(file) for file in (first, second, first)]
    assert [(c.steps, c.model.network.width) for c in configs_of] == [(4, 3), (6, 5), (4, 3)]
    assert configs_of[0] == configs_of[2] != configs_of[1]
    assert sys.path == path
    new = set(sys.modules) - modules
    assert {name.rpartition(".")[2] for name in new if "." in name} == {"helpers", "late"}
    assert all(name.startswith(codes.PREFIX) for name in new)
    assert not {"helpers", "late", "mine"} & set(sys.modules)
    assert not list(tmp_path.rglob("__pycache__"))


def test_copies_of_the_files_beside(tmp_path, monkeypatch):
    file = beside(tmp_path / "a", 3)
    config = configs.put(index.load(file), "model.network", index.load(file).model.network.__class__.__base__())
    run = Run.create(tmp_path / "run", "mine", config, vj.spec.images(8, 8, 1))
    held = json.loads((run.path / "config.json").read_text())
    assert held["model"]["network"]["kind"] == "experiment.helpers:Net"
    names = {"experiment.py", "experiment_files/helpers.py", "experiment_files/late.py"}
    assert held["code_sha256"].keys() == names
    shutil.rmtree(tmp_path / "a")
    monkeypatch.setattr(codes, "_loaded", [])
    assert Run.load(run.path).config.model.network.hidden == (8,)
    assert not list(tmp_path.rglob("__pycache__"))
    for name in names:
        text = (run.path / name).read_text()
        for damage, said in ((lambda f: f.unlink(), "cannot be read"), (lambda f: f.write_text(""), "changed since")):
            monkeypatch.setattr(codes, "_loaded", [])
            damage(run.path / name)
            with pytest.raises(InputError, match=re.escape(f"{run.path / name}: {said}")):
                Run.load(run.path)
            (run.path / name).write_text(text)
    Run.load(run.path)


BAD_SUMS = [
    ({"../mine.py": "0" * 64}, "code_sha256.../mine.py: is not a file that a run keeps"),
    ({"experiment_files/../../x.py": "0" * 64}, "is not a file that a run keeps"),
    ({"experiment.py": "0"}, "code_sha256.experiment.py: '0' is not a SHA-256 of 64 digits"),
    ({"experiment_files/x.py": "0" * 64}, "code_sha256.experiment.py is missing"),
    ({}, "model.network.kind: experiment means the experiment file, but none of its classes are in use here"),
    ("x", 'code_sha256: "x" is text, but it must be an object'),
]


@pytest.mark.parametrize(("sums", "said"), BAD_SUMS)
def test_an_edited_list_of_copies(sums, said, tmp_path):
    (tmp_path / "mine.py").write_text(EXAMPLES["network"])
    run = Run.create(tmp_path / "run", "mine", index.load(tmp_path / "mine.py"), vj.spec.images(8, 8, 1))
    values = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps(values | {"code_sha256": sums}))
    with pytest.raises(InputError, match=re.escape(said)):
        Run.load(run.path)


def test_code_is_not_executed_where_that_is_forbidden(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(EXAMPLES["network"] + "\nopen('ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    run = Run.create(tmp_path / "run", "mine", index.load(tmp_path / "mine.py"), vj.spec.images(8, 8, 1))
    Path("ran").unlink()
    monkeypatch.setattr(codes, "_loaded", [])
    monkeypatch.setenv(codes.REFUSE, "0")
    with pytest.raises(InputError, match="is not executed because VAE_JAX_RUN_CODE is 0; read its code, and unset"):
        Run.load(run.path)
    with pytest.raises(InputError, match=r"run/experiment\.py: is not executed because VAE_JAX_RUN_CODE is 0"):
        codes.restore(run.path, json.loads((run.path / "config.json").read_text())["code_sha256"])
    assert not Path("ran").exists()
    monkeypatch.delenv(codes.REFUSE)
    Run.load(run.path)
    assert Path("ran").exists()


# Whole runs


def test_another_code_is_another_run(lives, tmp_path):
    file, made = lives("objective")
    path = shutil.copytree(made, tmp_path / "run")
    edited = tmp_path / "edited.py"
    edited.write_text(file.read_text().replace("jnp.abs(", "2 * jnp.abs("))
    config = Run.load(path).config
    other = configs.put(config, "model", index.load(edited).model)
    with pytest.raises(InputError, match=r"cannot resume with a changed config \(code: \w{12} -> \w{12}\)"):
        vj.train_run(other, path, resume=True, quiet=True)
    two = configs.put(other, "data.name", index.load(lives("data set")[0]).data.name)
    with pytest.raises(InputError, match="a run keeps one experiment file; put both into one file"):
        configs.check(two)


def test_a_run_from_the_weights_of_another_keeps_its_code(lives, tmp_path, monkeypatch):
    _, made = lives("network")
    monkeypatch.setattr(codes, "_loaded", [])
    monkeypatch.setattr(figures, "write_all", lambda *args, **options: [])
    assert cli(["train", "--init-from", str(made), "--workdir", str(tmp_path / "next"), *SMALL]) == 0
    copies = [(folder / "experiment.py").read_bytes() for folder in (made, tmp_path / "next")]
    assert copies[0] == copies[1] == EXAMPLES["network"].encode()


def test_members_of_a_sweep_keep_the_code(lives, tmp_path, monkeypatch):
    file, _ = lives("objective")
    words = ["sweep", str(file), "--seeds", "0:2", "--vary", "model.objective.weight=1,2", *SMALL]
    assert cli([*words, "--workdir", str(tmp_path / "sweep")]) == 0
    members = sorted(p.parent for p in (tmp_path / "sweep").glob("*/experiment.py"))
    assert len(members) == 4
    monkeypatch.setattr(codes, "_loaded", [])
    assert {Run.load(member).config.model.objective.weight for member in members} == {1.0, 2.0}
    assert cli(["eval", str(members[0]), "--limit", "20"]) == 0
    assert cli([*words, "--workdir", str(tmp_path / "sweep"), "--resume"]) == 0


def test_a_report_from_another_shell(lives, tmp_path):
    _, made = lives("network")
    shutil.copytree(made, tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", "vae_jax", "report", "run"], cwd=tmp_path, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "experiment:Tiny" in (tmp_path / "run" / "report.html").read_text()


WHOLE = '''"""Stripes, with a network, a likelihood, an objective and a data set of this file."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vae_jax.config import Config
from vae_jax.data import DataConfig, DataSet, Info, from_arrays
from vae_jax.likelihoods import GaussianPixels, PixelLikelihood
from vae_jax.models import VAE
from vae_jax.networks import Network
from vae_jax.objectives import Objective


class Layer(nn.Module):
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        return nn.DenseGeneral(self.shape)(nn.tanh(x.reshape(x.shape[0], -1)))


@dataclass(frozen=True)
class OneLayer(Network):
    def encoder(self, outputs, dtype):
        return Layer((outputs,))

    def decoder(self, out_shape, dtype):
        return Layer(tuple(out_shape))


@dataclass(frozen=True)
class Within(PixelLikelihood):
    def init_params(self):
        return {"log_std": jnp.zeros(())}

    def build(self, out, params, state):
        return GaussianPixels(nn.sigmoid(out), params["log_std"])


@dataclass(frozen=True)
class Squared(Objective):
    def loss(self, terms, ctx):
        return terms.distortion + terms.rate**2, {"squared": jnp.mean(terms.rate**2)}


class Stripes(DataSet):
    def load(self, config, split):
        sizes = {"train": 48, "test": 16}
        phase = np.random.default_rng(len(split)).uniform(0, 6.28, (sizes[split], 1, 1, 1))
        x = 0.5 + 0.5 * np.sin(phase + np.arange(4)[:, None, None] + np.zeros((1, 4, 1)))
        info = Info("stripes", (4, 4, 1), sizes, config.protocol, "drawn", 0, values="float", kind="image")
        return from_arrays(info, split, {"x": x.astype(np.float32)}, config.pipeline)


def get_config():
    return Config(
        data=DataConfig("experiment:Stripes"),
        model=VAE(2, OneLayer(), likelihood=Within(), objective=Squared()),
    )
'''
# What another shell does with the run, from a folder where only the run is.
NEXT = """
from vae_jax.cli.main import run
from vae_jax.files import code

assert not code._loaded
for words in (
    "train --resume run --steps 4 --quiet",
    "eval run --metrics elbo,iwae --k 3 --out own.json",
    "sample run --n 5 --seed 1 --out samples.npz",
    "report run",
):
    assert run(words.split()) == 0, words
assert len(code._loaded) == 1
"""


def test_a_file_with_four_parts_lives_on_in_another_shell(tmp_path, monkeypatch):
    """Train in one process, delete the file; resume, evaluate, sample and report in another one."""
    file, folder = tmp_path / "mine" / "stripes.py", tmp_path / "elsewhere"
    file.parent.mkdir()
    folder.mkdir()
    file.write_text(WHOLE)
    with monkeypatch.context() as patch:
        patch.setattr(figures, "write_all", lambda *args, **options: [])
        assert cli(["train", str(file), *SMALL, "--workdir", str(folder / "run")]) == 0
    shutil.rmtree(file.parent)
    before = Run.load(folder / "run").restore().params
    done = subprocess.run([sys.executable, "-c", NEXT], cwd=folder, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    # All four parts are those of the file, and all four were at work in the other process.
    held = json.loads((folder / "run" / "config.json").read_text())
    options = ("model.network", "model.likelihood", "model.objective")
    kinds = [held["data"]["name"], *(_held(held, option)["kind"] for option in options)]
    assert kinds == ["experiment:Stripes", "experiment:OneLayer", "experiment:Within", "experiment:Squared"]
    run = Run.load(folder / "run")
    state = run.restore()
    assert int(state.step) == 4
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, state.params)
    assert all(jax.tree.leaves(moved))
    assert "log_std" in str(jax.tree_util.tree_structure(state.params))
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "squared" in line][-1] == 4
    found = json.loads((folder / "own.json").read_text())
    assert found["data"] == "experiment:Stripes"
    assert found["protocol"]["n"] == 16
    assert found["metrics"].keys() == {"elbo", "iw_3"}
    assert vj.evaluate_run(run, metrics=("elbo",), write=False)["metrics"]["elbo"]["value"] == pytest.approx(
        found["metrics"]["elbo"]["value"], rel=1e-6
    )
    images = np.load(folder / "samples.npz")["images"]
    np.testing.assert_allclose(images, vj.sample(run, 5, seed=1), rtol=1e-6)
    assert 0 < images.min() < images.max() < 1
    page = (folder / "run" / "report.html").read_text()
    assert all(kind in page for kind in kinds)


def test_vectors_have_no_pictures(lives, tmp_path, capsys, figures_of_training):
    _, made = lives("data set")
    path = shutil.copytree(made, tmp_path / "run")
    for command in ("sample", "reconstruct", "traverse"):
        assert cli([command, str(path), "--out", str(tmp_path / "x.png")]) == 2
        assert "examples of shape [2] are not images; end --out with .npz\n" in capsys.readouterr().err
        assert cli([command, str(path)]) == 0  # arrays, where nothing says what to write
        assert ".npz: " in capsys.readouterr().out
        assert cli([command, str(path), "--out", str(tmp_path / f"{command}.npz")]) == 0
    assert cli(["report", str(path)]) == 0
    assert "the data are of kind vector, not images" in (path / "report.html").read_text()
    written = figures.write_all(path, Run.load(path).model, None, {}, "title")  # type: ignore[arg-type]
    assert [file.name for file in written] == ["loss_curves.png"]


def test_vectors_are_called_vectors(lives, tmp_path, capsys):
    _, made = lives("data set")
    path = shutil.copytree(made, tmp_path / "run")
    assert cli(["eval", str(path), "--metrics", "elbo,mutual_information", "--limit", "20", "--k"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^20 vectors, real numbers, \w+ likelihood", out, re.MULTILINE)
    assert re.search(
        r"^mutual_information: vectors 20, split test, .* all 20 vectors, one z of each", out, re.MULTILINE
    )
    assert "image" not in out
    protocol = json.loads((path / "eval.json").read_text())["protocol"]
    assert protocol["reconstruction"] == "mean vector of the mean code"
    assert "sums over entries and dimensions" in protocol["estimator"]
    assert cli(["eval", str(path), "--metrics", "aggregate_kl", "--limit", "10"]) == 0
    assert cli(["compare", str(path), str(made)]) == 0
    assert re.search(
        r"test split, 20 vectors, step .*; aggregate_kl: .*limit 10.*, 10 vectors", capsys.readouterr().out
    )
    words = ["sweep", str(path / "experiment.py"), "--seeds", "0:2", "--workdir", str(tmp_path / "sweep"), *SMALL]
    assert cli([*(word for word in words if word != "--quiet"), "--metrics", "elbo", "--steps", "3"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"member\(s\) as one program .*, [\d,]+ training vectors", out)
    assert re.search(r"[\d,]+ vectors/s", out)
    assert "image" not in out


def test_data_that_change_their_mind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = EXAMPLES["data set"].replace("return from_arrays(info, split, arrays, config.pipeline)", "return arrays")
    Path("mine.py").write_text(wrong)
    with pytest.raises(
        InputError, match=r"data\.name: experiment:Circle\.load returned a dict; return data\.from_arrays"
    ):
        vj.train_run(index.load(Path("mine.py")), quiet=True)
    Path("mine.py").write_text(
        EXAMPLES["data set"].replace("return from_arrays(info", "del sizes['test']\n        return from_arrays(info")
    )
    with pytest.raises(InputError, match=r"evaluation\.split: 'experiment:Circle' has no test split"):
        vj.train_run(index.load(Path("mine.py")), quiet=True)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]


# Hints

PYTHON = [
    (
        {"model.objective.beta": 3.0},
        'the chosen objective does not have beta; use **{"model.objective": "beta", "model.objective.beta": 3.0}',
    ),
    ({"lr": 1e-3}, "lr: no such option; did you mean 'optimizer.lr'? (or critic_optimizer.lr)"),
    ({"model.prior": "mogg"}, "model.prior='mogg': no such prior; did you mean 'mog'?"),
    (
        {"model": "classifier", "model.prior": "mog"},
        "model.prior: this model does not have a prior; leave the option out",
    ),
    ({"data.batch_size": 5000}, 'use **{"data.batch_size": 1437} or less'),
    ({"data.label_seed": 3}, 'add **{"data.labels": 100}, or leave it out'),
]


@pytest.mark.parametrize(("options", "said"), PYTHON)
def test_hints_in_python_are_python(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        vj.train_run(vj.experiment("vae_digits", **options), quiet=True)
    assert said in str(error.value)
    assert "--" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_advice_for_another_component_is_good():
    config = vj.experiment("vae_digits", **{"model.objective": "beta", "model.objective.beta": 3.0})
    assert config.model.objective.beta == 3.0


# Parts that raise, or give something else than is needed: refused before a folder is made

NEAR = EXAMPLES["objective"]
DENSITY = """from typing import Any, NamedTuple

import jax.numpy as jnp


class Summed(NamedTuple):
    mean: Any
    log_var: Any

    def log_prob(self, z):
        return -0.5 * jnp.sum(jnp.square(z - self.mean))


class Kept(Summed):
    def sample(self, keys):
        return self.mean

    def sample_and_log_prob(self, keys):
        return self.mean, -0.5 * jnp.sum(jnp.square(self.mean), -1, keepdims=True)

    def mode(self):
        return self.mean

    def log_prob(self, z):
        return self.sample_and_log_prob(None)[1]

    def variance(self):
        return jnp.ones_like(self.mean)


class Channels(Kept):
    def log_prob(self, x):
        return -jnp.sum(jnp.square(x - self.mean), (1, 2))


class Undrawn:
    def __init__(self, out, std):
        self.out = out

    def log_prob(self, x):
        return -jnp.sum(jnp.square(x - self.out), (1, 2, 3))

    def mean(self):
        return self.out

    def mode(self):
        return self.out


class Flat(Undrawn):
    def mode(self):
        return self.out.reshape(len(self.out), -1)

"""
CRITIC = re.findall(r"\n### With a critic on z\n.*?```python\n(.*?)```", DOCS, re.DOTALL)[0]


def light(returned: str) -> str:
    """Returns the example of a model whose `build` ends in another way."""
    return EXAMPLES["model"].replace("return vae._replace(loss=loss)", returned)


PAIR = "return z, sample_prior(key, len(z))"
BROKEN = {
    "a critic's pair with an axis too many": (
        CRITIC.replace(PAIR, "return z[None], z[None]"),
        "model.objective: Matched.critic_pair gives float32 [1, 3, 2] and float32 [1, 3, 2]; return two samples of "
        "codes, float32 [N, 2]",
    ),
    "a critic's pair of whole numbers": (
        CRITIC.replace(PAIR, "return z.astype(int), z.astype(int)"),
        "model.objective: Matched.critic_pair gives int32 [3, 2] and int32 [3, 2]; return two samples of codes, "
        "float32 [N, 2]",
    ),
    "a critic without parameters": (
        CRITIC.replace(
            "    def critic_pair", "    def critic_init(self, key, n):\n        return []\n\n    def critic_pair"
        ),
        "model.objective: Matched.critic_init gives no parameters; return some",
    ),
    "a metric under a name of the log": (
        CRITIC.replace('{"ratio"', '{"step"'),
        "model.objective: the metric 'step' cannot be logged under this name; give it another",
    ),
    "a metric of each example": (
        CRITIC.replace("ratio.mean()", "ratio"),
        "model.objective: the metric 'ratio' has one value per example; log its mean",
    ),
    "a part that exits": (
        CRITIC.replace("ratio = logit(critic, z)", "raise SystemExit(0)"),
        "model.objective: experiment:Matched cannot be used (SystemExit: 0, line 28 of mine.py); correct the file",
    ),
    "an argument is missing": (
        NEAR.replace("def loss(self, terms, ctx)", "def loss(self, terms)"),
        "model.objective: experiment:Near cannot be used (TypeError: Near.loss() takes 2 positional arguments but 3 "
        "were given); correct the file",
    ),
    "a slip in a loss": (
        NEAR.replace("terms.rate - self", "terms.rte - self"),
        "model.objective: experiment:Near cannot be used (AttributeError: 'Terms' object has no attribute 'rte', line "
        "26 of mine.py); correct the file",
    ),
    "an objective that takes the mean": (
        NEAR.replace("return terms.distortion +", "return (terms.distortion +").replace(
            "distance, {", "distance).mean(), {"
        ),
        "model.objective: Near returned the shape () for 3 examples; return one loss per example, (3,)",
    ),
    "a prior that sums over the batch": (
        DENSITY + EXAMPLES["prior"].replace("return DiagGaussian(", "return Summed("),
        "model.prior: Summed.log_prob returned the shape () for 3 examples; return one log density per example, (3,)",
    ),
    "a posterior with an axis of length 1": (
        DENSITY + EXAMPLES["posterior"].replace("return DiagGaussian(", "return Kept("),
        "model.posterior: Kept.log_prob returned the shape (3, 1) for 3 examples; return one log density per example, "
        "(3,)",
    ),
    "a likelihood that keeps the channels": (
        DENSITY + EXAMPLES["likelihood"].replace("return GaussianPixels(", "return Channels("),
        "model.likelihood: Channels.log_prob returned the shape (3, 1) for 3 examples; return one log density per "
        "example, (3,)",
    ),
    "a network that raises": (
        EXAMPLES["network"].replace("return Layers(self.width, (outputs,))", 'raise RuntimeError("no\\nlayers")'),
        "model.network: experiment:Tiny cannot be used (RuntimeError: no layers, line 33 of mine.py); correct the file",
    ),
    "no model": (
        light("return 3"),
        "model: experiment:Light.build returned an int; return a vae_jax.model.Model",
    ),
    "a loss per example": (
        EXAMPLES["model"].replace("return value + self", "return batch['x'][:, 0, 0, 0] + value + self"),
        "model: the loss of a batch has the shape (3,), but it must be (); correct the class",
    ),
    "latents of another shape": (
        light(
            "return vae._replace(loss=loss, encode=lambda *a: (e := vae.encode(*a))._replace(z=e.z[:, :1]))",
        ),
        "model: the latent of 3 examples has the shape (3, 1), but it must be (3, 2); correct the class",
    ),
    "a term for the batch": (
        light(
            "return vae._replace(terms=lambda *a: {k: v.mean(0) for k, v in vae.terms(*a).items()})",
        ),
        "model: the term elbo of 3 examples has the shape (), but it must be (3,); correct the class",
    ),
    "a prior that draws one": (
        light(
            "return vae._replace(prior=vae.prior._replace(sample=lambda *a, **b: vae.prior.sample(*a, **b)[:1]))",
        ),
        "model: the latent of 3 draws from the prior has the shape (1, 2), but it must be (3, 2); correct the class",
    ),
    "a bound for the batch": (
        light(
            "return vae._replace(density=vae.density._replace(bound=lambda *a: vae.density.bound(*a).mean()))",
        ),
        "model: the bound of 3 examples has the shape (), but it must be (3,); correct the class",
    ),
    "a joint that keeps an axis": (
        light(
            "joint = lambda *a: (j := vae.density.joint(*a))._replace(log_likelihood=lambda z: [j.log_likelihood(z)])\n"
            "        return vae._replace(density=vae.density._replace(joint=joint))",
        ),
        "model: the joint's log p(x|z) of 3 examples has the shape [(3,)], but it must be (3,); correct the class",
    ),
    "a prior without draws": (
        EXAMPLES["prior"].replace("def sample(", "def samples("),
        "model.prior: experiment:Shifted cannot be used (TypeError: Shifted must define sample); correct the file",
    ),
    "a likelihood without draws": (
        DENSITY + EXAMPLES["likelihood"].replace("return GaussianPixels(", "return Undrawn("),
        "model.likelihood: experiment:Floored cannot be used (AttributeError: 'Undrawn' object has no attribute "
        "'sample'); correct the file",
    ),
    "a likelihood whose mode is another image": (
        DENSITY + EXAMPLES["likelihood"].replace("return GaussianPixels(", "return Flat("),
        "model.likelihood: the mode of 3 decoded latents has the shape (3, 64), but it must be (3, 8, 8, 1); correct "
        "the class",
    ),
    "a class for an instance": (
        EXAMPLES["network"].replace("network=Tiny()", "network=Layers"),
        "model.network: Layers is a class, but it must be a network; give one of MLP, Linear, LeNet, PooledConv, "
        "Conv64, DeepConv, Broadcast, LocalAR, ResidualConv, ViT",
    ),
    "data that raise": (
        EXAMPLES["data set"].replace("rng = np", 'raise OSError("no disk")\n        rng = np'),
        "data.name: experiment:Circle.load raised OSError: no disk for the train split; correct it",
    ),
    "an init that raises": (
        EXAMPLES["network"].replace(
            "    def encoder", "    def __post_init__(self):\n        1 / 0\n\n    def encoder"
        ),
        "mine.py: cannot be loaded (ZeroDivisionError: division by zero, line 33); correct the file",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_part_is_one_line(what, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, said = BROKEN[what]
    assert text not in EXAMPLES.values()
    Path("mine.py").write_text(text)
    assert cli(["train", "mine.py", *SMALL]) == 2
    assert capsys.readouterr().err == f"vae-jax: {said}\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.py"]


def test_no_other_axis_hides_the_batch(tmp_path):
    """A loss per channel of RGB images has the length 3, and so would one of 3 examples."""
    text = NEAR.replace("return terms.distortion + self.weight * distance", "return jnp.mean(terms.x, (0, 1, 2))")
    (tmp_path / "mine.py").write_text(text)
    config = index.load(tmp_path / "mine.py")
    with pytest.raises(InputError, match=r"Near returned the shape \(3,\) for 5 examples; return .*, \(5,\)"):
        rehearsal.built(config, vj.spec.images(4, 4, 3))
    (tmp_path / "mine.py").write_text(NEAR)  # the advice is good
    assert rehearsal.built(index.load(tmp_path / "mine.py"), vj.spec.images(4, 4, 3)).about.spec.x.shape == (4, 4, 3)


def test_a_file_for_a_module(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("sub/own_nets.py").write_text(EXAMPLES["network"])
    assert cli(["train", "vae_digits", "--model.network", "sub/own_nets.py:Tiny"]) == 2
    assert capsys.readouterr().err == (
        "vae-jax: --model.network: sub/own_nets.py is a path, but a module is needed; write own_nets:Class, with the "
        "folder of the file in PYTHONPATH\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "sub")  # the advice is good
    assert vj.experiment("vae_digits", **{"model.network": "own_nets:Tiny"}).model.network.width == 32
    del sys.modules["own_nets"]


def test_a_changed_file_does_not_resume(lives, tmp_path, capsys, monkeypatch):
    file, made = lives("objective")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "write_all", lambda *args, **options: [])
    shutil.copytree(made, "run")
    Path(file.name).write_text(file.read_text() + "\n# changed\n")
    words = ["train", file.name, "--resume", "--workdir", "run", "--steps", "3", "--quiet"]
    assert cli(words) == 2
    assert capsys.readouterr().err == (
        "vae-jax: objective.py: is not the code that run was made with; continue the run as it is with `vae-jax train "
        "--resume run`, or train the file with `vae-jax train objective.py --init-from run`\n"
    )
    assert cli(["train", file.name, "--init-from", "run", "--workdir", "next", *SMALL]) == 0
    shutil.copy(file, file.name)
    assert cli(words) == 0


def test_a_changed_file_beside_it_does_not_resume(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "write_all", lambda *args, **options: [])
    file = beside(tmp_path / "a", 3)
    assert cli(["train", "a/mine.py", *SMALL, "--workdir", "run"]) == 0
    words = ["train", "a/mine.py", "--resume", "--workdir", "run", "--steps", "3", "--quiet"]

    def refused(changed):
        capsys.readouterr()
        assert cli(words) == 2
        assert capsys.readouterr().err == (
            f"vae-jax: a/{changed}.py: is not the code that run was made with; continue the run as it is with `vae-jax "
            "train --resume run`, or train the file with `vae-jax train a/mine.py --init-from run`\n"
        )

    helpers, late = (file.with_name(f"{name}.py") for name in ("helpers", "late"))
    held = helpers.read_text()
    helpers.write_text(held.replace("WIDTH = 3", "WIDTH = 5"))
    refused("helpers")
    assert cli(["train", "a/mine.py", "--init-from", "run", "--workdir", "next", *SMALL]) == 0  # the advice is good
    assert cli(["train", "--resume", "run", "--steps", "3", "--quiet"]) == 0
    assert Run.load("run").config.model.network.width == 3
    helpers.write_text(held)
    late.rename(late.with_suffix(".gone"))  # imported by a function, so that the loss is not seen at import
    refused("late")
    late.with_suffix(".gone").rename(late)
    assert cli([*words[:-2], "4", "--quiet"]) == 0
