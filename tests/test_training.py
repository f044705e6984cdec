"""The run: folder contents, bit-exact resume, signals, NaN, broken and missing checkpoints, a full disk."""

import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import Any, ClassVar

import jax
import numpy as np
import pytest

from vae_jax import spec
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, on_command_line
from vae_jax.likelihoods import GaussianOptimal
from vae_jax.models import M2, VAE
from vae_jax.networks import MLP
from vae_jax.objectives import Beta
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.runs.run import Run
from vae_jax.tasks import training
from vae_jax.train import LearningRate, MeshConfig, Optimizer
from vae_jax.train.loop import NonFinite

SMALL = Config(
    steps=12,
    data=DataConfig("digits", batch_size=8),
    model=VAE(latent_dim=3, network=MLP((16,))),
    mesh=MeshConfig(data=1),
    logging=Logging(log_every=4, checkpoint_every=4, figures_minutes=0.0, tensorboard=False),
    evaluation=Evaluation(limit=50, batch_size=25),
)


def put(config, **options):
    return dataclasses.replace(config, **options)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr(training, "_figures", lambda run, state, step, *more: None)


def assert_same(a, b):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=jax.tree_util.keystr(path))


def test_prepare_loads_the_checked_config(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", images=np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8))
    real, loaded = training.data.load, []
    monkeypatch.setattr(training.data, "load", lambda c, *rest: loaded.append(c) or real(c, *rest))
    checked, check = [], training.configs.check
    monkeypatch.setattr(training.configs, "check", lambda c, **k: checked.append(c) or check(c, **k))
    found = DataConfig("npz", tmp_path / "x.npz", batch_size=np.int64(8))  # type: ignore[arg-type]
    training.prepare(put(SMALL, data=found))
    assert loaded[0].source == str(tmp_path / "x.npz")
    assert type(loaded[0].batch_size) is int
    training.train_run(put(SMALL, steps=1), "x", tmp_path / "run")
    assert len(checked) == 2, "once each"


def test_a_run_folder_holds_what_the_contract_says(tmp_path):
    config = put(SMALL, logging=put(SMALL.logging, tensorboard=True, eval_every=6))
    run = training.train_run(config, "mine", tmp_path / "run")
    names = {p.name for p in run.path.iterdir()}
    assert names >= {"config.json", "env.json", "metrics.jsonl", "figures", "checkpoints", "tensorboard"}
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in train] == [4, 8, 12]
    # The held-out split of digits; test_wiring.py has data without one.
    assert [line["step"] for line in lines if line["split"] == "validation"] == [6, 12]
    assert {line["split"] for line in lines} == {"train", "validation"}
    for line in train:
        keys = {"loss", "elbo", "distortion", "rate", "beta", "images_per_s", "active_units", "kl_per_dim", "grad_norm"}
        assert keys <= set(line)
        assert line["elbo"] == pytest.approx(-(line["distortion"] + line["rate"]), rel=1e-5)
    env = json.loads((run.path / "env.json").read_text())
    assert env["packages"]["jax"] == jax.__version__
    assert env["devices"]
    again = Run.load(run.path)
    assert again.config == config
    assert int(again.restore().step) == 12


CONFIGS = {
    "plain": SMALL,
    "everything": put(
        SMALL,
        ema_decay=0.9,
        data=put(SMALL.data, binarize="dynamic"),
        model=put(SMALL.model, likelihood=GaussianOptimal()),
        optimizer=Optimizer(clip=1.0, weight_decay=0.01, schedule=LearningRate("constant", warmup_steps=6)),
    ),
    "grain": put(SMALL, data=put(SMALL.data, pipeline="grain")),
}


@pytest.mark.parametrize(
    ("name", "stop"),
    [
        *(("everything", 4), ("grain", 8)),
        *(
            pytest.param(*c, marks=pytest.mark.slow)
            for c in (("plain", 4), ("plain", 8), ("everything", 8), ("grain", 4))
        ),
    ],
)
def test_resume_continues_bit_for_bit(tmp_path, name, stop):
    config = CONFIGS[name]
    whole = training.train_run(config, "mine", tmp_path / "whole")
    training.train_run(put(config, steps=stop), "mine", tmp_path / "parts")
    parts = training.train_run(config, "mine", tmp_path / "parts", resume=True)
    assert_same(whole.restore(), parts.restore())
    drop = ("images_per_s",)

    def lines(run):
        found = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in line.items() if k not in drop} for line in found]

    assert [line["step"] for line in lines(whole)] == [line["step"] for line in lines(parts)]


def test_grain_and_device_pipelines_train_the_same(tmp_path):
    config = put(SMALL, data=put(SMALL.data, binarize="dynamic"))
    grain = put(config, data=put(config.data, pipeline="grain"))
    a = training.train_run(config, "mine", tmp_path / "device").restore()
    b = training.train_run(grain, "mine", tmp_path / "grain").restore()
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_streamed_steps_are_one_program_whatever_the_chunks(tmp_path):
    """The loop's chunks follow the clock: a program of its own for the first step of each would show in the bits."""
    run = training.train_run(put(SMALL, steps=1, data=put(SMALL.data, pipeline="grain")), "mine", tmp_path / "run")
    ends = []
    for chunks in ((6,), (1, 2, 3), (1, 1, 1, 1, 1, 1)):
        state = run.init()
        feed = training.make_feed(run, run.source("train"), state)
        for n in chunks:
            state, _, finite = feed.advance(state, n)
            assert bool(finite)
        assert feed._one._cache_size() == 1
        ends.append(state)
    assert_same(ends[0], ends[1])
    assert_same(ends[0], ends[2])


@pytest.mark.parametrize("more", [{}, {"labels": 100}, {"name": "sprites", "limit": 100}], ids=str)
def test_a_second_run_of_equal_options_compiles_nothing(tmp_path, caplog, more):
    """Another seed, in one process: a notebook's loop over seeds waits for the compiler once."""
    model = M2(3, MLP((16,))) if "labels" in more else SMALL.model
    config = put(SMALL, steps=2, data=put(SMALL.data, **more), model=model)
    training.train_run(config, "first", tmp_path / "first")
    caplog.clear()
    with jax.log_compiles():
        training.train_run(put(config, seed=7), "second", tmp_path / "second")
        assert not [r.message for r in caplog.records if re.search(r"Compiling jit\((run|init)\)", r.getMessage())]
        caplog.clear()
        training.train_run(put(config, model=put(model, latent_dim=4)), "third", tmp_path / "third")
    assert [r.message for r in caplog.records if "Compiling jit(run)" in r.getMessage()]


base = functools.cache(SMALL.model.build)


def weigh(loss):
    return loss


def own_loss(params, state, key, batch, ctx):
    loss, aux = base(OwnModel.spec).loss(params, state, key, batch, ctx)
    return weigh(loss), aux


@dataclasses.dataclass(frozen=True)
class OwnModel:
    """A user's model whose functions are the same objects in every build, as those of a notebook are."""

    spec: ClassVar[Any] = None

    def build(self, spec):
        type(self).spec = spec
        return base(spec)._replace(loss=own_loss)


def test_what_a_users_model_calls_may_be_defined_anew(tmp_path, monkeypatch):
    config = put(SMALL, steps=3, model=OwnModel())
    first = training.train_run(config, "first", tmp_path / "first")
    start = jax.tree.leaves(first.init().params)
    assert all(np.any(a != b) for a, b in zip(start, jax.tree.leaves(first.restore().params), strict=True))
    monkeypatch.setattr(sys.modules[__name__], "weigh", lambda loss: 0 * loss)
    second = training.train_run(config, "second", tmp_path / "second").restore()
    assert_same(start, jax.tree.leaves(second.params))


def test_resume_drops_lines_of_steps_that_are_made_again(tmp_path):
    run = training.train_run(put(SMALL, steps=8), "mine", tmp_path / "run")
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 10, "split": "train", "loss": 1.0}) + "\n")
    training.train_run(SMALL, "mine", run.path, resume=True)
    steps = [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12]


def test_resume_refuses_a_changed_model_and_loses_nothing(tmp_path):
    run = training.train_run(SMALL, "mine", tmp_path / "run")
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    changed = put(SMALL, model=put(SMALL.model, latent_dim=4))
    with pytest.raises(InputError, match=r"cannot resume with a changed config \(model.latent_dim: 3 -> 4\)"):
        training.train_run(changed, "mine", run.path, resume=True)
    assert before == {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}


def test_an_existing_folder_is_never_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with (
        on_command_line(),
        pytest.raises(InputError, match="already there, and it is not a run; choose another --workdir"),
    ):
        training.train_run(SMALL, "mine", tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_default_folders_are_numbered_not_reused(tmp_path):
    assert training.free_folder("x", tmp_path) == tmp_path / "x"
    (tmp_path / "x").mkdir()
    (tmp_path / "x-2").mkdir()
    assert training.free_folder("x", tmp_path) == tmp_path / "x-3"
    with pytest.raises(InputError, match="no run to resume"):
        training.newest_folder("x", tmp_path)


def test_resume_without_a_checkpoint_starts_over_from_step_zero(tmp_path):
    """A run that was killed before its first checkpoint has a config and nothing else: resume makes it whole."""
    Run.create(tmp_path / "run", "mine", SMALL, spec.images(8, 8, 1))
    run = training.train_run(SMALL, "mine", tmp_path / "run", resume=True)
    whole = training.train_run(SMALL, "mine", tmp_path / "whole")
    assert_same(run.restore(), whole.restore())


def corrupt(folder):
    for file in folder.rglob("*"):
        if file.is_file() and file.stat().st_size:
            file.write_bytes(b"\0" * file.stat().st_size)


def test_a_corrupt_checkpoint_falls_back_to_the_last_good_one_and_says_so(tmp_path):
    run = training.train_run(SMALL, "mine", tmp_path / "run")
    whole = run.restore()
    corrupt(run.path / "checkpoints" / "12")
    said = []
    training.train_run(SMALL, "mine", run.path, resume=True, say=said.append)
    wanted = r"warning: .*: the checkpoint of step 12 cannot be read \(.*\); falling back to that of step 8"
    assert [line for line in said if re.fullmatch(wanted, line)]
    assert_same(whole, run.restore())


def test_no_readable_checkpoint_is_said_in_one_line(tmp_path):
    run = training.train_run(put(SMALL, steps=4), "mine", tmp_path / "run")
    corrupt(run.path / "checkpoints" / "4")
    with pytest.raises(InputError, match=r"the checkpoint of step 4 cannot be read .* put the folder back from a copy"):
        run.restore()


def test_missing_checkpoint(tmp_path):
    run = Run.create(tmp_path / "run", "mine", SMALL, spec.images(8, 8, 1))
    with pytest.raises(InputError, match="no checkpoints here"):
        run.restore()


def test_a_collapsed_posterior_is_said_in_plain_words(tmp_path):
    said = []
    heavy = put(SMALL, steps=200, model=put(SMALL.model, objective=Beta(beta=1e4)), optimizer=Optimizer(lr=0.01))
    heavy = put(heavy, logging=put(heavy.logging, log_every=20, checkpoint_every=200))
    training.train_run(heavy, "mine", tmp_path / "heavy", say=said.append)
    assert any("warning: posterior collapse: none of the 3 latent dimensions depends on the example" in s for s in said)


def test_nan_names_the_step_the_metric_and_the_last_good_checkpoint(tmp_path):
    # A learning rate that throws the parameters out of float32 within a few steps.
    config = put(SMALL, steps=40, optimizer=Optimizer(name="sgd", lr=1e30, schedule=LearningRate(warmup_steps=0)))
    with pytest.raises(NonFinite, match=r"became NaN or Inf at step \d+; no checkpoint was saved") as caught:
        training.train_run(config, "mine", tmp_path / "run")
    assert caught.value.step <= 4
    assert "loss" in str(caught.value)
    assert "became NaN" in (tmp_path / "run" / "log.txt").read_text()


def test_nan_after_a_checkpoint_names_it(tmp_path):
    training.train_run(put(SMALL, steps=4), "mine", tmp_path / "run")
    run = Run.load(tmp_path / "run")
    checkpoints = run.checkpoints()
    state = run.restore()
    broken = jax.tree.map(lambda x: x * np.float32(np.nan), state.params)
    checkpoints.save(dataclasses.replace(state, step=state.step + 1, params=broken), {})
    checkpoints.close()
    with pytest.raises(NonFinite, match="at step 6; the last good checkpoint is step 5"):
        training.train_run(SMALL, "mine", tmp_path / "run", resume=True)


LONG = """
import dataclasses, sys
sys.path.insert(0, {tests!r})
from test_training import SMALL
def get_config():
    logging = dataclasses.replace(SMALL.logging, log_every=1000, checkpoint_every=10**6)
    return dataclasses.replace(SMALL, steps=10**6, logging=logging)
"""


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_a_checkpoint_and_the_run_resumes(tmp_path, signum, code):
    file = tmp_path / "long.py"
    file.write_text(LONG.format(tests=os.path.dirname(__file__)))
    command = [sys.executable, "-m", "vae_jax", "train", str(file), "--workdir", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "continue with `vae-jax train --resume" in err
    assert "Traceback" not in err
    run = Run.load(tmp_path / "run")
    step = int(run.restore().step)
    assert step > 0
    # Continued to the same length, it equals a run that was never stopped.
    config = put(run.config, steps=step + 5)
    training.train_run(config, "long", run.path, resume=True)
    whole = training.train_run(config, "long", tmp_path / "whole")
    assert_same(run.restore(), whole.restore())


def test_a_full_disk_while_saving_keeps_the_old_checkpoint(tmp_path):
    """RLIMIT_FSIZE stands in for a full disk: every larger write fails with an OSError."""
    training.train_run(put(SMALL, steps=4), "mine", tmp_path / "run")
    code = f"""
import resource, signal, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import dataclasses
from test_training import SMALL
from vae_jax.tasks import training
from vae_jax.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
real = training.fit
def fit(*a, **k):
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    return real(*a, **k)
training.fit = fit
training._figures = lambda *a: None
try:
    training.train_run(SMALL, "mine", {str(tmp_path / "run")!r}, resume=True)
except InputError as error:
    print("SAID", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "SAID" in done.stdout, done.stderr[-3000:]
    assert "cannot save the checkpoint of step 8" in done.stdout
    assert "the checkpoint of step 4 is kept" in done.stdout
    run = Run.load(tmp_path / "run")
    assert int(run.restore().step) == 4
    assert training.train_run(SMALL, "mine", run.path, resume=True)
    assert int(run.restore().step) == 12
