"""Options and arguments of a wrong type, from Python: one line that says what to write, and nothing written."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import support
from test_cli_look import config

import vae_jax as vj
from vae_jax import spec
from vae_jax.errors import InputError
from vae_jax.evaluation.settings import Settings
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.runs import config as configs
from vae_jax.runs import experiments as index
from vae_jax.runs.config import Config
from vae_jax.runs.config_json import to_dict
from vae_jax.runs.run import Run
from vae_jax.schedules import Linear

ANY = object()
# option, wrong value, what the message says, what it says to write (ANY: an example, not what was meant).
WRONG: list[tuple[str, Any, str, Any]] = [
    ("data.dequantize", "False", "'False' is text, but it must be True or False; write False without quotes", False),
    ("data.dequantize", 0, "0 is a whole number, but it must be True or False; write False", False),
    ("logging.tensorboard", "yes", "'yes' is text, but it must be True or False; write True, for example", True),
    ("steps", 1e4, "10000.0 is a real number, but it must be a whole number; write 10000", 10_000),
    ("steps", "100", "'100' is text, but it must be a whole number; write 100 without quotes", 100),
    ("steps", True, "True is a truth value, but it must be a whole number; write 1", 1),
    ("steps", np.float64(2.5), "2.5 is a real number, but it must be a whole number; write 10000, for example", 10_000),
    ("seed", None, "None is nothing, but it must be a whole number; write 0, for example", 0),
    ("optimizer.lr", "0.5", "'0.5' is text, but it must be a number; write 0.5 without quotes", 0.5),
    ("optimizer.lr", False, "False is a truth value, but it must be a number; write 0.0", ANY),
    ("optimizer.lr", float("nan"), "nan is not a number that can be used; optimizer.lr must be positive", ANY),
    ("optimizer.lr", np.inf, "inf is not a number that can be used; optimizer.lr must be positive", ANY),
    (
        "model.likelihood.min_log_std",
        -np.inf,
        "-inf is not a number that can be used; model.likelihood.min_log_std must be finite",
        ANY,
    ),
    ("data.limit", "ten", "'ten' is text, but it must be a whole number or None; write 10, for example", 10),
    ("data.name", 3, "3 is a whole number, but it must be text; write 'sprites', for example", "sprites"),
    ("data.binarize", "dynamc", "'static', 'threshold'; did you mean 'dynamic'?", "dynamic"),
    ("optimizer.schedule.kind", "cosin", "'warmup-cosine', 'step'; did you mean 'cosine'?", "cosine"),
    ("evaluation.split", "tset", "did you mean 'test'?", "test"),
    ("model.network.hidden", 8, "8 is a whole number, but it must be a tuple of whole numbers; write (8,)", (8,)),
    ("model.network.hidden", "8", "'8' is text, but it must be a tuple of whole numbers; write (8,)", (8,)),
    (
        "optimizer.schedule.milestones",
        (1, 2.5),
        "milestones[1]: 2.5 is a real number, but it must be a whole number",
        ANY,
    ),
    ("optimizer.schedule.milestones", (-1,), "-1 is out of range; it must be steps of 0 or more", (0,)),
    ("expected", {"elbo": (1, 2)}, "elbo: give (value, tolerance of 0 or more, source)", {"elbo": (0.5, 0.5, "text")}),
    ("expected", {"elbo": (1, 2, "x", "over")}, "'at least' or 'at most' as a", {"elbo": (0.5, 0.5, "x", "at most")}),
    ("expected", {"elbo": (np.nan, 2, "x")}, "elbo: give (value, tolerance of 0 or more, source)", ANY),
    ("expected", [1], "write {'name': (0.5, 0.5, 'text')}, for example", {"name": (0.5, 0.5, "text")}),
    ("model.network", "mlp", "'mlp' is text, but it must be a network itself; give MLP()", MLP()),
    ("model.network", MLP, "is a class, but it must be a network itself; give MLP()", MLP()),
    ("model.network", Linear(), "but it must be a network; give one of MLP, Linear, LeNet", MLP()),
    (
        "model.objective.schedule",
        "lineer",
        "but it must be a schedule; give one of Constant, Linear, Cyclical",
        Linear(),
    ),
    ("model", None, "None is nothing, but it must be a model; give one of VAE, Autoencoder", VAE()),
    (
        "data",
        {"name": "digits"},
        "it must be a DataConfig; give DataConfig(), for example",
        vj.DataConfig("digits"),
    ),
]


@pytest.mark.parametrize(
    ("option", "wrong", "said", "right"), WRONG, ids=lambda v: "" if type(v) is object else repr(v)[:40]
)
def test_a_wrong_type_is_refused_with_what_to_write(option, wrong, said, right):
    base = configs.choose(Config(), "model.likelihood", "gaussian-learned")
    with pytest.raises(InputError) as error:
        configs.check(configs.put(base, option, wrong))
    text = str(error.value)
    assert text.startswith(option)
    assert said in text
    assert "\n" not in text
    if right is not ANY:  # and what it says to write is taken
        assert configs.get(configs.check(configs.put(base, option, right)), option) == right


@pytest.mark.parametrize(
    ("option", "given", "plain"),
    [
        ("steps", np.int64(5), 5),
        ("steps", jnp.int32(5), 5),
        ("optimizer.lr", np.float64(0.25), 0.25),
        ("optimizer.lr", 1, 1.0),
        ("logging.tensorboard", np.bool_(False), False),
        ("data.source", Path("a") / "b", "a/b"),
        ("data.source", np.str_("x"), "x"),
        ("model.network.hidden", [8, np.int32(9)], (8, 9)),
        ("model.network.hidden", np.array([8, 9]), (8, 9)),
        ("expected", {"elbo": [1, np.float64(2), "x"]}, {"elbo": (1.0, 2.0, "x")}),
    ],
)
def test_numpy_numbers_paths_and_lists_become_plain(option, given, plain):
    checked = configs.check(configs.put(Config(), option, given))
    found = configs.get(checked, option)
    assert found == plain
    assert type(found) is type(plain)
    json.dumps(to_dict(checked))


@pytest.mark.parametrize("name", index.all_experiments())
def test_experiments_are_what_their_hints_say(name):
    config = index.load(index.find(name))
    assert configs.check(config) is config


def test_a_run_is_made_of_plain_values_or_not_at_all(tmp_path):
    small = vj.experiment("vae_digits", **{"model.network.hidden": (8,), "model.latent_dim": 2}).shrink()
    given = configs.put(configs.put(small, "seed", np.int64(3)), "evaluation.k", [np.int32(2)])
    run = vj.train_run(given, np.str_(tmp_path / "run"), quiet=True)
    assert Run.load(run.path).config == configs.put(configs.put(small, "seed", 3), "evaluation.k", (2,))
    for option, wrong in (("data.dequantize", "False"), ("optimizer.schedule.kind", "cosin"), ("steps", np.float64(2))):
        with pytest.raises(InputError, match=option):
            vj.train_run(configs.put(small, option, wrong), tmp_path / "none", quiet=True)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


BAD_CALLS: list[tuple[dict[str, Any], str]] = [
    ({"config": "vae_digits"}, "config: 'vae_digits' is not a Config; make one with vj.experiment"),
    ({"workdir": 3}, "workdir: 3 is a whole number, but it must be text or None"),
    ({"workdir": ""}, "workdir: '' is no folder"),
    ({"name": None}, "name: None is nothing, but it must be text; write 'custom', for example"),
    ({"resume": "False"}, "resume: 'False' is text, but it must be True or False; write False without quotes"),
    ({"quiet": 1}, "quiet: 1 is a whole number, but it must be True or False; write True"),
]


@pytest.mark.parametrize(("change", "said"), BAD_CALLS)
def test_arguments_of_train_run(change, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        vj.train_run(**({"config": vj.experiment("vae_digits").shrink(), "quiet": True} | change))
    assert str(error.value).startswith(said)
    assert list(tmp_path.iterdir()) == []


BAD_SWEEPS: list[tuple[dict[str, Any], str]] = [
    ({"seeds": (1, 1)}, "seeds: 1 is listed twice, which would count one run as two; give each once"),
    ({"seeds": 3}, "seeds: 3 is a whole number, but it must be a tuple of whole numbers; write (3,)"),
    ({"seeds": "0:8"}, "seeds: '0:8' is text, but it must be a tuple of whole numbers; write (10,), for example"),
    ({"seeds": (0, True)}, "seeds[1]: True is a truth value, but it must be a whole number; write 1"),
    ({"seeds": (0, -1)}, "seed: -1 is out of range"),
    ({"seeds": ()}, "--seeds: none given"),
    ({"vary": {"optimizer.lr": (0.1, 0.1)}}, "vary['optimizer.lr']: 0.1 is listed twice; give each value once"),
    ({"vary": {"optimizer.lr": (1, 1.0)}}, "--vary optimizer.lr: 1 and 1.0 are the same value here"),
    ({"vary": {"optimizer.lr": ()}}, "vary['optimizer.lr']: there are no values"),
    ({"vary": {"optimizer.lr": "0.1,0.2"}}, "vary['optimizer.lr']: '0.1,0.2' is text"),
    ({"vary": {"optimizer.lr": ("0.1",)}}, "optimizer.lr: '0.1' is text, but it must be a number; write 0.1 without"),
    ({"vary": {"seed": (1, 2)}}, "vary: seed is not varied but listed apart; write seeds=range(8), for example"),
    ({"vary": ["optimizer.lr"]}, "vary: ['optimizer.lr'] is not a dict"),
    ({"metrics": "elbo"}, "metrics: 'elbo' is text, but it must be a tuple of texts; write ('elbo',)"),
    ({"strategy": "vmapp"}, "strategy: 'vmapp' is text, but it must be one of 'vmap', 'map'; did you mean 'vmap'?"),
    ({"workdir": 1.5}, "workdir: 1.5 is a real number"),
    ({"resume": "no"}, "resume: 'no' is text, but it must be True or False"),
    ({"steps": "5"}, "steps: '5' is text, but it must be a whole number; write 5 without quotes"),
]


@pytest.mark.parametrize(("change", "said"), BAD_SWEEPS, ids=lambda v: repr(v)[:50])
def test_arguments_of_sweep(change, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        vj.sweep("vae_digits", quiet=True, **change)
    assert str(error.value).startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_seeds_of_numpy_are_seeds(monkeypatch):
    made: list = []
    monkeypatch.setattr("vae_jax.api.run_sweep", lambda what, *a, **k: made.append(what) or ({}, None))
    vj.sweep("vae_digits", seeds=np.arange(2), vary={"optimizer.lr": np.array([0.1, 0.2])})
    (what,) = made
    assert what.seeds == (0, 1)
    assert all(type(seed) is int for seed in what.seeds)
    assert what.vary == {"optimizer.lr": ("0.1", "0.2")}
    assert [type(m.config.optimizer.lr) for m in what.members] == [float] * 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = Run.create(tmp_path_factory.mktemp("runs") / "run", "tiny", config(VAE(3, MLP((8,)))), spec.images(8, 8, 1))
    support.checkpoint(run)
    return run


BAD_EVALUATIONS: list[tuple[dict[str, Any], str]] = [
    ({"metrics": "elbo"}, "metrics: 'elbo' is text, but it must be a tuple of texts; write ('elbo',)"),
    ({"k": 10}, "k: 10 is a whole number, but it must be a tuple of whole numbers; write (10,)"),
    ({"limit": "100"}, "limit: '100' is text, but it must be a whole number or None; write 100 without quotes"),
    ({"batch_size": 8.0}, "batch_size: 8.0 is a real number, but it must be a whole number or None; write 8"),
    ({"seed": None}, "seed: None is nothing, but it must be a whole number; write 0, for example"),
    ({"step": "last"}, "step: 'last' is text"),
    ({"split": 3}, "split: 3 is a whole number, but it must be text or None; write 'test', for example"),
    ({"out": 3}, "out: 3 is a whole number"),
    ({"settings": {"chainz": 3}}, "settings: no setting 'chainz'; did you mean 'chains'?"),
    ({"settings": {"chains": "3"}}, "settings.chains: '3' is text, but it must be a whole number; write 3 without"),
]


@pytest.mark.parametrize(("change", "said"), BAD_EVALUATIONS, ids=lambda v: repr(v)[:50])
def test_arguments_of_evaluate_run(run, change, said):
    with pytest.raises(InputError) as error:
        vj.evaluate_run(run, **change)
    assert str(error.value).startswith(said)
    assert not (run.path / "eval.json").exists()


def test_paths_and_lists_are_taken(run, tmp_path):
    out = str(tmp_path / "e.json")
    given = {"k": [np.int64(2)], "limit": np.int64(20), "settings": {"samples": np.int64(30)}}
    given["metrics"] = ["elbo", "iwae", "mmd"]
    found = vj.evaluate_run(str(run.path), out=out, **given)
    assert {"elbo", "iw_2", "mmd_polynomial"} <= found["metrics"].keys()
    assert found["metrics"]["elbo"]["n"] == 20
    assert json.loads(Path(out).read_text())["metrics"] == found["metrics"]


def test_settings_are_what_their_hints_say():
    from vae_jax.options.typed import conform_fields

    assert conform_fields(Settings(), {}) == Settings()
