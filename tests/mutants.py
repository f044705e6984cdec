"""One-line bugs, and the tests that must notice them: `python tests/mutants.py [WORD ...] [--list]`.

A mutant is a line of MUTANTS: a file, a text in it that occurs once, what replaces it, and the test files to run. Each
is applied to a scratch copy of the tracked files; the tests run there with `-x`. A mutant is `killed` when a test
fails, `survived` when all pass, `stale` when its text is not there (once) any more, and `broken` when no test ran.
WORD picks the mutants whose file or texts contain it. The exit code is the number of those that were not killed.

It is a tool, not a test: a minute or so a mutant. Run it after moving code between modules.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Mutant(NamedTuple):
    """One bug.

    Attributes:
      file: path in the repository.
      old: text that occurs once in it.
      new: what it becomes.
      tests: what must notice, as pytest takes it.
    """

    file: str
    old: str
    new: str
    tests: str


AVERAGE = "tests/test_moving_average.py"
WIRING = "tests/test_wiring.py"
LOOP = "tests/test_loop.py"
LOOK = "tests/test_cli_look.py"
SWEEP = "tests/test_sweep.py"
TRAIN = "tests/test_training.py"
ADVERSARIAL, GAMES = "vae_jax/models/wrappers/adversarial.py", "tests/test_adversarial.py"
EVAL, PARAMS = "state.eval_params, state.model_state", "state.params, state.model_state"

MUTANTS = [
    # Which weights are read.
    Mutant("vae_jax/train/state.py", "self.params if self.ema is None else self.ema", "self.params", AVERAGE),
    Mutant(
        "vae_jax/evaluation/likelihood.py", f"params, model_state = {EVAL}", f"params, model_state = {PARAMS}", AVERAGE
    ),
    Mutant("vae_jax/evaluation/sandwich.py", EVAL, PARAMS, AVERAGE),
    Mutant("vae_jax/evaluation/calibration.py", EVAL, PARAMS, AVERAGE),
    Mutant("vae_jax/evaluation/features.py", f"embed({EVAL}", f"embed({PARAMS}", AVERAGE),
    Mutant("vae_jax/evaluation/codes.py", f"code = encode({EVAL}", f"code = encode({PARAMS}", AVERAGE),
    Mutant("vae_jax/evaluation/codes.py", f"_look(decode({EVAL}", f"_look(decode({PARAMS}", AVERAGE),
    Mutant(
        "vae_jax/evaluation/codes.py",
        "params, model_state = state.eval_params, state.model_state\n        z = sample(",
        "params, model_state = state.params, state.model_state\n        z = sample(",
        AVERAGE,
    ),
    Mutant(
        "vae_jax/evaluation/codes.py", f'out["cond"] = features({EVAL}', f'out["cond"] = features({PARAMS}', AVERAGE
    ),
    Mutant("vae_jax/evaluation/inference_gaps.py", f"joint = joint_of({EVAL}", f"joint = joint_of({PARAMS}", AVERAGE),
    Mutant("vae_jax/evaluation/inference_gaps.py", f"q = encode({EVAL}", f"q = encode({PARAMS}", AVERAGE),
    Mutant("vae_jax/evaluation/spread.py", f"q = encode({EVAL}", f"q = encode({PARAMS}", AVERAGE),
    Mutant("vae_jax/evaluation/spread.py", f"p = joint({EVAL}", f"p = joint({PARAMS}", AVERAGE),
    Mutant("vae_jax/tasks/measuring.py", '"last" if state.ema is None else', '"last" if True else', AVERAGE),
    # Two players: neither may reach the other's parameters.
    Mutant(ADVERSARIAL, "jax.lax.stop_gradient(params)", "params", GAMES),
    Mutant(ADVERSARIAL, "jax.lax.stop_gradient(dict(aux.outputs))", "dict(aux.outputs)", GAMES),
    Mutant(
        ADVERSARIAL, "jnp.zeros_like(primals[0]), tangents[0]", "jnp.zeros_like(primals[0]), 0 * tangents[0]", GAMES
    ),
    # Training: state, options, groups.
    Mutant(
        "vae_jax/runs/run.py",
        '"critic_optimizer" if group in adversaries',
        '"optimizer" if group in adversaries',
        WIRING,
    ),
    Mutant("vae_jax/runs/builds.py", "steps, model.training.gates)", "steps)", WIRING),
    Mutant("vae_jax/runs/run.py", "self.optimizers, self.config.steps)", "self.optimizers, 1)", WIRING),
    Mutant("vae_jax/runs/run.py", "c.accumulate)", "1)", WIRING),
    Mutant("vae_jax/runs/run.py", "c.ema_decay or None", "0.5 if c.ema_decay else None", WIRING),
    Mutant("vae_jax/tasks/held_out.py", 'return "validation"', 'return "test"', WIRING),
    Mutant("vae_jax/tasks/held_out.py", "final=self._metric is not None", "final=True", WIRING),
    Mutant("vae_jax/tasks/training.py", "minutes=c.logging.figures_minutes", "minutes=0.0", LOOP),
    Mutant(
        "vae_jax/train/step.py",
        "incremental_update(params, ema, 1.0 - ema_decay)",
        "incremental_update(params, ema, ema_decay)",
        WIRING,
    ),
    Mutant("vae_jax/train/step.py", "lambda x: x / count, total)", "lambda x: x, total)", WIRING),
    Mutant(
        "vae_jax/train/optimizers.py",
        "lambda step, *, g=gate, **_: g(step)",
        "lambda step, *, g=gate, **_: g(step + 1)",
        WIRING,
    ),
    Mutant(
        "vae_jax/train/optimizers.py",
        "optax.clip_by_global_norm(self.clip)",
        "optax.clip_by_global_norm(10 * self.clip)",
        WIRING,
    ),
    Mutant(
        "vae_jax/distributions/concrete.py",
        "jnp.clip(step / steps, 0.0, 1.0))",
        "jnp.clip(step / (2 * steps), 0.0, 1.0))",
        WIRING,
    ),
    Mutant(
        "vae_jax/schedules.py",
        "(1.0 - self.start) * jnp.clip(step / self.steps, 0.0, 1.0)",
        "(1.0 - self.start) * jnp.clip(step / self.steps, 0.0, 0.9)",
        WIRING,
    ),
    # The loop.
    Mutant(
        "vae_jax/train/loop.py",
        "window = Window()\n            if step % checkpoint_every",
        "pass\n            if step % checkpoint_every",
        LOOP,
    ),
    Mutant(
        "vae_jax/train/loop.py",
        "window.add(metrics, n, seconds if compiled else 0.0)",
        "window.add(metrics, n, seconds)",
        LOOP,
    ),
    Mutant("vae_jax/train/loop.py", "+ n * np.asarray(value, np.float64)", "+ np.asarray(value, np.float64)", LOOP),
    Mutant("vae_jax/train/loop.py", "now - self._last >= 60 * self.minutes", "now - self._last >= self.minutes", LOOP),
    Mutant("vae_jax/train/loop.py", "self._last = time.monotonic()\n", "pass\n", LOOP),
    Mutant("vae_jax/train/loop.py", "(step == steps and event.final)", "step == steps", LOOP),
    Mutant(
        "vae_jax/train/loop.py",
        "NonFinite(int(state.step), not_finite(metrics)",
        "NonFinite(step + n, not_finite(metrics)",
        LOOP,
    ),
    Mutant(
        "vae_jax/train/feed.py",
        "jnp.where(good & ~finite, state.step, bad)",
        "jnp.where(~finite, state.step, bad)",
        LOOP,
    ),
    Mutant("vae_jax/train/feed.py", "jnp.where(good, jnp.where(finite, t + m, m), t)", "t + m", LOOP),
    Mutant("vae_jax/train/metrics.py", "if rate < 0.5:", "if rate < 0.05:", LOOP),
    Mutant("vae_jax/runs/run.py", '"--porcelain", "-uno"', '"--porcelain", "-uall"', LOOP),
    Mutant("vae_jax/runs/run.py", '+ ("+changes" if git("status"', '+ ("" if git("status"', LOOP),
    # Data: what reaches the model.
    Mutant(
        "vae_jax/data/pipeline.py",
        'permute(prng.site_key(key, "shuffle"), position, size, epoch) if train else position',
        "position",
        "tests/test_data_pipeline.py",
    ),
    Mutant(
        "vae_jax/data/pipeline.py",
        "rows[start : start + batch_size]",
        "rows[start : start + batch_size - 1]",
        "tests/test_data_pipeline.py",
    ),
    Mutant(
        "vae_jax/data/pipeline.py",
        "visit = epoch * np.uint32(size) + position",
        "visit = position",
        "tests/test_data_pipeline.py",
    ),
    Mutant(
        "vae_jax/data/pipeline.py", '{"visit": batch["visit"]})', '{"visit": batch["visit"] * 0})', "tests/test_semi.py"
    ),
    # Commands.
    Mutant(
        "vae_jax/tasks/reconstruction.py",
        "mse = np.square(x - again).mean(",
        "mse = np.abs(x - again).mean(",
        LOOK,
    ),
    Mutant(
        "vae_jax/tasks/paths.py",
        "latents.interpolate(codes.mean[0::2], codes.mean[1::2], steps, path)",
        "latents.interpolate(codes.mean[1::2], codes.mean[0::2], steps, path)",
        LOOK,
    ),
    Mutant("vae_jax/tasks/traversal.py", "base=None if own is None else own.mean[0],", "base=None,", LOOK),
    Mutant(
        "vae_jax/tasks/reconstruction.py",
        "batch = given.chosen(run, split, indices) if indices else",
        "batch = given.chosen(run, split, range(len(indices))) if indices else",
        LOOK,
    ),
    Mutant(
        "vae_jax/tasks/codes.py",
        "{name: getattr(codes, name) for name in _LATENTS}",
        '{name: getattr(codes, "mean" if name == "z" else name) for name in _LATENTS}',
        LOOK,
    ),
    Mutant(
        "vae_jax/tasks/codes.py",
        '{"labels" if key == "label" else key: value for',
        '{"labels" if key == "label" else key: value * 0 for',
        LOOK,
    ),
    Mutant(
        "vae_jax/tasks/paths.py",
        "direction = latents.attribute(known.mean, values, from_, to)",
        "direction = latents.attribute(known.mean, values, to, from_)",
        "tests/test_cli_look.py tests/test_representation.py",
    ),
    Mutant(
        "vae_jax/evaluation/subject.py",
        "return min(self.limit, self.source.size) if self.limit else self.source.size",
        "return self.source.size",
        "tests/test_measures.py tests/test_anomaly.py tests/test_moving_average.py",
    ),
    Mutant(
        "vae_jax/evaluation/subject.py",
        "self.finite(encode_all(self.run.model, self.state, self.batches()))",
        "encode_all(self.run.model, self.state, self.batches())",
        "tests/test_representation.py",
    ),
    Mutant(
        "vae_jax/evaluation/subject.py",
        "levels = 2 if binary else 256",
        "levels = 256 if binary else 256",
        "tests/test_measures.py",
    ),
    Mutant(
        "vae_jax/tasks/measuring.py",
        "key=jax.random.key(call.seed)",
        "key=jax.random.key(0)",
        LOOK,
    ),
    Mutant(
        "vae_jax/runs/targets.py",
        "return seen >= value - tolerance",
        "return seen <= value - tolerance",
        "tests/test_reproduce.py tests/test_cli_look.py",
    ),
    # Sweeps and figures.
    Mutant("vae_jax/tasks/sweeps/run.py", 'metrics=result["metrics"], refused', "metrics={}, refused", SWEEP),
    Mutant(
        "vae_jax/tasks/sweeps/table.py",
        'min(seen) if better(name) == "less" else max(',
        'min(seen) if better(name) == "more" else max(',
        SWEEP,
    ),
    Mutant("vae_jax/tasks/sweeps/table.py", "numbers.std(ddof=1)", "numbers.std(ddof=0)", SWEEP),
    Mutant(
        "vae_jax/tasks/sweeps/group.py",
        "getattr(run.config, option).lr for run in runs",
        "getattr(runs[0].config, option).lr for run in runs",
        SWEEP,
    ),
    Mutant(
        "vae_jax/train/population_loop.py",
        "windows[number].add(own, n, seconds if compiled else 0.0)",
        "windows[number].add(own, 1, seconds if compiled else 0.0)",
        SWEEP,
    ),
    Mutant(
        "vae_jax/figures/grid.py",
        "halves = fold(np.asarray(images), columns), fold(np.asarray(made), columns)",
        "halves = fold(np.asarray(made), columns), fold(np.asarray(images), columns)",
        "tests/test_figures.py",
    ),
    Mutant(
        "vae_jax/figures/write.py",
        "made = decode_all(model, state, walk.codes, cond=middle)",
        "made = decode_all(model, state, walk.codes * 0, cond=middle)",
        "tests/test_figures.py",
    ),
]


def copy(folder: Path) -> None:
    """Copies the tracked files, as they are now."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def verdict(mutant: Mutant, folder: Path) -> tuple[str, str]:
    """Returns (killed, survived, stale or broken; the first test that failed)."""
    path = folder / mutant.file
    text = path.read_text() if path.is_file() else ""
    if text.count(mutant.old) != 1:
        return "stale", f"its text occurs {text.count(mutant.old)} times"
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-rf"]
    command = [sys.executable, "-m", "pytest", *options, *mutant.tests.split()]
    try:
        path.write_text(text.replace(mutant.old, mutant.new))
        env = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    finally:
        path.write_text(text)
    failed = next((line for line in done.stdout.splitlines() if line.startswith("FAILED")), "")
    if done.returncode == 1 and failed:
        return "killed", failed.removeprefix("FAILED ").split(" - ")[0]
    return ("survived", "") if done.returncode == 0 else ("broken", done.stdout.strip()[-300:])


def main(argv: list[str] | None = None) -> int:
    """Runs the mutants that are asked for and returns how many were not killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="of the files or texts of the mutants to run (default: all)")
    parser.add_argument("--list", action="store_true", help="only show them, and whether they still apply")
    args = parser.parse_args(argv)
    wanted = [m for m in MUTANTS if not args.words or any(w in " ".join(m) for w in args.words)]
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        for number, mutant in enumerate(wanted, 1):
            start = time.monotonic()
            if args.list:
                found = (ROOT / mutant.file).read_text().count(mutant.old)
                state, detail = ("applies" if found == 1 else "stale"), ""
            else:
                state, detail = verdict(mutant, folder)
            counts[state] = counts.get(state, 0) + 1
            change = " ".join(f"{mutant.old} -> {mutant.new}".split())
            took = f"{time.monotonic() - start:.0f} s"
            print(f"{number}/{len(wanted)} {state} {took} {mutant.file}: {change} {detail}", flush=True)
    print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    return sum(count for state, count in counts.items() if state not in ("killed", "applies"))


if __name__ == "__main__":
    sys.exit(main())
