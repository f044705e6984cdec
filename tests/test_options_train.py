"""Every option of train and sweep beside those of data and components: steps, optimizers, logs, meshes, flags."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from options import cli, close, covers, differ, done, parsed, tiny

from vae_jax import prng, train
from vae_jax.cli import main
from vae_jax.data import pipeline
from vae_jax.errors import InputError
from vae_jax.model import Context
from vae_jax.objectives import Factor
from vae_jax.runs.run import Run
from vae_jax.tasks import training

EXPERIMENT = '''"""A tiny experiment."""

from vae_jax.runs.config import Config, Logging
from vae_jax.data import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.train import MeshConfig


def get_config() -> Config:
    data, model = DataConfig("digits", batch_size=8), VAE(3, MLP((8,)))
    return Config(4, data=data, model=model, logging=Logging(1, 2), mesh=MeshConfig(data=1))
'''


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Returns an experiment's file in the current folder; pictures are not drawn, but their steps are noted."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    return tmp_path / "tiny.py"


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    found: list[int] = []
    monkeypatch.setattr("vae_jax.figures.write_all", lambda path, model, state, *a, **kw: found.append(int(state.step)))
    return found


def opened(config, path="nowhere"):
    """Returns (a run of this config that is in no folder, its training split)."""
    source, about = training.prepare(config)
    return Run(Path(path), "tiny", config, about), source


def stepped(config, n=1):
    """Returns (state before, state after n steps, metrics, run) as training makes them."""
    run, source = opened(config)
    state = run.init()
    before = jax.device_get(jax.tree.map(lambda x: x, (state.params, state.ema)))
    advance = training.make_feed(run, source, state).advance(state, n)
    return before, advance.state, jax.device_get(advance.metrics), run


def lines(folder, split="train"):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if row["split"] == split]


def checkpoints(folder):
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit())


# ---- runs


@covers("train", "workdir", "quiet")
def test_a_run_by_default(experiment, capsys, pictures):
    done("train", experiment, "--workdir", "here", "--quiet")
    folder = experiment.parent / "here"
    said = capsys.readouterr().out
    assert "parameters" not in said
    assert "elbo" in said
    assert lines(folder) == [1, 2, 3, 4]
    assert lines(folder, "validation") == []
    assert checkpoints(folder) == [2, 4]
    assert (folder / "tensorboard").is_dir()
    assert pictures == [4]
    result = json.loads((folder / "eval.json").read_text())
    assert (result["split"], result["protocol"]["n"], result["protocol"]["importance_samples"]) == ("test", 180, [])
    assert not (experiment.parent / "runs").exists()
    # Without --workdir: into runs/, and not quietly.
    done("train", experiment, "--steps", 1, "--evaluation.limit", 8)
    assert "parameters" in capsys.readouterr().out
    assert (experiment.parent / "runs" / "tiny" / "eval.json").is_file()


@covers(
    "train",
    "steps",
    "logging.log-every",
    "logging.checkpoint-every",
    "logging.keep",
    "logging.eval-every",
    "logging.tensorboard",
    "logging.figures-minutes",
    "evaluation.split",
    "evaluation.batch-size",
    "evaluation.k",
    "evaluation.limit",
    "expected",
)
def test_a_run_with_other_logs_and_another_evaluation(experiment, monkeypatch, pictures):
    sizes, made = [], pipeline.examples
    monkeypatch.setattr(pipeline, "examples", lambda s, c, i, **kw: sizes.append(len(i)) or made(s, c, i, **kw))
    words = ["--steps", 7, "--logging.log-every", 3, "--logging.checkpoint-every", 2, "--logging.keep", 1]
    words += ["--logging.eval-every", 4, "--logging.tensorboard", "False", "--logging.figures-minutes", 1e-9]
    words += ["--evaluation.split", "train", "--evaluation.batch-size", 70, "--evaluation.k", 2, 3]
    words += ["--evaluation.limit", 90, "--expected", "elbo", -1000, 1, "mine"]
    done("train", experiment, "--workdir", "run", "--quiet", *words)
    folder = experiment.parent / "run"
    assert lines(folder) == [3, 6, 7]
    assert lines(folder, "validation") == [4]
    assert checkpoints(folder) == [7]
    assert not (folder / "tensorboard").exists()
    assert len(pictures) > 2
    assert pictures[-1] == 7
    # Of the validation split at step 4, and of the training split at the end.
    assert [n for n in sizes if n != 256] == [70, 20, 70, 20]
    result = json.loads((folder / "eval.json").read_text())
    assert (result["split"], result["protocol"]["n"], result["protocol"]["importance_samples"]) == ("train", 90, [2, 3])
    assert {"iw_2", "iw_3"} <= result["metrics"].keys()
    assert result["expected"]["elbo"] == {"value": -1000.0, "tolerance": 1.0, "source": "mine", "pass": False}
    assert result["pass"] is False


@covers("train", "logging.best", "patience")
def test_the_best_checkpoint_and_patience(tmp_path, capsys):
    words = ["train", "vae_digits", "--workdir", tmp_path / "run", "--steps", 8, "--model.network.hidden", 8]
    words += ["--logging.eval-every", 1, "--logging.best", "elbo", "--patience", 1, "--optimizer.lr", 1e-12]
    words += ["--evaluation.k", "--evaluation.limit", 20]
    done(*words)
    out = capsys.readouterr().out
    assert "ended at step" in out
    assert f"`vae-jax eval {tmp_path / 'run'} --step best`" in out
    assert Run.load(tmp_path / "run").newest_step < 8


@covers("train", "resume", "smoke")
def test_smoke_makes_two_steps_and_resume_goes_on(experiment, capsys):
    done("train", experiment, "--workdir", "run", "--smoke")
    folder = experiment.parent / "run"
    assert lines(folder) == [1, 2]
    assert json.loads((folder / "eval.json").read_text())["protocol"]["n"] == 16
    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    capsys.readouterr()
    assert main.run(["train", str(experiment), "--workdir", "run", "--smoke"]) == 2
    assert "already there" in capsys.readouterr().err
    done("train", experiment, "--workdir", "long")
    done("train", "--resume", "long", "--steps", 6)
    assert "resuming long at step 4" in capsys.readouterr().out
    assert lines(experiment.parent / "long") == [1, 2, 3, 4, 5, 6]
    assert first["step"] == 1


@covers("train", "init-from")
def test_a_run_begins_with_the_weights_of_another(experiment):
    done("train", experiment, "--workdir", "first", "--quiet", "--seed", 5)
    done("train", experiment, "--workdir", "second", "--quiet", "--init-from", "first", "--optimizer.lr", 1e-12)
    states = [Run.load(experiment.parent / name).restore() for name in ("first", "second")]
    for a, b in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    assert lines(experiment.parent / "second") == [1, 2, 3, 4]


@covers("train", "distributed")
def test_distributed_initializes_the_processes_before_anything_is_written(experiment, monkeypatch, capsys):
    def initialize():
        raise InputError("initialized")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    assert cli("train", experiment, "--distributed", "--smoke", "--workdir", "run") == 2
    assert capsys.readouterr().err == "vae-jax: initialized\n"
    assert not (experiment.parent / "run").exists()
    # Without it nothing is initialized: the other runs of this file would fail.


# ---- one step


@covers("train", "seed")
def test_the_seed_decides_weights_and_order():
    states = {}
    for seed in (0, 1):
        before, state, _, run = stepped(parsed("--seed", seed, "--mesh.data", 1))
        want, _ = run.model.init(*_init_key(seed), run.example_batch())
        for a, b in zip(jax.tree.leaves(before[0]), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
        states[seed] = jax.tree.leaves(jax.device_get(state.params))
    _, again, _, _ = stepped(parsed("--mesh.data", 1))
    for a, b in zip(states[0], jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(differ(a, b) for a, b in zip(states[0], states[1], strict=True))


def _init_key(seed):
    return (prng.site_key(jax.random.key(seed), "init"),)


@covers("train", "ema-decay")
def test_the_moving_average_moves_by_its_decay():
    before, state, _, run = stepped(parsed("--ema-decay", 0.75, "--mesh.data", 1))
    for old, new, ema in zip(*(jax.tree.leaves(x) for x in (before[0], state.params, state.ema)), strict=True):
        close(ema, 0.75 * old + 0.25 * np.asarray(new), atol=1e-6)
    assert jax.tree.leaves(state.eval_params)[0] is jax.tree.leaves(state.ema)[0]
    assert run.config.ema_decay == 0.75
    assert stepped(parsed("--mesh.data", 1))[1].ema is None


@covers("train", "accumulate")
def test_accumulated_gradients_are_means_over_microbatches():
    words = ["--model.likelihood", "gaussian-optimal", "--mesh.data", 1]
    found = {}
    for count in (1, 4):
        before, _, metrics, run = stepped(parsed(*words, "--accumulate", count))
        source = run.source("train")
        state = run.init()
        batch = pipeline.make_batch_fn(source, run.config.data)(
            dict(source.arrays), prng.site_key(state.key, "data"), 0
        )
        key, losses = prng.step_key(state.key, jnp.int32(0)), []
        for part in range(count):
            index = jnp.arange(8, dtype=jnp.int32)[part::count]
            own = {name: value[part::count] for name, value in batch.items()}
            hyper = {name: jnp.float32(value) for name, value in run.model.training.hyper.items()}
            losses.append(run.model.loss(before[0], state.model_state, key, own, Context(0, index, hyper, True))[0])
        close(metrics["loss"], np.mean(losses), atol=1e-3)
        found[count] = float(metrics["loss"])
    # A variance is fitted to each microbatch, so that the loss itself shows how many there were.
    assert abs(found[1] - found[4]) > 1e-3


@covers("train", "mesh.data", "mesh.fsdp")
def test_the_mesh_splits_batch_and_parameters():
    run, _ = opened(parsed("--mesh.data", 2, "--mesh.fsdp", 4, "--model.network.hidden", 1024))
    assert dict(run.mesh.shape) == {"data": 2, "fsdp": 4}
    kernel = max(jax.tree.leaves(run.init().params), key=lambda x: x.size)
    assert {shard.data.size for shard in kernel.addressable_shards} == {kernel.size // 4}
    run, _ = opened(parsed())
    assert dict(run.mesh.shape) == {"data": 8, "fsdp": 1}


# ---- optimizers: updates of fixed gradients against optax

LR, STEPS = 1e-3, 6


def decayed(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


def adam(rate=LR, **kwargs):
    return optax.adam(rate, **kwargs)


def warm(main):
    return optax.join_schedules([optax.linear_schedule(0.0, LR, 3), main], [3])


# option -> (words of all that is set, the same by optax). The last option of the words is the one that is tested.
OPTIMIZERS = {
    "name": (["name", "sgd"], lambda: optax.sgd(LR, momentum=0.9)),
    "name=adamw": (["weight-decay", 0.3, "name", "adamw"], lambda: optax.adamw(LR, weight_decay=0.3, mask=decayed)),
    "name=adamax": (["name", "adamax"], lambda: optax.adamax(LR)),
    "name=rmsprop": (
        ["name", "rmsprop"],
        lambda: optax.chain(optax.scale_by_rms(0.999, 1e-8), optax.trace(0.9), optax.scale(-LR)),
    ),
    "lr": (["lr", 0.02], lambda: adam(0.02)),
    "clip": (["name", "sgd", "clip", 0.1], lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(LR, 0.9))),
    "weight-decay": (["weight-decay", 0.3], lambda: optax.chain(optax.add_decayed_weights(0.3, decayed), adam())),
    "b1": (["b1", 0.3], lambda: adam(b1=0.3)),
    "b2": (["b2", 0.6], lambda: adam(b2=0.6)),
    "eps": (["eps", 0.5], lambda: adam(eps=0.5)),
    "schedule.kind": (["schedule.kind", "cosine"], lambda: adam(optax.cosine_decay_schedule(LR, STEPS))),
    "schedule.final": (
        ["schedule.kind", "cosine", "schedule.final", 0.4],
        lambda: adam(optax.cosine_decay_schedule(LR, STEPS, 0.4)),
    ),
    "schedule.warmup-steps": (
        ["schedule.warmup-steps", 3],
        lambda: adam(warm(optax.constant_schedule(LR))),
    ),
    "schedule.kind=warmup-cosine": (
        ["schedule.warmup-steps", 3, "schedule.kind", "warmup-cosine"],
        lambda: adam(warm(optax.cosine_decay_schedule(LR, STEPS - 3))),
    ),
    "schedule.milestones": (
        ["schedule.kind", "step", "schedule.milestones", 2, 4],
        lambda: adam(optax.piecewise_constant_schedule(LR, {2: 0.1, 4: 0.1})),
    ),
    "schedule.factor": (
        ["schedule.kind", "step", "schedule.milestones", 2, "schedule.factor", 0.5],
        lambda: adam(optax.piecewise_constant_schedule(LR, {2: 0.5})),
    ),
}


def moved(tx, params):
    """Returns the parameters after STEPS updates of gradients that are the same for every optimizer."""
    state = tx.init(params)
    for step in range(STEPS):
        keys = jax.random.split(jax.random.key(step), len(jax.tree.leaves(params)))
        leaves = [jax.random.normal(k, x.shape) for k, x in zip(keys, jax.tree.leaves(params), strict=True)]
        grads = jax.tree.unflatten(jax.tree.structure(params), leaves)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def optimized(group, words):
    """Returns (parameters of the other group after the updates, those of this one, its start) under options."""
    from vae_jax.networks import MLP

    model = dataclasses.replace(tiny().model, network=MLP((2,)), objective=Factor(hidden=(2,)))
    start = tiny(model, steps=STEPS, **{f"{group}.lr": LR, f"{group}.b1": 0.9})
    words = [f"--{group}.{w}".replace("_", "-") if str(w).partition(".")[0] in KNOWN else w for w in words]
    run, _ = opened(parsed("--mesh.data", 1, *words, start=start))
    params = jax.tree.map(lambda x: x + 0.5, run.init().params)
    after = moved(run.optimizer, params)
    mine, other = ("critic", "vae") if group == "critic_optimizer" else ("vae", "critic")
    return after[other], after[mine], params[mine], params


@functools.cache
def unchanged(group):
    """Returns the same without options."""
    return optimized(group, [])


KNOWN = {f.name.replace("_", "-") for f in dataclasses.fields(train.Optimizer)}


def check_optimizer(group, option):
    words, reference = OPTIMIZERS[option]
    other, got, start, params = optimized(group, words)
    usual, default, _, _ = unchanged(group)

    def alone(params):
        """The reference sees the gradients that its group gets."""
        mine = "critic" if group == "critic_optimizer" else "vae"
        tx = optax.partition({"own": reference(), "rest": optax.set_to_zero()}, _labels(mine))
        return moved(tx, params)[mine]

    want = alone(params)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
    moves = [jax.tree.map(lambda a, b: a - b, x, start) for x in (got, default)]
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(moves[1]))
    change = max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, moves), strict=True))
    assert change > 0.02 * largest
    # The other group has its own optimizer.
    for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(usual), strict=True):
        np.testing.assert_array_equal(a, b)


def _labels(mine):
    return lambda params: {g: jax.tree.map(lambda _, g=g: "own" if g == mine else "rest", t) for g, t in params.items()}


def _make(group, option):
    name = option.partition("=")[0]

    @covers("train", f"{group.replace('_', '-')}.{name}")
    def test():
        check_optimizer(group, option)

    test.__name__ = f"test_{group}_{option}"
    return test


for _group in ("optimizer", "critic_optimizer"):
    for _option in OPTIMIZERS:
        _name = f"test_{_group}_{_option.replace('.', '_').replace('=', '_').replace('-', '_')}"
        globals()[_name] = _make(_group, _option)


# ---- sweep


@covers("sweep", "seeds", "vary", "metrics", "strategy", "workdir", "quiet", "smoke", "data")
def test_a_sweep_is_every_value_with_every_seed(experiment, capsys, monkeypatch):
    from vae_jax.tasks.sweeps import run as sweeps

    asked, group = [], sweeps.train_group
    monkeypatch.setattr(sweeps, "train_group", lambda *a, **kw: asked.append(kw["strategy"]) or group(*a, **kw))
    monkeypatch.setattr("vae_jax.figures.sweep.write_sweep", lambda *a, **kw: None)
    words = ["--seeds", "3:5", "--vary", "model.prior.std=1,2", "--metrics", "rate,iw_2", "--strategy", "map"]
    images = np.random.default_rng(0).integers(0, 256, (90, 8, 8, 1), dtype=np.uint8)
    np.savez(experiment.parent / "mine.npz", images=images)
    words += ["--data", "mine.npz"]
    done("sweep", experiment, *words, "--workdir", "many", "--quiet", "--smoke", "--model.latent-dim", 2)
    said = capsys.readouterr().out
    assert "members (" not in said
    folder = experiment.parent / "many"
    record = json.loads((folder / "sweep.json").read_text())
    runs = {p.parent.name: Run.load(p.parent) for p in folder.glob("*/config.json")}
    got = {(r.config.seed, r.config.model.prior.std, r.config.steps, r.config.model.latent_dim) for r in runs.values()}
    assert got == {(seed, std, 2, 2) for seed in (3, 4) for std in (1.0, 2.0)}
    assert {Path(r.config.data.source).name for r in runs.values()} == {"mine.npz"}
    assert set(asked) == {"map"}
    for member in record["members"]:
        assert list(member["metrics"])[:2] == ["rate", "iw_2"]


@covers("sweep", "resume", "strategy")
def test_a_sweep_says_what_it_does_and_goes_on(experiment, capsys, monkeypatch):
    from vae_jax.tasks.sweeps import run as sweeps

    asked, group = [], sweeps.train_group
    monkeypatch.setattr(sweeps, "train_group", lambda *a, **kw: asked.append(kw["strategy"]) or group(*a, **kw))
    monkeypatch.setattr("vae_jax.figures.sweep.write_sweep", lambda *a, **kw: None)
    done("sweep", experiment, "--seeds", "7", "--smoke", "--strategy", "vmap")
    assert "1 members (" in capsys.readouterr().out
    assert (experiment.parent / "runs" / "tiny-sweep" / "sweep.json").is_file()
    words = ["--seeds", "7", "--smoke"]
    assert main.run(["sweep", str(experiment), *words, "--workdir", "runs/tiny-sweep"]) == 2
    done("sweep", experiment, *words, "--resume")
    # What is finished is not trained again; the other program was one operation for all members.
    assert asked == ["vmap"]


@covers("sweep", "distributed")
def test_a_sweep_is_made_by_one_process(experiment, capsys):
    assert cli("sweep", experiment, "--seeds", "0:2", "--distributed") == 2
    assert "--distributed: a sweep is made by one process; leave it out" in capsys.readouterr().err
    assert [p.name for p in experiment.parent.iterdir()] == ["tiny.py"]
