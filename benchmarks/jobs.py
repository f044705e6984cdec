"""Runs one measurement in a process of its own, so that no thread pool, cache or allocator outlives it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(os.environ.get("VAE_JAX_PEERS", ROOT.parent / "shared" / "peers"))
DATA = Path(os.environ.get("VAE_JAX_DATA", ROOT.parent / "shared" / "data"))
TIMEOUT_S = 900


class Failed(Exception):
    """A measurement that did not run; the text is what the table shows."""


class Finished(NamedTuple):
    """The JSON lines that a process printed, its run time and its largest resident size."""

    lines: list[dict[str, Any]]
    seconds: float
    memory_gib: float


def execute(arguments: list[str], timeout_s: float = TIMEOUT_S) -> Finished:
    """Runs this interpreter with the arguments and waits, at most so many seconds.

    Raises:
      Failed: it ended with an error, or took too long.
    """
    # The peers run on the CPU, so ours do too, whatever else the machine has.
    environment = {**os.environ, "VAE_JAX_DATA": str(DATA), "JAX_PLATFORMS": "cpu"}
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment, stdout=out, stderr=err)
        status, usage = _wait(process, timeout_s)
        seconds = time.perf_counter() - start
        out.seek(0), err.seek(0)
        if status:
            last = (err.read().strip().splitlines() or [f"exit status {status} after {seconds:.0f} s"])[-1]
            raise Failed(last[:200])
        lines = [json.loads(line) for line in out if line.startswith("{")]
    return Finished(lines, seconds, usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20))


def _wait(process: subprocess.Popen, timeout_s: float) -> tuple[int, Any]:
    """Returns (exit status, resource usage) of the process, killed if it takes too long."""
    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    try:
        # `Popen.wait` gives no usage; Popen must learn the status, or it would wait for the process again.
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage


def ours(job: str, *, rounds: int, quick: bool, steps: int = 0) -> list[dict[str, Any]]:
    """Returns the lines of a job of `benchmarks.ours`."""
    options = ["--rounds", str(rounds), "--steps", str(steps), *(["--quick"] if quick else [])]
    return execute(["-m", "benchmarks.ours", job, *options]).lines


def peer(script: str, key: str, *arguments: str) -> dict[str, Any]:
    """Returns `{key: [one rate per line], "memory_gib"}` of a peer's script.

    Raises:
      Failed: the script or torch is missing, or it ended with an error.
    """
    if not (PEERS / script).is_file():
        raise Failed(f"no {script} in {PEERS.name}/: set VAE_JAX_PEERS")
    if importlib.util.find_spec("torch") is None:
        raise Failed("torch is not installed: pip install -e '.[bench]'")
    done = execute([str(PEERS / script), *arguments])
    return {key: [line[key] for line in done.lines], "memory_gib": done.memory_gib}


def torch_mlp(mode: str, epochs: int) -> dict[str, Any]:
    """Returns the rates of the MLP peer: `memory` or `loader`."""
    images = DATA / "mnist" / "train-images-idx3-ubyte.gz"
    if not images.is_file():
        raise Failed(f"no {images.name} in {DATA.name}/mnist: set VAE_JAX_DATA")
    return peer("torch_mlp_vae.py", "images_per_s", str(images), mode, str(epochs))


def torch_conv(rounds: int) -> dict[str, Any]:
    """Returns the rates of the conv peer."""
    return peer("torch_conv_beta_vae.py", "steps_per_s", str(rounds))


def startup(repeats: int) -> dict[str, list[float]]:
    """Returns the seconds of a bare interpreter, of `import vae_jax` and of `vae-jax --help`."""
    commands = {"python": ["-c", ""], "import": ["-c", "import vae_jax"], "help": ["-m", "vae_jax", "--help"]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, arguments in commands.items():
            times[name].append(execute(arguments).seconds)
    return times


def train_mnist(steps: int) -> dict[str, float]:
    """Returns time and largest resident size of `vae-jax train vae_mnist`, evaluation and figures included."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--steps", str(steps), "--workdir", str(Path(folder) / "run")]
        done = execute(["-m", "vae_jax", "train", "vae_mnist", *options])
    return {"seconds": done.seconds, "memory_gib": done.memory_gib, "steps": steps}
