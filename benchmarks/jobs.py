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


def execute(arguments: list[str], timeout_s: float = TIMEOUT_S, *, platform: str = "cpu") -> Finished:
    """Runs this interpreter with the arguments and waits.

    Args:
      arguments: of the interpreter.
      timeout_s: seconds at most.
      platform: of JAX; the CPU, whatever else the machine has, as the peers run there too.

    Raises:
      Failed: it ended with an error, or took too long.
    """
    environment = {**os.environ, "VAE_JAX_DATA": str(DATA), "JAX_PLATFORMS": platform}
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


def ours(job: str, *, rounds: int, quick: bool, steps: int = 0, platform: str = "cpu") -> list[dict[str, Any]]:
    """Returns the lines of a job of `benchmarks.ours`."""
    options = ["--rounds", str(rounds), "--steps", str(steps), *(["--quick"] if quick else [])]
    return execute(["-m", "benchmarks.ours", job, *options], platform=platform).lines


def command(script: str) -> list[str]:
    """Returns what runs a peer: a module of `benchmarks.peers`, or a file of the folder PEERS.

    Raises:
      Failed: there is neither.
    """
    if (ROOT / "benchmarks" / "peers" / script).is_file():
        return ["-m", f"benchmarks.peers.{script.removesuffix('.py')}"]
    if not (PEERS / script).is_file():
        raise Failed(f"no {script} in {PEERS.name}/: set VAE_JAX_PEERS")
    return [str(PEERS / script)]


def peer(script: str, *arguments: str, needs: tuple[str, ...] = ()) -> Finished:
    """Runs a peer.

    Args:
      script: name of its file.
      arguments: of its command line.
      needs: modules that it imports beside torch.

    Raises:
      Failed: the script, torch or another module is missing, or it ended with an error.
    """
    run = command(script)
    for name in ("torch", *needs):
        if importlib.util.find_spec(name) is None:
            raise Failed(f"{name} is not installed: pip install -e '.[bench]'")
    return execute([*run, *arguments])


def rates(done: Finished, key: str) -> dict[str, Any]:
    """Returns `{key: [one rate per line], "memory_gib"}` of a peer that prints a line per rate."""
    return {key: [line[key] for line in done.lines], "memory_gib": done.memory_gib}


def torch_mlp(mode: str, epochs: int) -> dict[str, Any]:
    """Returns the rates of the MLP peer: `memory` or `loader`."""
    images = given("mnist/train-images-idx3-ubyte.gz")
    return rates(peer("torch_mlp_vae.py", str(images), mode, str(epochs)), "images_per_s")


def torch_conv(rounds: int) -> dict[str, Any]:
    """Returns the rates of the conv peer."""
    return rates(peer("torch_conv_beta_vae.py", str(rounds)), "steps_per_s")


# Of the extra `bench`; peers of kind `library` call it.
LIBRARY = "vector_quantize_pytorch"


def torch_quantize(kind: str, rounds: int, quick: bool, *options: str) -> dict[str, Any]:
    """Returns what `peers/torch_quantize.py` prints; kinds `library` and `plain`."""
    size = ["--quick"] if quick else []
    return peer("torch_quantize.py", kind, "--rounds", str(rounds), *size, *options, needs=needs(kind)).lines[0]


def torch_vq(kind: str, rounds: int, quick: bool, steps: int = 0, *options: str) -> dict[str, Any]:
    """Returns what `peers/torch_vq_vae.py` prints; kinds `library` and `plain`."""
    # Random images with --quick, as on our side.
    images = [] if quick else ["--data", str(given("cifar10/data_batch_1.bin.gz"))]
    length = ["--steps", str(steps)] if steps else []
    arguments = (kind, "--rounds", str(rounds), *length, *images, *options)
    return peer("torch_vq_vae.py", *arguments, needs=needs(kind)).lines[0]


def needs(kind: str) -> tuple[str, ...]:
    """Returns the modules of a kind of peer."""
    return (LIBRARY,) if kind == "library" else ()


def given(path: str) -> Path:
    """Returns a file of the folder DATA.

    Raises:
      Failed: it is not there.
    """
    found = DATA / path
    if not found.is_file():
        raise Failed(f"no {found.name} in {DATA.name}/{found.parent.name}: set VAE_JAX_DATA")
    return found


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
