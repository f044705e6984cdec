"""The loop on a clock of its own: what is logged, timed, drawn, evaluated and stopped at which step."""

import dataclasses
import json
import subprocess
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.data.config import DataConfig
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.runs import run as runs
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.tasks import training
from vae_jax.train import MeshConfig, loop
from vae_jax.train.loop import Event, NonFinite, fit
from vae_jax.train.metrics import MetricsWriter, collapse_warning

SMALL = Config(
    steps=12,
    data=DataConfig("digits", batch_size=8),
    model=VAE(3, MLP((16,))),
    mesh=MeshConfig(data=1),
    logging=Logging(log_every=4, checkpoint_every=4, figures_minutes=0.0, tensorboard=False),
    evaluation=Evaluation(limit=50, batch_size=25),
)


def put(config, **options):
    return dataclasses.replace(config, **options)


class Clock:
    """Time that passes only where a test says so; in place of the module `time`."""

    def __init__(self, monkeypatch, perf_counter=None):
        self.restart()
        clock = types.SimpleNamespace(monotonic=self.read, perf_counter=perf_counter or self.read)
        monkeypatch.setattr(loop, "time", clock)

    def restart(self) -> None:
        self.now = 1000.0

    def read(self) -> float:
        return self.now


@dataclasses.dataclass
class State:
    """As much of a TrainState as the loop sees."""

    step: int


class ClockedFeed:
    """Steps of a quarter of a second, after a first that takes a minute (it compiles); the loss is the step number."""

    def __init__(self, clock: Clock):
        self.clock, self.chunks, self.made = clock, [], 0

    def advance(self, state: State, n: int):
        start, self.made = self.made, self.made + n
        self.clock.now += 60 + 0.25 * (n - 1) if start == 0 else 0.25 * n
        self.chunks.append(n)
        loss = np.mean(np.arange(start, start + n) + 1.0)
        return State(self.made), {"loss": np.float32(loss)}, np.asarray(True)

    def position(self) -> dict:
        return {"examples": self.made}


class Saved:
    """Checkpoints that only note what is saved."""

    def __init__(self):
        self.all = []

    def steps(self) -> list[int]:
        return [step for step, _ in self.all]

    def save(self, state: State, position: dict) -> int:
        self.all.append((state.step, position))
        return state.step


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Runs the loop over 24 steps of batch 8 and returns (feed, checkpoints, lines, steps at which events fired)."""

    def run(**events):
        clock = Clock(monkeypatch)
        feed, saved, fired = ClockedFeed(clock), Saved(), []
        event = Event(lambda state, step: fired.append((state.step, step)), **events)
        writer = MetricsWriter(tmp_path, tensorboard=False)
        options = {"steps": 24, "batch_size": 8, "log_every": 10, "checkpoint_every": 8}
        end = fit(feed, State(0), writer=writer, checkpoints=saved, events=[event] if events else [], **options)
        assert end.step == 24
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        return feed, saved, lines, fired

    return run


def test_lines_are_means_over_their_own_steps(made):
    _, _, lines, _ = made()
    assert [(line["step"], line["split"]) for line in lines] == [(10, "train"), (20, "train"), (24, "train")]
    assert [line["loss"] for line in lines] == [5.5, 15.5, 22.5]


def test_speed_leaves_out_the_chunk_that_compiles(made):
    _, _, lines, _ = made()
    assert [line["images_per_s"] for line in lines] == [pytest.approx(8 / 0.25)] * 3


def test_chunks_are_as_long_as_a_signal_may_wait(made):
    """Half a second is two steps here, after the first that tells nothing; no chunk crosses a line or a checkpoint."""
    feed, _, _, _ = made()
    assert feed.chunks[:2] == [1, 1]  # nothing is timed yet
    assert max(feed.chunks) == int(loop.CHUNK_SECONDS / 0.25)
    ends = np.cumsum(feed.chunks)
    assert {8, 10, 16, 20, 24} <= set(ends.tolist())


def test_checkpoints_hold_the_position_of_their_step(made):
    _, saved, _, _ = made()
    assert saved.all == [(8, {"examples": 8}), (16, {"examples": 16}), (24, {"examples": 24})]


def test_events_by_steps(made):
    assert made(every=9, final=False)[3] == [(9, 9), (18, 18)]
    assert made(every=9, final=True)[3] == [(9, 9), (18, 18), (24, 24)]


def test_events_by_minutes(made):
    """The first step takes a minute, the others a quarter of a second each; two seconds pass between events."""
    fired = [step for step, _ in made(minutes=2 / 60)[3]]
    assert fired[0] == 1
    assert fired[-1] == 24
    assert set(np.diff(fired[:-1]).tolist()) <= {8, 9}
    assert [step for step, _ in made(minutes=2.0)[3]] == [24]


@pytest.mark.parametrize("pipeline", ["device", "grain"])
def test_nan_stops_the_run_at_its_exact_step(tmp_path, monkeypatch, pipeline):
    """Step 7 (the update from state 6) gives NaN, in the middle of a chunk where the machine is fast."""
    build = VAE.build

    def poisoned(self, *args):
        model = build(self, *args)

        def loss(params, state, key, batch, ctx):
            value, aux = model.loss(params, state, key, batch, ctx)
            # The gradient alone is NaN: the metrics of this step are those of good weights.
            return value * jnp.where(ctx.step == 6, jnp.nan, 1.0), aux

        return model._replace(loss=loss)

    monkeypatch.setattr(VAE, "build", poisoned)
    monkeypatch.setattr(training, "_figures", lambda run, state, step, *more: None)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 1e6)
    config = put(SMALL, data=put(SMALL.data, pipeline=pipeline))
    with pytest.raises(NonFinite, match=r"grad_norm became NaN or Inf at step 7;.*checkpoint is step 4") as caught:
        training.train_run(config, "mine", tmp_path / "run")
    assert (caught.value.step, caught.value.names, caught.value.last_good) == (7, ["grad_norm"], 4)
    run = runs.Run.load(tmp_path / "run")
    state = run.restore()
    assert int(state.step) == 4
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.params))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4]


def test_figures_are_drawn_from_the_state_of_their_step(tmp_path, monkeypatch):
    """Once at the end where `figures_minutes` is 0, however long the run takes; else also in between."""
    clock, drawn = Clock(monkeypatch, time.perf_counter), []
    monkeypatch.setattr(training, "_figures", lambda run, state, step, ended: drawn.append((int(state.step), step)))

    def tick(step, metrics):
        clock.now += 30.0

    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)  # one step a chunk
    training.train_run(put(SMALL, steps=6), "mine", tmp_path / "end", report=tick)
    assert drawn == [(6, 6)]
    drawn.clear()
    clock.restart()
    often = put(SMALL, steps=6, logging=put(SMALL.logging, figures_minutes=1.0))
    training.train_run(often, "mine", tmp_path / "often", report=tick)
    assert drawn == [(2, 2), (4, 4), (6, 6)]


def test_a_failing_figure_costs_nothing_and_is_logged(tmp_path, monkeypatch):
    from vae_jax import figures

    def fail(*args, **options):
        raise ValueError("no ink")

    monkeypatch.setattr(figures, "write_all", fail)
    run = training.train_run(put(SMALL, steps=2), "mine", tmp_path / "run")
    assert int(run.restore().step) == 2
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "figures at step 2 failed" in log
    assert "no ink" in log


@pytest.mark.parametrize(
    ("kl", "units", "said"),
    [
        ([0.0, 0.0, 1e-4], 0, "posterior collapse: none of the 3 latent dimensions depends on the example"),
        ([0.3, 0.1, 0.0], 2, "close to posterior collapse: the code carries only 0.4 nats in 2 of 3 dimensions"),
        ([0.3, 0.2, 0.0], 2, None),
        ([5.0, 4.0, 0.0], 2, None),
    ],
)
def test_collapse_is_said_below_half_a_nat(kl, units, said):
    warning = collapse_warning(kl, units, "go lower")
    if said is None:
        assert warning is None
    else:
        assert warning is not None
        assert warning.startswith(said)
        assert warning.endswith("; go lower")


def test_a_healthy_run_is_not_called_collapsed(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_figures", lambda run, state, step, *more: None)
    said = []
    logging = Logging(log_every=200, figures_minutes=0.0, tensorboard=False)
    healthy = put(SMALL, steps=150, data=put(SMALL.data, batch_size=64), optimizer=put(SMALL.optimizer, lr=0.01))
    training.train_run(put(healthy, logging=logging), "mine", tmp_path / "run", say=said.append)
    assert said
    assert not any("collapse" in line for line in said)
    assert "collapse" not in (tmp_path / "run" / "log.txt").read_text()


def git(folder, *words: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(
        ["git", "-C", folder, *names, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_env_json_says_whether_the_tree_was_that_of_its_commit(tmp_path, monkeypatch):
    module = tmp_path / "vae_jax" / "runs" / "run.py"
    module.parent.mkdir(parents=True)
    module.write_text("x = 1\n")
    monkeypatch.setattr(runs, "__file__", str(module))
    assert runs.environment()["commit"] is None  # no repository
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert len(head) == 40
    assert runs.environment()["commit"] == head
    (tmp_path / "notes.txt").write_text("not tracked, so no part of the program\n")
    assert runs.environment()["commit"] == head
    module.write_text("x = 2\n")
    assert runs.environment()["commit"] == f"{head}+changes"
    git(tmp_path, "add", ".")  # staged, but not committed
    assert runs.environment()["commit"] == f"{head}+changes"


def test_the_commit_of_a_repository_around_an_installation_is_not_ours(tmp_path, monkeypatch):
    module = tmp_path / "lib" / "vae_jax" / "runs" / "run.py"
    module.parent.mkdir(parents=True)
    module.write_text("x = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    monkeypatch.setattr(runs, "__file__", str(module))
    assert runs.environment()["commit"] is None
