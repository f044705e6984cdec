"""What a person sees while a run trains, on a terminal and in a log."""

import io

import pytest
from rich.console import Console

from vae_jax.tasks.progress import Progress

METRICS = {"elbo": -97.354, "rate": 5.384, "distortion": 91.97, "images_per_s": 2145.4, "kl_per_dim": [1.0, 2.0]}


def shown(width: int | None) -> str:
    """Returns what is printed for two reports, on a terminal of this width or (None) into a file."""
    progress, out = Progress(300_000), io.StringIO()
    progress.console = Console(file=out, width=width or 200, force_terminal=width is not None, color_system=None)
    progress._live = width is not None
    with progress:
        progress.report(1, METRICS)
        progress.report(300_000, METRICS)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_every_number_fits_on_a_terminal(width):
    text = shown(width)
    for part in ("300000/300000", "elbo -97.35", "rate 5.38", "distortion 91.97", "2,145 images/s", "left"):
        assert part in text
    assert "…" not in text
    assert ("━" in text) == (width >= 100)


def test_a_log_gets_plain_lines():
    text = shown(None)
    assert text.count("\n") == 1
    assert "step 300,000/300,000  elbo -97.35  rate 5.38  distortion 91.97  2,145 images/s" in text
    assert "\x1b" not in text


def test_quiet_prints_nothing(capsys):
    with Progress(10, quiet=True) as progress:
        progress.say("hello")
        progress.report(10, METRICS)
    assert capsys.readouterr().out == ""


def test_the_first_line_of_a_log_tells_no_speed(monkeypatch):
    """It comes after the compilation, before any update was timed."""
    times = iter([0.0, 60.0, 60.0, 60.0, 80.0, 80.0])
    monkeypatch.setattr("vae_jax.tasks.progress.time.monotonic", lambda: next(times))
    progress, out = Progress(101), io.StringIO()
    progress.console = Console(file=out, width=200, color_system=None)
    progress.report(1, METRICS | {"images_per_s": 0.0})
    progress.report(51, METRICS)
    first, second = out.getvalue().splitlines()
    assert first.endswith("distortion 91.97  compiled")
    assert second.endswith("2,145 images/s  20 s left")
