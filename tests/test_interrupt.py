"""Ctrl-C and SIGTERM: exit 130 or 143 with one line, whatever the process is doing, and nothing half-written."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import support
import test_damage

from vae_jax.cli import main
from vae_jax.runs.run import Run
from vae_jax.tasks import training
from vae_jax.train.signals import Interrupted

SIGNALS = [(signal.SIGINT, 130, "vae-jax: interrupted\n"), (signal.SIGTERM, 143, "vae-jax: stopped by SIGTERM\n")]
ENV = {**os.environ, "XLA_FLAGS": ""}  # one device, and code as fast as a user's: device work that outlasts Python

home, here = test_damage.home, test_damage.here


def python(code: str, **options) -> subprocess.CompletedProcess:
    """Runs code after the handlers are installed."""
    head = "import os, signal, sys, time\nfrom vae_jax.cli import stop\nstop.install()\n"
    return subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, timeout=60, env=ENV, check=False, **options
    )


LONG = """
import jax, jax.numpy as jnp
@jax.jit
def long(x):
    return jax.lax.fori_loop(0, 20_000, lambda i, x: jnp.sin(x @ x), x)
x = jnp.ones((300, 300))
"""


@pytest.mark.parametrize(("signum", "code", "line"), SIGNALS)
def test_device_work_under_way_does_not_outlive_the_interpreter(signum, code, line):
    """A KeyboardInterrupt here ends in a segmentation fault: Python is taken down under XLA's threads."""
    done = python(f"{LONG}\ny = long(x)\nos.kill(os.getpid(), {signum})\ntime.sleep(30)")
    assert (done.returncode, done.stderr) == (code, line)


def test_a_signal_inside_a_callback_is_not_swallowed():
    """JAX has a callback of the garbage collector, out of which no KeyboardInterrupt comes."""
    code = "import gc\ngc.callbacks.append(lambda *a: os.kill(os.getpid(), 2))\ngc.collect()\nprint('went on')"
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "vae-jax: interrupted\n")


MINUTES = LONG.replace("20_000", "20_000_000") + "import threading\nimport numpy as np\n"


def after(seconds: float, signum: int = 2) -> str:
    return f"threading.Timer({seconds}, lambda: os.kill(os.getpid(), {signum})).start()\n"


def test_a_signal_is_noticed_while_the_main_thread_waits_for_the_device():
    done = python(MINUTES + after(1.0) + "np.asarray(long(x))\nprint('went on')")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "vae-jax: interrupted\n")


FLAG = "from vae_jax.train.signals import SignalFlag\n"


def test_notes_that_were_held_back_are_not_lost():
    held = "from vae_jax.errors import holding_notes, note\nwith holding_notes():\n    note('a note')\n"
    done = python(held + "    os.kill(os.getpid(), 15)\n    time.sleep(3)")
    assert (done.returncode, done.stderr) == (143, "a note\nvae-jax: stopped by SIGTERM\n")


def test_the_training_loop_sees_the_first_signal_and_the_second_acts_at_once():
    done = python(
        FLAG + "with SignalFlag() as flag:\n"
        "    os.kill(os.getpid(), 2)\n    print(flag.signum, flush=True)\n"
        "    time.sleep(2.5)\n    print('waits', flush=True)\n"
        "    os.kill(os.getpid(), 15)\n    time.sleep(0.3)\n    print('went on', flush=True)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "2\nwaits\n", "vae-jax: stopped by SIGTERM\n")


def test_the_first_signal_waits_for_the_training_loop_however_long_its_step_lasts():
    """A checkpoint is to be saved; the main thread does not come back to Python for longer than the grace."""
    done = python(
        "import hashlib, threading\n"
        "def away(n):\n    start = time.monotonic()\n    hashlib.pbkdf2_hmac('sha256', b'x', b'x', n)\n"
        "    return time.monotonic() - start\n"
        "n = int(4e5 / away(100_000))  # four seconds without the interpreter\n"
        + FLAG
        + after(0.3)
        + "with SignalFlag() as flag:\n    print(away(n) > 2.0, flag.signum)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True 2\n", "")


def test_the_second_signal_acts_while_the_training_loop_waits_for_the_device():
    """Where one step, or its compilation, takes minutes, not even the first was noticed."""
    wait = "with SignalFlag():\n    np.asarray(long(x))\nprint('went on')"
    done = python(MINUTES + FLAG + after(1.0) + after(1.5) + wait)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "vae-jax: interrupted\n")


@pytest.mark.parametrize("during", ["pass", "os.kill(os.getpid(), 2)"], ids=["quiet", "after a signal"])
def test_after_the_training_loop_its_flag_waits_for_nothing(during):
    done = python(MINUTES + FLAG + f"with SignalFlag():\n    {during}\n" + after(1.0) + "np.asarray(long(x))")
    assert (done.returncode, done.stderr) == (130, "vae-jax: interrupted\n")


def test_unfinished_files_are_removed_and_finished_ones_kept(tmp_path):
    (tmp_path / "eval.json").write_text("{}")
    done = python(
        "import pathlib\nfrom vae_jax.files.atomic import replacing, temporary_folder\n"
        "with temporary_folder(pathlib.Path('.'), '.incomplete-') as folder:\n"
        "    (folder / 'part').write_text('x')\n"
        "    with replacing(pathlib.Path('eval.json')) as temporary:\n"
        "        temporary.write_text('half')\n"
        "        os.kill(os.getpid(), 2)",
        cwd=tmp_path,
    )
    assert done.returncode == 130
    assert [p.name for p in tmp_path.iterdir()] == ["eval.json"]
    assert (tmp_path / "eval.json").read_text() == "{}"


def test_a_command_that_is_done_keeps_its_exit_code():
    done = python("stop.done()\nos.kill(os.getpid(), 2)\nos.kill(os.getpid(), 15)\nprint('done')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_an_ignored_signal_stays_ignored():
    """As under nohup, and in the background of a shell without job control."""
    done = python(
        "os.kill(os.getpid(), 2)\nprint('done')", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    )
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_data_workers_do_not_outlive_the_command():
    done = python(
        "import multiprocessing\n"
        "child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "child.start()\nprint(child.pid, flush=True)\nos.kill(os.getpid(), 2)"
    )
    assert done.returncode == 130
    deadline = time.monotonic() + 10
    while Path(f"/proc/{int(done.stdout)}/cmdline").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{int(done.stdout)}/cmdline").exists()


def test_the_end_of_a_data_worker_is_not_the_end_of_the_command(tmp_path):
    """A forked child inherits handlers, unfinished files and the pipe through which signals are told."""
    done = python(
        "import multiprocessing, pathlib\nfrom vae_jax.files.atomic import replacing\n"
        "with replacing(pathlib.Path('a.json')) as temporary:\n"
        "    for signum in (2, 15):\n"
        "        child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "        child.start()\n        time.sleep(0.2)\n        os.kill(child.pid, signum)\n        child.join()\n"
        "    time.sleep(1.5)\n    temporary.write_text('{}')\nprint('done')",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def start(*words: str) -> subprocess.Popen:
    """Starts a command and waits until its handlers are there: before that, it is Python that answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vae_jax", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    status, deadline = Path(f"/proc/{process.pid}/status"), time.monotonic() + 60
    while time.monotonic() < deadline:
        caught = re.search(r"SigCgt:\s*(\w+)", status.read_text())
        if caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            return process
        time.sleep(0.01)
    raise AssertionError(process.communicate())


def cpu_seconds(process: subprocess.Popen) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ended(process: subprocess.Popen) -> tuple[int, str]:
    _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("seconds", [pytest.param(0.0, marks=pytest.mark.slow), 1.5, 6.0])
def test_ctrl_c_in_eval_at_its_start_in_its_imports_and_while_it_computes(here, seconds):
    before = (here / "run" / "eval.json").read_bytes()
    process = start("eval", "run", "--k", "2000000", "--limit", "0")
    while cpu_seconds(process) < seconds:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "vae-jax: interrupted\n")
    assert (here / "run" / "eval.json").read_bytes() == before
    assert not list((here / "run").glob(".*.json"))


def size_of(file) -> int:
    """Returns the size of a file, 0 while there is none: without a checkpoint the lines so far are moved aside."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def test_the_second_ctrl_c_of_train_acts_at_once_and_the_run_resumes(here):
    """The first waits for the step under way and a checkpoint; both may fall while the program is compiled."""
    process = start("train", "tiny", "--workdir", "long", "--steps", "1000000", "--logging.checkpoint-every", "500000")
    metrics = here / "long" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    code, err = ended(process)
    assert code == 130
    assert err.count("\n") == 1
    assert err.startswith("vae-jax: ")
    words = ["train", "tiny", "--workdir", "long", "--steps", "1000000", "--logging.checkpoint-every", "500000"]
    size = metrics.stat().st_size
    process = start(*words, "--resume")
    while size_of(metrics) <= size:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    code, err = ended(process)
    assert code == 143
    assert re.fullmatch(r"vae-jax: stopped by SIGTERM at step \d+; continue with `vae-jax train --resume long`\n", err)
    said: list[str] = []
    assert int(Run.load("long").restore(say=said.append).step) > 0
    assert said == []


@pytest.mark.parametrize("moment", ["the last step", "the last figures"])
def test_ctrl_c_after_the_last_step_is_obeyed_and_resume_ends_the_run(here, monkeypatch, capsys, moment):
    """It was noted and forgotten: the evaluation, minutes for a large set, ran to its end."""
    config = Run.load("run").config

    def kill(*args):
        os.kill(os.getpid(), signal.SIGINT)

    def report(step, metrics):
        if step == config.steps and moment == "the last step":
            kill()

    drawn = []

    def figures(run, state, step, *more):
        drawn.append(step)
        if moment == "the last figures":
            kill()

    monkeypatch.setattr(training, "_figures", figures)
    with pytest.raises(Interrupted, match=r"stopped by SIGINT at step 12; continue with `vj.resume\(.late.\)`"):
        training.train_run(config, "tiny", "late", report=report)
    assert drawn == ([12] if moment == "the last figures" else [])  # nobody waits for pictures who wants out
    monkeypatch.undo()
    support.assert_trees_equal(Run.load(here / "late").restore(), Run.load(here / "run").restore())
    monkeypatch.chdir(here)
    assert main.run(["train", "tiny", "--workdir", "late", "--resume", "--quiet"]) == 0
    assert test_damage.numbers(here / "late" / "eval.json") == test_damage.numbers(here / "run" / "eval.json")


COMMANDS = {
    **{
        name: [*words, "--out", "density" if name == "fit-prior" else "a.npz"]
        for name, words in test_damage.COMMANDS.items()
    },
    "eval": ["eval", "run", "--k", "100000", "--out", "a.json"],
    "score": ["score", "run", "--input", "digits", "--out", "a.csv"],
    "report": ["report", "run", "--out", "a.html"],
    "compare": ["compare", "run", "run2", "--out", "a.png"],
    "train": ["train", "tiny", "--workdir", "a"],
    "sweep": ["sweep", "tiny", "--seeds", "0:2", "--workdir", "a"],
    "baseline": ["baseline", "digits", "--components", "2", "--workdir", "a"],
    "data": ["data", "prepare", "digits", "--data-dir", "prepared"],
    "list": ["list"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_at_ten_moments_of_every_command(here, command):
    import shutil

    import numpy as np

    np.save("z.npy", np.zeros((2, 2), np.float32))
    np.savez("holes.npz", images=np.where(np.eye(8) > 0, np.nan, 0.5)[None])
    shutil.copytree("run", "run2")
    made = ("a", "a.npz", "a.csv", "a.json", "a.html", "a.png", "density", "prepared")
    words, before = COMMANDS[command], {p.name for p in here.iterdir()}
    began = time.monotonic()
    code, err = ended(start(*words))
    assert code == 0, err
    whole, codes = time.monotonic() - began, []
    for moment in range(10):
        for name in made:
            shutil.rmtree(name, ignore_errors=True)
            Path(name).unlink(missing_ok=True)
        process = start(*words)
        time.sleep(0.1 * moment * whole)
        process.send_signal(signal.SIGINT)
        code, err = ended(process)
        codes.append(code)
        # It may end before a late signal, never before the first.
        assert code == 130 if moment == 0 else set(codes) <= {0, 130}, (moment, code, err)
        lines = err.splitlines()
        if code == 130:
            assert len(lines) == 1, (moment, err)
            assert lines[0].startswith(("vae-jax: interrupted", "vae-jax: stopped by SIGINT at step"))
        left = {p.name for p in here.iterdir()} - before - set(made)
        assert not left, (moment, left)
        hidden = [p for p in here.rglob(".*") if p.name != ".lock"]
        assert not hidden, (moment, hidden)
        if command in ("train", "sweep") and Path("a").exists() and any(Path("a").glob("*.json")):
            assert ended(start(*words, "--resume"))[0] == 0
