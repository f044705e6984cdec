"""Kills runs at random moments, resumes them, and compares their last bits with those of a run that nobody killed.

    python tests/kills.py --kills 100 --seed 0      # at random moments, over all kinds of runs
    python tests/kills.py --moments                 # at the moments of `MOMENTS`, one kind

One line of JSON for each kill, and a summary. Every run is a process of its own (SIGKILL knows no threads), forked from
one that has imported everything and started nothing, so that a kill costs a second, not ten.
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from vae_jax.cli import evaluate, main  # noqa: F401 - imported before the first fork
from vae_jax.data import digits
from vae_jax.data.config import DataConfig
from vae_jax.likelihoods import GaussianOptimal
from vae_jax.models import VAE
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.objectives import Factor
from vae_jax.priors import Exemplar
from vae_jax.runs import run as runs
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.tasks import progress, training  # noqa: F401 - imported before the first fork
from vae_jax.train import MeshConfig, Optimizer, metrics
from vae_jax.train.metrics import read_lines

PLAIN = Config(
    steps=200,
    data=DataConfig("digits", batch_size=8),
    model=VAE(latent_dim=3, network=MLP((16,))),
    mesh=MeshConfig(data=1),
    logging=Logging(log_every=10, checkpoint_every=20, figures_minutes=0.01, eval_every=50),
    evaluation=Evaluation(limit=50, batch_size=25),
)


def _put(**options) -> Config:
    data, model = options.pop("data", {}), options.pop("model", {})
    config = dataclasses.replace(PLAIN, **options)
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, **data), model=dataclasses.replace(config.model, **model)
    )


KINDS = {
    "device": PLAIN,
    "streamed": _put(data={"pipeline": "grain"}),
    "average": _put(ema_decay=0.9, optimizer=Optimizer(clip=1.0, weight_decay=0.01)),
    "accumulated": _put(accumulate=2, data={"binarize": "dynamic"}),
    "critic": _put(model={"objective": Factor(hidden=(8,))}),
    "optimal_variance": _put(model={"likelihood": GaussianOptimal()}),
    "conditional": _put(model={"condition": Condition("label")}),
    "exemplar": _put(model={"prior": Exemplar(exemplars=20)}),
}
DEADLINE = 120.0  # seconds that a run may take


def forked(work) -> int:
    """Starts `work()` in a process of its own and returns its id; it ends with exit code 0, 1 after an exception."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    code = 1
    try:
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)  # no exit handlers: those belong to the parent


def train(experiment: Path, folder: Path, resume: bool, inject=None) -> int:
    """Trains in this process, as the command does; its output goes to a file beside the folder."""
    with open(f"{folder}.out", "a") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    if inject is not None:
        inject()
    words = ["train", str(experiment), "--workdir", str(folder), "--quiet"]
    return main.run([*words, "--resume"] if resume else words)


def digest(folder: Path) -> dict:
    """Returns what two runs must have in common: every bit of the state, the lines' steps, the numbers, the figures."""
    import jax
    import numpy as np

    state = runs.Run.load(folder).restore()
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode() + array.tobytes())
    lines = read_lines(folder / "metrics.jsonl")
    return {
        "state": total.hexdigest(),
        "step": int(state.step),
        "lines": sorted([line["split"], line["step"]] for line in lines.lines),
        "damaged": lines.damaged,
        "metrics": json.loads((folder / "eval.json").read_text())["metrics"],
        "figures": sorted(path.name for path in (folder / "figures").glob("[!.]*.png")),
    }


def finish(experiment: Path, folder: Path, resume: bool) -> dict:
    """Trains to the end in another process and returns its digest, or what went wrong."""
    result = Path(f"{folder}.json")

    def work() -> int:
        code = train(experiment, folder, resume)
        if code == 0:
            result.write_text(json.dumps(digest(folder)))
        return code

    if (code := wait(forked(work), DEADLINE)) != 0:
        return {"code": code, "said": Path(f"{folder}.out").read_text()[-500:]}
    return json.loads(result.read_text())


def wait(pid: int, seconds: float) -> int:
    """Returns the exit code of a process, or kills it after so many seconds and returns -9."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def experiment_of(kind: str, folder: Path) -> Path:
    """Writes the experiment file of a kind."""
    file = folder / f"{kind}.py"
    here = str(Path(__file__).resolve().parent)
    file.write_text(
        f"import sys\nsys.path.insert(0, {here!r})\nfrom kills import KINDS\n\n\n"
        f"def get_config():\n    return KINDS[{kind!r}]\n"
    )
    return file


def resumable(folder: Path) -> bool:
    """Returns whether a killed run is to be resumed; without config.json nobody knows its options: it starts anew."""
    return (folder / "config.json").is_file()


def moment(rng: random.Random, whole: float) -> float:
    """Returns when to kill, in seconds: the first second and what follows the last step come more often."""
    low, high = rng.choice([(0.0, min(1.0, whole)), (0.0, whole), (0.6 * whole, whole)])
    return rng.uniform(low, high)


def at_random(kills: int, seed: int, folder: Path, kinds: list[str]) -> list[dict]:
    """Kills runs of these kinds in turn and returns a row for each kill."""
    rng, rows, wholes = random.Random(seed), [], {}
    for kind in kinds:
        experiment = experiment_of(kind, folder)
        finish(experiment, folder / f"{kind}-warm", False)  # compiles
        start = time.monotonic()
        wholes[kind] = finish(experiment, folder / f"{kind}-whole", False), time.monotonic() - start
        print(json.dumps({"whole": kind, "seconds": round(wholes[kind][1], 1), **short(wholes[kind][0])}), flush=True)
    while len(rows) < kills:
        kind = kinds[len(rows) % len(kinds)]
        want, seconds = wholes[kind]
        rows += one(rng, kind, folder / f"{kind}-{len(rows)}", want, seconds)
    return rows


def one(rng: random.Random, kind: str, path: Path, want: dict, seconds: float) -> list[dict]:
    """Kills one run once or more, then lets it finish; returns a row for each kill."""
    experiment, rows = path.parent / f"{kind}.py", []
    for number in range(rng.choice((1, 1, 1, 2, 3))):
        after, resume = moment(rng, seconds), resumable(path)
        code = wait(forked(lambda r=resume: train(experiment, path, r)), after)
        left = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
        made = max((int(p.name) for p in (path / "checkpoints").glob("*") if p.name.isdigit()), default=0)
        if code == -9:
            rows.append({"kind": kind, "kill": number, "after": round(after, 2), "step": made, "left": len(left)})
        elif code != 0:
            rows.append({"kind": kind, "kill": number, "after": round(after, 2), "failed": code})
    got = finish(experiment, path, resumable(path))
    for row in rows:
        row["same"] = got == want
        if got != want:
            row["got"] = {name: value for name, value in got.items() if value != want.get(name)}
        print(json.dumps(row), flush=True)
    return rows


def short(result: dict) -> dict:
    return {name: result[name] for name in ("step", "code", "said") if name in result}


# -- moments ----------------------------------------------------------------------------------------------------------


def _die(*args, **more) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _second(function):
    """Returns the function, which kills the process when it is called for the second time."""
    calls = []

    def counted(*args, **more):
        calls.append(1)
        return _die() if len(calls) > 1 else function(*args, **more)

    return counted


def _half_a_line(self, step, split, values) -> None:
    with self.path.open("a") as file:
        file.write('{"step": 10, "split": "tr')
    _die()


def _before_rename():
    import contextlib

    @contextlib.contextmanager
    def replacing(path):
        yield path.with_name(".metrics.1.jsonl")
        _die()

    return replacing


def _set(owner, name, value):
    return lambda: setattr(owner, name, value)


# name -> (what the first process does to itself, what a second one does while it resumes, or None)
MOMENTS = {
    "before config.json": (_set(runs, "write_json", _die), None),
    "before env.json": (_set(runs, "write_json", _second(runs.write_json)), None),
    "in a line of metrics.jsonl": (_set(metrics.MetricsWriter, "write", _half_a_line), None),
    "after the last checkpoint": (_set(training, "_figures", _die), None),
    "while metrics.jsonl is written anew": (
        _set(training, "_figures", _die),
        _set(metrics, "replacing", _before_rename()),
    ),
}


def at_moments(folder: Path, kind: str = "quick") -> list[dict]:
    """Kills a run at each of `MOMENTS` and returns a row for each."""
    experiment, rows = experiment_of(kind, folder), []
    training._figures = lambda run, state, step, *more: None  # they take most of a short run's time
    want = finish(experiment, folder / "whole", False)
    assert "state" in want, want
    for number, (name, injected) in enumerate(MOMENTS.items()):
        path = folder / str(number)
        for inject in filter(None, injected):
            code = wait(forked(lambda i=inject, p=path: train(experiment, p, resumable(p), i)), DEADLINE)
            assert code == -9, (name, code, Path(f"{path}.out").read_text())
        got = finish(experiment, path, resumable(path))
        rows.append({"moment": name, "same": got == want, "got": None if got == want else got})
        print(json.dumps(rows[-1]), flush=True)
    return rows


KINDS["quick"] = _put(steps=30, logging=Logging(10, 10, figures_minutes=0.0, tensorboard=False))


def run() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--moments", action="store_true")
    parser.add_argument("--kinds", nargs="*", default=[kind for kind in KINDS if kind != "quick"])
    options = parser.parse_args()
    digits.arrays()  # scikit-learn's second of imports, once
    with tempfile.TemporaryDirectory() as folder:
        if options.moments:
            rows = at_moments(Path(folder))
        else:
            rows = at_random(options.kills, options.seed, Path(folder), options.kinds)
    same = collections.Counter(row.get("kind", "moment") for row in rows if row["same"])
    print(json.dumps({"kills": len(rows), "same": sum(same.values()), "by kind": same}))
    return 0 if all(row["same"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(run())
