"""Which options there are, which test covers each, and small runs to try them on.

A test says what it covers with `@covers("sample", "seed")`, and fails unless it gave the option to the command. That
every option of every command has such a test is checked by test_options_complete.py.
"""

import dataclasses
import functools
import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import support

from vae_jax import data, prng
from vae_jax.cli import main, sweep, train
from vae_jax.cli.listing import DataList, Prepare
from vae_jax.cli.options import option_names, parse_config
from vae_jax.data.config import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.priors import Normal
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.runs.run import Run
from vae_jax.runs.training_data import spec_of

# (command, option) -> names of the tests that cover it; filled when their files are imported.
COVERED: dict[tuple[str, str], list[str]] = {}
# (command, option) of every command line since the running test began.
_given: set[tuple[str, str]] = set()
# Commands with several verbs: each verb counts as a command.
VERBS = {"data": {"list": DataList, "prepare": Prepare}}


def run_options() -> dict[str, tuple[str, ...]]:
    """Returns the options that the commands with parsers of their own read beside those of a Config."""
    both = (*train.FLAGS, "--workdir", "--data")
    return {"train": (*both, *train.RUNS), "sweep": (*both, *sweep.OWN)}


def every_option() -> set[tuple[str, str]]:
    """Returns (command, option) for each command of the table; an option of `train` is a leaf of Config.

    Options of components (`model.prior.std`) are those of the table in test_options_components.py.
    """
    found: set[tuple[str, str]] = set()
    for command, (home, _) in main.COMMANDS.items():
        module, _, attribute = home.partition(":")
        target = getattr(importlib.import_module(module), attribute)
        if isinstance(target, type):
            found |= {(command, name) for name in option_names(target)}
        elif command in VERBS:
            for verb, cls in VERBS[command].items():
                names = ("from" if name == "source" else name for name in option_names(cls))
                found |= {(f"{command} {verb}", name) for name in names}
        else:
            # A new command that parses its own words must say here what it reads.
            found |= {(command, name.removeprefix("--")) for name in run_options()[command]}
    top = Config()
    found |= {("train", name) for name in option_names(top) if not name.startswith("model.")}
    return found


def covers(command: str, *options: str):
    """Returns a decorator that notes what a test covers and fails it if the command was not given these options."""

    def note(test):
        for option in options:
            COVERED.setdefault((command, option), []).append(f"{test.__module__}.{test.__name__}")

        @functools.wraps(test)
        def checked(*args, **kwargs):
            _given.clear()
            test(*args, **kwargs)
            left = [option for option in options if (command, option) not in _given]
            assert not left, f"{test.__name__} does not give {command} the options {left}"

        return checked

    return note


def cli(*words) -> int:
    """Runs a command line in this process, notes its options, and returns the exit code."""
    words = [str(word) for word in words]
    command = " ".join(words[:2]) if words[0] in VERBS else words[0]
    options = (word.partition("=")[0][2:].replace("_", "-") for word in words if word.startswith("--"))
    _given.update((command, option) for option in options)
    return main.run(words)


def parsed(*words, start: Config | None = None) -> Config:
    """Returns the config that `vae-jax train` makes of options, by default of `tiny`, and notes the options."""
    texts = [str(word) for word in words]
    _given.update(("train", word[2:].replace("_", "-")) for word in texts if word.startswith("--"))
    return parse_config(start or tiny(), texts, "vae-jax train")


def done(*words) -> None:
    """Runs a command line that must succeed."""
    assert cli(*words) == 0


def arrays(*words, out: Path) -> dict[str, np.ndarray]:
    """Runs a command with --out to an .npz and returns what it wrote."""
    out.unlink(missing_ok=True)
    done(*words, "--out", out)
    with np.load(out) as held:
        return {name: held[name] for name in held.files}


def numbers(*words, out: Path) -> dict:
    """Runs a command with --out to a new JSON file and returns its content."""
    out.unlink(missing_ok=True)
    done(*words, "--out", out)
    return json.loads(out.read_text())


def tiny(model=None, **options) -> Config:
    """Returns a config of a tiny model on digits; `options` are dotted."""
    config = Config(
        4,
        data=DataConfig("digits", batch_size=8),
        model=model or VAE(3, MLP((8,)), prior=Normal(0.5, 2.0)),
        evaluation=Evaluation(batch_size=64),
        logging=Logging(1),
    )
    for option, value in options.items():
        config = configs.put(config, option, value)
    return config


def perturbed(state, seed: int, scale: float = 0.4):
    """Returns the state with noise added to every parameter, and other noise to a moving average."""

    def move(tree, key):
        leaves, structure = jax.tree.flatten(tree)
        noise = [scale * jax.random.normal(jax.random.fold_in(key, i), x.shape) for i, x in enumerate(leaves)]
        return jax.tree.unflatten(structure, [x + e for x, e in zip(leaves, noise, strict=True)])

    ema = None if state.ema is None else move(state.ema, jax.random.key(seed + 1000))
    return dataclasses.replace(state, params=move(state.params, jax.random.key(seed)), ema=ema)


def make(folder: Path, config: Config, steps: tuple[int, ...] = (2, 4), experiment: str = "tiny") -> Run:
    """Returns a run whose checkpoints at `steps` hold different weights, none of them trained."""
    source = data.load(config.data, "train")
    run = Run.create(folder, experiment, config, spec_of(source))
    for step in steps:
        support.checkpoint(run, step, perturbed(run.init(), step))
    line = {"step": steps[-1], "split": "train", "elbo": -40.0, "distortion": 39.0, "rate": 1.0, "beta": 1.0}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return run


def posterior(run: Run, state, split: str, rows, key=None):
    """Returns q(z|x) of rows of a split by the model itself, its mean, and a draw with the noise of `encode`."""
    batch = run.examples(split, np.asarray(rows))
    q = run.model.encode(state.eval_params, state.model_state, None, batch).posterior
    if key is None:
        return q
    return q, q.sample(prng.example_keys(prng.site_key(key, "posterior"), jnp.asarray(rows)))


def mean_codes(run: Run, state, split: str, rows) -> np.ndarray:
    """Returns the mean codes [B, D] of rows of a split, by the model itself."""
    batch = run.examples(split, np.asarray(rows))
    return np.asarray(run.model.encode(state.eval_params, state.model_state, None, batch).z)


def decoded(run: Run, state, z, cond=None) -> np.ndarray:
    """Returns E[x|z] of codes [..., D] by the model itself."""
    z = np.asarray(z, np.float32)
    flat = jnp.asarray(z.reshape(-1, z.shape[-1]))
    images = np.asarray(run.model.decode(state.eval_params, state.model_state, flat, cond=cond).mean())
    return images.reshape(*z.shape[:-1], *images.shape[1:])


def differ(a, b) -> bool:
    """Says whether two arrays of one shape differ visibly."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    return float(np.abs(a - b).max()) > 1e-3


def close(got, want, atol: float = 2e-5) -> None:
    """Asserts equality to float tolerance."""
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=1e-4, atol=atol)
