"""What follows the clock, with a clock of our own: events, chunks, images per second, the progress lines."""

import dataclasses
import types

import jax.numpy as jnp
import pytest

from vae_jax.tasks import progress
from vae_jax.train import loop
from vae_jax.train.feed import Advance
from vae_jax.train.loop import Event, Window, fit


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    for module in (loop, progress):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=fake, perf_counter=fake))
    return fake


def test_an_event_of_minutes_is_due_when_they_have_passed_since_the_last_one(clock):
    fired = []
    event = Event(lambda state, step: fired.append(step), minutes=5.0, _last=clock.now)
    clock.now += 299.9
    assert not event.due(10, clock.now)
    clock.now += 0.2
    assert event.due(10, clock.now)
    clock.now += 60.0  # the figures themselves take a minute
    event.fire(None, 10)
    clock.now += 299.9
    assert not event.due(20, clock.now)
    clock.now += 0.2
    assert event.due(20, clock.now)
    assert fired == [10]


def test_an_event_without_minutes_is_never_due_by_the_clock(clock):
    event = Event(lambda state, step: None, every=3)
    clock.now += 1e9
    assert [step for step in range(1, 10) if event.due(step, clock.now)] == [3, 6, 9]
    assert not Event(lambda state, step: None).due(3, clock.now)


@dataclasses.dataclass
class State:
    step: int


class Feed:
    """Makes 100 steps a second, after 5 seconds of compilation."""

    def __init__(self, clock):
        self.clock, self.chunks = clock, []

    def advance(self, state, n):
        self.clock.now += 0.01 * n + (0 if self.chunks else 5.0)
        self.chunks.append(n)
        loss = state.step + (n + 1) / 2  # the mean over steps whose losses are their numbers
        return Advance(State(state.step + n), {"loss": jnp.asarray(loss)}, jnp.asarray(True))

    def position(self):
        return {}


class Writer:
    def __init__(self):
        self.lines = []

    def write(self, step, split, line):
        self.lines.append((step, line["loss"], line["images_per_s"]))


class Saved:
    def __init__(self):
        self.at = []

    def steps(self):
        return self.at

    def save(self, state, position):
        if state.step not in self.at:
            self.at.append(state.step)
        return state.step


def train(clock, steps, log_every, checkpoint_every=10**6, events=()):
    feed, writer, saved = Feed(clock), Writer(), Saved()
    options = {"log_every": log_every, "checkpoint_every": checkpoint_every, "events": events}
    fit(feed, State(0), steps=steps, batch_size=8, writer=writer, checkpoints=saved, **options)
    return feed.chunks, writer.lines, saved.at


def test_compilation_does_not_count_as_speed_and_chunks_last_half_a_second(clock):
    chunks, lines, saved = train(clock, 200, 100)
    assert chunks[0] == 1  # holds the compilation
    assert chunks[1] == 1  # no speed is known yet
    assert max(chunks) == pytest.approx(50, abs=1)
    assert sum(chunks) == 200
    for _, _, speed in lines:
        assert speed == pytest.approx(800.0)
    assert [step for step, _, _ in lines] == [100, 200]
    assert saved == [200]


def test_a_line_is_the_mean_of_its_own_window(clock):
    _, lines, _ = train(clock, 4, 2)
    # Losses 1, 2 and 3, 4.
    assert [loss for _, loss, _ in lines] == [1.5, 3.5]


def test_a_window_weights_by_steps_and_leaves_untimed_ones_out_of_the_speed():
    window = Window()
    window.add({"loss": 1.0}, 1, 0.0)
    assert window.images_per_s(8) == 0.0
    window.add({"loss": 4.0}, 2, 0.5)
    assert window.mean() == {"loss": 3.0}
    assert window.images_per_s(8) == 2 * 8 / 0.5


def test_figures_come_when_their_minutes_have_passed_and_at_the_end(clock):
    at = []
    events = [Event(lambda state, step: at.append(step), minutes=1.0, _last=clock.now)]
    train(clock, 10_000, 1000, events=events)
    # 100 steps a second: one each 6,000 steps, the 5 seconds of compilation included.
    assert at[-1] == 10_000
    assert len(at) == 2
    assert at[0] == pytest.approx(5_500, abs=60)


def test_progress_lines_come_every_ten_seconds_and_tell_the_time_left(clock, capsys):
    shown = progress.Progress(1000)
    for step in range(100, 1001, 100):
        clock.now += 4.0
        shown.report(step, {"elbo": -10.0, "images_per_s": 200.0})
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split("/")[0].split()[-1] for line in lines] == ["300", "600", "900", "1,000"]
    # The first report, at step 100, starts the clock: 8 s for 200 steps, so 28 s for 700.
    assert [line.split("images/s")[1].strip() for line in lines] == ["28 s left", "16 s left", "4 s left", "0 s left"]
