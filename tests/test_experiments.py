"""Every experiment file: two steps of it through the real command, and a docstring that says what it is."""

import ast
import dataclasses
import functools
import json
import os
import re
from pathlib import Path

import jax
import pytest
import support

from benchmarks import reproduce
from vae_jax import data
from vae_jax.cli import evaluate, main
from vae_jax.models import SecondStage
from vae_jax.runs import config as configs
from vae_jax.runs import experiments as index
from vae_jax.runs import kinds
from vae_jax.runs.config_json import from_dict, to_dict
from vae_jax.runs.training_data import spec_of
from vae_jax.tasks import measuring, training

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.py"), key=lambda path: path.stem)
SHARED = ROOT.parent / "shared" / "data"
# Each experiment has programs of its own, of full size: together they take several GB.
pytestmark = pytest.mark.usefixtures("programs_are_freed")


@pytest.fixture(autouse=True)
def raw_data(monkeypatch):
    if "VAE_JAX_DATA" not in os.environ and SHARED.is_dir():
        monkeypatch.setenv("VAE_JAX_DATA", str(SHARED))


def need_data(name: str) -> None:
    folder = Path(os.environ.get("VAE_JAX_DATA", SHARED)) / name
    if name in ("mnist", "fashion_mnist") and not folder.is_dir():
        pytest.skip(f"mnist data absent: no {folder}")


@functools.cache
def drawn() -> set[str]:
    """Returns one experiment of each kind of model: pictures take as long as all else, and the kinds differ."""
    first: dict[tuple, str] = {}
    # Those of the smallest images where there are some: a picture of 256 examples is what takes the time.
    for file in sorted(EXPERIMENTS, key=lambda file: "digits" not in file.stem):
        model = index.load(file).model
        # Conditions, and planes of two dimensions, are drawn by test_report.py and test_figures.py.
        first.setdefault((type(model), getattr(getattr(model, "posterior", None), "space", None)), file.stem)
    return set(first.values())


def two_steps(file: Path, run: Path, trained) -> None:
    """Trains two steps through the command, of the same parts narrowed and one layer deep."""
    need_data(index.load(file).data.name)
    words = ["--smoke", "--mesh.data", "1"]
    # A second stage names the experiment of its first one in the command of its docstring.
    for name in re.findall(r"--stage1 runs/(\w+)", file.read_text()):
        words += ["--stage1", str(trained(index.find(name)))]
    real = configs.check

    def check(config, **options):
        return real(dataclasses.replace(config, model=support.narrowed(config.model)), **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configs, "check", check)
        assert main.run(["train", str(file), *words, "--workdir", str(run)]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == [1, 2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains an experiment once, also where it is the first stage of others; without figures and numbers."""
    folder = tmp_path_factory.mktemp("experiments")

    def run(file: Path) -> Path:
        path = folder / file.stem
        if not path.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(training, "_figures", lambda run, state, step, *more: None)
                patch.setattr(measuring, "evaluate_run", lambda run: {})
                patch.setattr(evaluate, "print_result", lambda result: None)
                two_steps(file, path, run)
        return path

    return run


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda f: f.stem)
def test_the_model_is_one_as_the_file_has_it(file):
    """Not narrowed: sizes that do not go together are refused here, and shapes are those of its data."""
    need_data(index.load(file).data.name)
    config = index.load(file)
    if isinstance(config.model, SecondStage):
        # Its first stage, untrained: no number is read of it.
        first = index.load(index.find(reproduce.first_stage(file.read_text())))
        config = configs.put(config, configs.FIRST, first.model)
    config = configs.check(config)
    spec = spec_of(data.load(config.data, "train"))
    jax.eval_shape(config.model.build(spec).init, jax.random.key(0), spec.blank())


@pytest.mark.parametrize("file", [f for f in EXPERIMENTS if f.stem not in drawn()], ids=lambda f: f.stem)
def test_two_steps_of_every_experiment(file, trained):
    """Of a kind that `test_two_steps_are_drawn_and_measured` holds: only the training is its own."""
    assert (trained(file) / "checkpoints").is_dir()


@pytest.mark.parametrize(
    "file",
    [pytest.param(f, marks=() if f.stem in drawn() else pytest.mark.slow, id=f.stem) for f in EXPERIMENTS],
)
def test_two_steps_are_drawn_and_measured(file, tmp_path, capsys, trained, figures_of_training):
    """One experiment of each kind, and under `slow` all of them."""
    run = tmp_path / "run"
    two_steps(file, run, trained)
    assert "distortion" in capsys.readouterr().out
    result = json.loads((run / "eval.json").read_text())
    assert result["experiment"] == file.stem
    assert result["step"] == 2
    assert all(set(m) >= {"value", "stderr", "n"} for m in result["metrics"].values())
    assert (run / "figures" / "reconstructions.png").stat().st_size > 1000


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda f: f.stem)
def test_experiment_files_say_command_reference_and_expectation(file):
    doc = ast.get_docstring(ast.parse(file.read_text()))
    assert f"make train EXP={file.stem}" in doc
    assert "Reference:" in doc
    assert "Expect:" in doc
    assert index.summary(file) == doc.splitlines()[0]
    assert len(index.summary(file)) > 20


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda f: f.stem)
def test_configs_survive_json(file):
    config = index.load(file)
    # A class of the experiment file itself is found in that file.
    assert from_dict(json.loads(json.dumps(to_dict(config))), code=lambda: kinds.code_of(config)) == config


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda f: f.stem)
def test_every_experiment_may_be_made_shorter(file):
    """Steps at which samples are kept must not be after the last one: set here, they would refuse `--epochs 3`."""
    assert not index.load(file).logging.samples_at


def test_names_are_found_and_typos_get_an_offer():
    assert set(index.all_experiments()) >= {f.stem for f in EXPERIMENTS}
    with pytest.raises(ValueError, match="did you mean 'vae_mnist'"):
        index.find("vae_mnits")


def test_an_experiment_of_the_user_from_a_path(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text('"""Mine."""\nfrom vae_jax.config import Config\ndef get_config():\n    return Config(steps=7)\n')
    assert index.load(index.find(str(mine))).steps == 7
    mine.write_text("def get_config():\n    return 3\n")
    with pytest.raises(ValueError, match="get_config"):
        index.load(mine)
    mine.write_text("import nothing_of_that_name\n")
    with pytest.raises(ValueError, match="cannot be loaded"):
        index.load(mine)
