"""The commands of README.md and its pages run as printed, in their order, in one folder, and leave what they say.

Only the amount of work differs from what a reader sees: every config that is parsed is cut to two steps on small
batches (`few_steps`). The words of the commands are never touched.
"""

import dataclasses
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_jax import figures
from vae_jax.cli import main
from vae_jax.figures.write import write_all
from vae_jax.runs import config as configs
from vae_jax.runs import experiments
from vae_jax.runs.run import Run
from vae_jax.train import MeshConfig

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "docs/measuring.md", "docs/numbers.md")]
README = "\n".join(page.read_text() for page in PAGES)


def commands(text: str = README) -> list[str]:
    """Returns the commands of the bash blocks, without their comments."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def made_by(command: str) -> str:
    """Returns the command that `make` would run last: `make train EXP=x` is `.venv/bin/vae-jax train x`."""
    # Under `make test` this make is one in another, which would say so in lines of its own.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    words = ["make", "--no-print-directory", "-n", *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1].strip()


DRAWN = ("beta_vae", "beta_vae-2", "vae_digits", "iaf")  # the runs whose figures `trained` looks at


@pytest.fixture
def few_steps(monkeypatch):
    """Cuts every config to two steps of eight examples on one device when it is checked, as every config is."""
    real, left_out = configs.check, figures.write_all

    def drawn(path, *args, **options):
        return (write_all if path.name in DRAWN else left_out)(path, *args, **options)

    monkeypatch.setattr(figures, "write_all", drawn)

    def check(config, **options):
        return real(dataclasses.replace(config.shrink(), mesh=MeshConfig(data=1)), **options)

    monkeypatch.setattr(configs, "check", check)


def bring(folder: Path) -> None:
    """Writes what the section on your own data names: photographs, arrays, a table, counts, gaps, unknown labels."""
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(40):  # of mixed size
        Image.fromarray(rng.integers(0, 256, (50 + i, 60, 3), np.uint8)).save(folder / "photos" / f"{i}.jpg")
    scans = rng.integers(0, 256, (60, 8, 8, 1)).astype(np.uint8)
    np.savez(folder / "scans.npz", images=scans, labels=np.arange(60) % 3, groups=np.arange(60) // 3)
    rows = [f"{i / 7:.2f},{'ab'[i % 2]},{'' if i % 9 else i}" for i in range(60)]
    (folder / "patients.csv").write_text("\n".join(["age,kind,dose", *rows]))
    np.save(folder / "series.npy", rng.normal(size=(60, 12, 2)).cumsum(1))
    np.savez(folder / "cells.npz", counts=rng.poisson(3.0, (60, 12)))
    gaps = rng.random((60, 8, 8, 1))
    gaps[rng.random(gaps.shape) < 0.3] = np.nan
    np.save(folder / "gaps.npy", gaps)
    np.savez(folder / "half.npz", images=scans, labels=np.where(np.arange(60) % 2, -1, np.arange(60) % 3))


def evaluated(run: str) -> set[str]:
    """Returns the names of the metrics of a run's eval.json; a number that is not finite is null."""
    metrics = json.loads(Path(run, "eval.json").read_text())["metrics"]
    assert all(isinstance(metric["value"], int | float) for metric in metrics.values())
    return set(metrics)


def picture(path: str) -> None:
    with Image.open(path) as image:
        assert min(image.size) > 50
        assert len(set(np.asarray(image.convert("L")).ravel().tolist())) > 2, f"{path} is blank"


def arrays(path: str) -> dict[str, tuple[int, ...]]:
    with np.load(path) as held:
        # The names of classes are texts.
        assert all(held[name].dtype.kind == "U" or np.isfinite(held[name]).all() for name in held.files)
        return {name: held[name].shape for name in held.files}


def trained(run: str, seed: int, **model: object) -> None:
    """Checks a run folder, and some options that its command sets."""
    config = json.loads(Path(run, "config.json").read_text())
    assert config["seed"] == seed
    for part, value in model.items():
        found = config["model"][part]
        assert (found["kind"] if isinstance(found, dict) and isinstance(value, str) else found) == value
    assert evaluated(run) >= {"distortion"}
    assert list(Path(run, "checkpoints").glob("2*"))
    for name in ("reconstructions", "samples", "traversals", "loss_curves"):
        picture(f"{run}/figures/{name}.png")


def table_row(text: str, name: str) -> list[float]:
    """Returns the numbers of the row of a printed table."""
    row = next(line for line in text.splitlines() if re.match(rf"\W*{name}\b", line))
    return [float(x) for x in re.findall(r"-?\d+\.\d+(?= ±)", row)]


STANDARD = {"elbo", "distortion", "rate", "mse", "psnr", "active_units"}
MEMBERS = [f"runs/vae_digits-sweep/beta={beta}_seed={seed}" for beta in (1, 4, 16) for seed in range(8)]

# The beginning of a command -> what it must have left and printed. Longest beginning first; every command has one.
LEAVES = {
    "make train EXP=beta_vae": lambda out: trained("runs/beta_vae", 0),
    "vae-jax train beta_vae --model.objective.beta 6": lambda out: trained("runs/beta_vae-2", 1),
    "vae-jax train vae_digits --model.network linear": lambda out: trained(
        "runs/vae_digits", 0, network="linear", likelihood="gaussian-learned"
    ),
    "vae-jax train vae_digits --model.posterior iaf": lambda out: trained(
        "runs/iaf", 0, posterior="iaf", prior="mog", objective="iwae"
    ),
    # The newest run of this name, with its own options: the seed is not that of the experiment's file.
    "vae-jax train beta_vae --resume": lambda out: trained("runs/beta_vae-2", 1),
    "vae-jax eval runs/beta_vae --k": lambda out: holds("runs/beta_vae", STANDARD, "iw_1", "iw_10"),
    "vae-jax traverse": lambda out: picture("traversals.png"),
    "vae-jax sample runs/beta_vae --n 64": lambda out: exactly(arrays("samples.npz"), {"images": (64, 32, 32, 1)}),
    "vae-jax fit-prior": lambda out: (
        exactly(json.loads(Path("runs/beta_vae/prior/gmm.json").read_text())["kind"], "gmm"),
        arrays("runs/beta_vae/prior/gmm.npz"),
        exactly("vae-jax sample runs/beta_vae --prior gmm" in out, True),
    ),
    "vae-jax sample runs/beta_vae --prior gmm": lambda out: picture("runs/beta_vae/figures/samples_expost.png"),
    "vae-jax reconstruct": lambda out: picture("runs/beta_vae/figures/reconstructions.png"),
    "vae-jax interpolate": lambda out: picture("runs/beta_vae/figures/interpolations.png"),
    "vae-jax arithmetic": lambda out: picture("runs/vae_digits/figures/arithmetic.png"),
    "vae-jax eval runs/vae_digits --metrics generation": lambda out: holds(
        "runs/vae_digits", STANDARD, "frechet_distance", "precision", "recall", "density", "coverage"
    ),
    "vae-jax encode": lambda out: exactly(arrays("codes.npz")["mean"], (1843, 10)),
    "vae-jax decode": lambda out: exactly(arrays("decoded.npz"), {"images": (1843, 32, 32, 1)}),
    "vae-jax baseline": lambda out: holds("runs/baseline-ppca-digits", (), "log_prob"),
    "vae-jax compare": lambda out: (
        exactly(len(table_row(out, "elbo")), 2),
        exactly(len(table_row(out, "log_prob")), 1),
    ),
    "vae-jax train own_images": lambda out: exactly(Run.load("runs/own_images").spec.x.shape, (64, 64, 3)),
    "vae-jax train vae_digits --data scans.npz": lambda out: exactly(
        set(np.load("runs/scans/splits.npz")) >= {"train", "validation", "test"}, True
    ),
    "vae-jax train own_table": lambda out: exactly(
        [column.name for column in Run.load("runs/own_table").spec.columns], ["age", "kind", "dose"]
    ),
    "vae-jax train own_series": lambda out: exactly(Run.load("runs/own_series").spec.x.shape, (12, 2)),
    "vae-jax train counts_simulated": lambda out: exactly(Run.load("runs/counts_simulated").spec.x.shape, (12,)),
    "vae-jax train vae_digits --data gaps.npy": lambda out: exactly(Run.load("runs/gaps").spec.mask, True),
    "vae-jax impute": lambda out: exactly(bool(np.isfinite(np.load("filled.npy")).all()), True),
    "vae-jax train m2_unlabelled": lambda out: exactly(Run.load("runs/m2_unlabelled").spec.classes, 3),
    "vae-jax list": lambda out: exactly("beta_vae" in out, True),
    "vae-jax data list": lambda out: exactly(all(name in out for name in ("mnist", "sprites", "digits")), True),
    "vae-jax eval runs/vae_digits --metrics elbo,iwae,ais,bdmc": lambda out: holds(
        "runs/vae_digits", STANDARD, "iw_100", "ais", "bdmc_gap", "frechet_distance"
    ),
    "vae-jax score": lambda out: (
        exactly(Path("scores.csv").read_text().count("\n"), 181),
        exactly(len(list(Path("maps").glob("*.png"))), 180),
        exactly("error maps on one scale" in out, True),
    ),
    "vae-jax eval runs/beta_vae --metrics information": lambda out: holds(
        "runs/beta_vae", STANDARD, "iw_10", "mutual_information", "total_correlation", "aggregate_kl", "dimension_kl"
    ),
    "vae-jax eval runs/beta_vae --metrics mig": lambda out: holds(
        "runs/beta_vae", STANDARD, "iw_10", "mutual_information", "mig", "modularity", "factorvae_score", "irs"
    ),
    "vae-jax train vq_vae_digits": lambda out: holds("runs/vq_vae_digits", "elbo", "usage", "perplexity"),
    "vae-jax train transformer_prior_digits": lambda out: holds(
        "runs/transformer_prior_digits", "elbo", "rate", "bits_per_image"
    ),
    "vae-jax sample runs/transformer_prior_digits": lambda out: picture(
        "runs/transformer_prior_digits/figures/samples.png"
    ),
    "vae-jax compress": lambda out: exactly("180 examples" in out and Path("digits.vjc").is_file(), True),
    "vae-jax decompress": lambda out: exactly(np.load("digits.npz")["images"].shape, (180, 8, 8, 1)),
    "vae-jax sweep": lambda out: (
        [evaluated(member) for member in MEMBERS],
        exactly(len(json.loads(Path("runs/vae_digits-sweep/sweep.json").read_text())["members"]), 24),
        exactly(Path("runs/vae_digits-sweep/sweep.csv").read_text().count("elbo"), 3),
        [picture(str(path)) for path in Path("runs/vae_digits-sweep/figures").iterdir()],
    ),
    "vae-jax report": lambda out: exactly(
        [name in Path("report.html").read_text() for name in ("beta_vae", "vae_digits", "irs", "frechet_distance")],
        [True] * 4,
    ),
}


def exactly(got, want) -> None:
    assert got == want


def holds(run: str, *names: object) -> None:
    """Checks that eval.json has these metrics: those of the command, and those of the commands before it."""
    wanted = {name for part in names for name in ({part} if isinstance(part, str) else set(part))}
    assert wanted - evaluated(run) == set()


def check(command: str, out: str) -> None:
    """Checks what a command left behind."""
    known = [start for start in LEAVES if command.startswith(start)]
    assert known, f"{command}: say in LEAVES what it leaves"
    LEAVES[max(known, key=len)](out)


def test_every_command_leaves_what_the_readme_says(tmp_path, monkeypatch, capsys, few_steps):
    monkeypatch.chdir(tmp_path)
    bring(tmp_path)
    checked = set()
    for command in commands():
        line = made_by(command) if command.startswith("make ") else command
        program, *words = shlex.split(line)
        if Path(program).name != "vae-jax":
            continue
        code = main.run(words)
        said = capsys.readouterr()
        assert code == 0, (command, said.err)
        check(command, said.out)
        checked.add(command)
    assert len(checked) >= 25


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_make_targets_exist(command):
    assert made_by(command)


def test_the_python_example_runs(tmp_path, monkeypatch, few_steps, capsys):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(compile(re.findall(r"```python\n(.*?)```", README, re.S)[0], "README.md", "exec"), scope)
    assert np.asarray(scope["images"]).shape == (64, 32, 32, 1)
    assert np.ptp(np.asarray(scope["images"])) > 0
    printed = re.search(r"\{'value': (-\d+\.\d+), 'stderr': \d", capsys.readouterr().out)
    assert printed
    assert float(printed[1]) == json.loads(Path("runs/mine/eval.json").read_text())["metrics"]["elbo"]["value"]


def test_the_example_of_scores_runs(capsys):
    scope: dict = {}
    exec(compile(re.findall(r"```python\n(.*?)```", README, re.S)[1], "README.md", "exec"), scope)
    assert scope["score"].value > 0.9
    assert scope["dci"].disentanglement.value > 0.9
    assert "Score(value=0.9" in capsys.readouterr().out


def test_pictures_exist():
    for page in PAGES:
        for path in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text()):
            assert (page.parent / path).stat().st_size > 5_000


@pytest.mark.parametrize("page", [PAGES[0], *sorted(ROOT.glob("docs/*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def advised() -> dict[str, set[str]]:
    """Returns {row: experiments it names} of the table "Which model when" of README.md."""
    table = PAGES[0].read_text().split("## Which model when")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    codes = {row[0]: re.findall(r"`([^`]*)`", " ".join(row[1:])) for row in rows}
    # A file, or the name of an option, also has words with an underscore.
    return {
        row: {w for code in found for w in code.split() if re.fullmatch("[a-z0-9]+_\\w+", w)}
        for row, found in codes.items()
    }


def test_experiments_of_the_table_of_models_exist():
    named = set().union(*advised().values())
    assert len(named) > 20
    assert named - set(experiments.all_experiments()) == set()


def test_factors_that_a_person_can_read_are_in_the_data():
    names = advised()["factors that a person can read"]
    assert {name: experiments.load(experiments.find(name)).data.name for name in names} == {
        "beta_vae": "sprites",
        "beta_tc_sprites": "sprites",
    }
