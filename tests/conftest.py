"""Settings of the whole suite. They must be made before jax starts: its device count is fixed at the first call."""

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
from importlib import metadata
from pathlib import Path

_FAKE_DEVICES = 8
_before = os.environ.get("XLA_FLAGS", "")
# Tests compile far more than they compute: without LLVM's optimization the suite takes half the time.
_fast_compile = f"{_before} --xla_backend_optimization_level=0"
if metadata.version("jaxlib").startswith("0.10."):
    # XLA's older way to write fused loops compiles three times as fast. A jaxlib that has dropped it would not start.
    _fast_compile += " --xla_cpu_use_fusion_emitters=false"
    # Two tests run at a time, on two cores: programs that are cut for many threads take a third longer to compile.
    _fast_compile += " --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{_fast_compile} --xla_force_host_platform_device_count={_FAKE_DEVICES}"
os.environ["JAX_PLATFORMS"] = "cpu"
# Broadcasting between ranks hides missing axes: [B] + [B, 1] is an error here, not a silent [B, B].
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Many tests train the same small model: whoever comes second, in whatever process, finds its programs compiled.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import psutil  # noqa: E402
import pytest  # noqa: E402
from shares import mark_slow  # noqa: E402

pytest.register_assert_rewrite("contract")

assert jax.device_count() == _FAKE_DEVICES, "jax had started before tests/conftest.py could ask for its devices"
# A shell that runs the suite in the background ignores Ctrl-C on behalf of all that it starts, the commands under test
# included: those would run on for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Commands that tests start see the machine as a user does: one device.
os.environ["XLA_FLAGS"] = _fast_compile


_MANY_MAPS, _FULL = 15_000, 1.5e9  # memory maps and bytes of a process from which on its programs are freed
_GROWTH = 0.7e9  # bytes: so much more than after the last time, as the C library gives back little of what is freed
_MOST = 4.5e9
_LOWERINGS = 200  # that share one MLIR context, which keeps every type and constant it has seen


def share_contexts():
    """Lets programs share MLIR contexts: to make and end one is a quarter of what a small program costs to compile."""
    from jax._src.interpreters import mlir

    make, local = mlir.make_ir_context, threading.local()

    def shared():
        if getattr(local, "left", 0) == 0:
            local.context, local.left = make(), _LOWERINGS
        local.left -= 1
        return local.context

    mlir.make_ir_context = shared


if metadata.version("jaxlib").startswith("0.10."):
    share_contexts()


# Files of few tests that take long. Two workers share the files: one of these at the end would keep one worker waiting.
LONG = (
    "interrupt", "experiments", "pairs", "contract", "extending", "resume", "sweep", "contract_inference",
    "options_train", "damage", "wiring", "ais", "options_measure", "oracles", "notebooks", "contract_objectives",
    "options_components", "splits", "net_evaluation", "kills", "reproduce", "readme", "condition", "stderr",
    "measures", "expost", "networks_strong", "inception", "parallel", "training", "evaluation", "anomaly",
    "multimodal", "importance", "gaps",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Marks slow what the suite does not keep, and puts the long files first; the others follow in their order."""
    named = any("::" in argument for argument in config.args) or getattr(config.option, "lf", False)
    mark_slow(items, whole=not named)
    first = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: first.get(item.path.name, len(LONG)))
    # Python's own thresholds suit programs of few objects, and looked through these again and again.
    gc.set_threshold(50_000, 20, 20)
    gc.freeze()


def free_programs():
    """Frees compiled programs once they are many: each keeps memory maps, of which a process may have some 65,000.

    Until then whoever comes next finds the small programs of single operations compiled, which every test needs.
    """
    maps, memory = Path("/proc/self/maps"), psutil.Process().memory_info
    many = maps.exists() and maps.read_bytes().count(b"\n") > _MANY_MAPS
    if many or memory().rss > free_programs.full:
        jax.clear_caches()
        gc.unfreeze()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # which keeps what was freed, some GB of it, for itself
        free_programs.full = min(max(_FULL, memory().rss + _GROWTH), _MOST)


free_programs.full = _FULL


@pytest.fixture
def programs_are_freed():
    """Looks after each test whether its programs were too many, for files whose tests compile large ones."""
    yield
    free_programs()


@pytest.fixture(scope="module", autouse=True)
def _forget_programs(request):
    """Frees what a file built, and all compiled programs once they are many."""
    yield
    # Shared models go as well: a file that replaces what a model calls must not meet those of another file.
    shared = ("contract", "vae_jax.runs.builds", "vae_jax.train.parallel", "vae_jax.data.pipeline")
    for module in (request.module, *map(sys.modules.get, shared)):
        for value in list(vars(module).values()) if module else ():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
    free_programs()
    gc.collect()
    # What is left (modules, cached traces) lives on and need not be looked through again.
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _no_figures_of_training(request):
    """Leaves out the figures that a run in this process draws as it ends: a third of the time of a short run.

    Files whose tests look at these say `FIGURES = True`, single tests request the fixture `figures_of_training`. That
    every kind of model and of data draws its own is shown by test_experiments.py, test_figures.py and test_tables.py.
    """
    if getattr(request.module, "FIGURES", False):
        yield
        return
    from vae_jax import figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "write_all", _no_figures)
        yield


def _no_figures(run_path, *args, **options) -> list[Path]:
    (run_path / "figures").mkdir(exist_ok=True)
    return []


@pytest.fixture
def figures_of_training(monkeypatch):
    """Lets the runs of one test draw their figures."""
    from vae_jax import figures
    from vae_jax.figures.write import write_all

    monkeypatch.setattr(figures, "write_all", write_all)


@pytest.fixture(autouse=True)
def _random_numbers_of_its_own(request):
    """Gives each test the first numbers of its file's RNG: what it draws must not depend on which tests ran before."""
    if isinstance(rng := getattr(request.module, "RNG", None), np.random.Generator):
        rng.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture
def command_line():
    """Makes messages speak to somebody at the command line, in tests that call what commands call."""
    from vae_jax.errors import on_command_line

    with on_command_line():
        yield


@pytest.fixture(autouse=True)
def _no_command_outlives_its_test():
    """Ends what a failed test left running: a long command would take the processor from all tests after it."""
    before = {child.pid for child in children()}
    yield
    for child in children():
        with contextlib.suppress(psutil.Error):
            if child.pid not in before and "vae_jax" in " ".join(child.cmdline()):
                child.kill()


def children() -> list[psutil.Process]:
    """Returns the processes that this one started. To look through all takes 4 ms; most tests have none at all."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    return psutil.Process().children()
