"""`vae-jax train`, the wrong way round: one line, exit code 2, nothing written. And the help, without jax."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vae_jax.cli import main
from vae_jax.cli.train import split
from vae_jax.errors import InputError

ROOT = Path(__file__).resolve().parent.parent


def refused(capsys, *argv: str) -> str:
    """Runs a command that must be refused and returns its one line."""
    assert main.run(list(argv)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("vae-jax: ")
    return err


VQ = ["--evaluation.k", "--model", "vq", "--model.network", "residual-conv", "--model.network.stages", "1"]


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """Runs `train vae_digits` with options in an empty folder, which must stay empty."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")

    def run(capsys, *options: str) -> str:
        line = refused(capsys, "train", "vae_digits", *options)
        assert [p.name for p in tmp_path.iterdir()] == ["experiments"]
        return line

    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.laten-dim", "3"], "--model.laten-dim: no such option; did you mean '--model.latent-dim'?"),
        (["--stepz", "3"], "no such option; did you mean '--steps'?"),
        (["--resum"], "did you mean '--resume'?"),
        (["--steps", "many"], "--steps: 'many' is not a whole number"),
        (["--optimizer.lr", "fast"], "--optimizer.lr: 'fast' is not a number"),
        (["--optimizer.name", "adma"], "--optimizer.name: 'adma' is not one of its values; did you mean 'adamax'?"),
        (["--steps"], "--steps"),
        (["--model.objective", "betta"], "no such objective; did you mean 'beta'?"),
        (["--model.network", "mpl"], "no such network; did you mean 'mlp'?"),
        (["--model.network"], "needs a name"),
        (
            ["--model.objective.beta", "6"],
            "the chosen objective does not have beta; use --model.objective beta --model.objective.beta 6 (also in",
        ),
        (["--data.batch-size", "-4"], "data.batch_size: -4 is out of range"),
        (["--model.latent-dim", "0"], "model.latent_dim: 0 is out of range"),
        (["--steps", "-1"], "steps: -1 is out of range"),
        (["--model.objective", "beta", "--model.objective.beta", "-1"], "model.objective.beta: -1.0 is out of range"),
        (["--optimizer.lr", "nan"], "optimizer.lr: nan"),
        (["--data.batch-size", "5000"], "data.batch_size: 5000 is larger than"),
        (["--accumulate", "7"], "7 microbatches do not divide data.batch_size 64"),
        (["--mesh.fsdp", "3"], "mesh: data=-1 x fsdp=3 does not fit 8 device(s)"),
        (
            [*VQ, "--mesh.fsdp", "8", "--model.features", "16", "--model.quantizer.codes", "1100"],
            "mesh.fsdp: 8 does not divide the 1100 entries of a codebook (state/quantizer/average/total), which",
        ),
        (["--model.network", "conv64"], "multiples of 16, the images are 8x8"),
        (["--data.name", "digitz"], "unknown data set 'digitz'; did you mean 'digits'?"),
        (["extra"], "'extra' is no option"),
        (["--workdir"], "--workdir: needs a folder"),
        (["--model.network.hidden", "8", "--quiet", "4"], "--quiet: takes no value, so that '4' belongs to no option"),
        (["--model.network.hidden", "8", "--data", "digits", "4"], "--data: takes one value, so that '4' belongs to"),
        (
            ["--model.network.hidden", "8", "--model.prior", "normal", "4"],
            "--model.prior: takes one value, so that '4'",
        ),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else "",
)
def test_bad_options(digits, capsys, options, message):
    assert message in digits(capsys, *options)


def test_unknown_experiment_and_command(capsys):
    assert "did you mean 'beta_vae'?" in refused(capsys, "train", "beta_vea", "--steps", "2")
    assert "no such experiment file" in refused(capsys, "train", "nowhere/mine.py")
    assert "which experiment?" in refused(capsys, "train")
    assert "did you mean 'train'?" in refused(capsys, "trian")


def test_values_outside_the_likelihoods_range_name_the_range_and_the_fix(tmp_path, capsys):
    images = np.linspace(-2, 2, 100 * 64, dtype=np.float32).reshape(100, 8, 8, 1)
    np.savez(tmp_path / "mine.npz", images=images)
    options = ["--data.name", "npz", "--data.source", str(tmp_path / "mine.npz"), "--workdir", str(tmp_path / "run")]
    line = refused(capsys, "train", "vae_digits", *options)
    assert line.endswith(
        "mine.npz: images has values in [-2, 2], not in [0, 1]; use --data.range -2 2, or the ends that they can have\n"
    )
    assert not (tmp_path / "run").exists()


def test_channels_that_do_not_match_a_resumed_run(tmp_path, capsys):
    rng = np.random.default_rng(0)
    source, run = tmp_path / "mine.npz", tmp_path / "run"
    common = ["train", "vae_digits", "--workdir", str(run), "--data.name", "npz", "--data.source", str(source)]
    common += ["--mesh.data", "1", "--smoke"]
    np.savez(source, images=rng.integers(0, 255, (100, 8, 8, 1), dtype=np.uint8))
    assert main.run(common) == 0
    capsys.readouterr()
    np.savez(source, images=rng.integers(0, 255, (100, 8, 8, 3), dtype=np.uint8))
    assert "was trained on images (8, 8, 1), the data now gives (8, 8, 3)" in refused(capsys, *common, "--resume")


def test_no_write_permission(tmp_path, capsys, monkeypatch):
    # Root may write anywhere, so the refusal is staged where the operating system would make it.
    def deny(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", deny)
    line = refused(capsys, "train", "vae_digits", "--smoke", "--mesh.data", "1", "--workdir", str(tmp_path / "no"))
    assert "cannot be written (Permission denied); choose another --workdir" in line


def test_a_run_folder_that_exists(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    line = refused(capsys, "train", "vae_digits", "--workdir", str(tmp_path / "run"))
    assert "already there, and it is not a run; choose another --workdir" in line
    assert (tmp_path / "run" / "precious").read_text() == "x"


def test_options_may_stand_in_any_order():
    assert split(["--smoke", "vae_digits", "--steps", "3"])[0] == "vae_digits"
    assert split(["vae_digits", "--workdir=x", "--resume"])[1:3] == (Path("x"), {"--resume"})
    with pytest.raises(InputError):
        split(["a", "b"])


def test_components_by_name_and_their_options_together(tmp_path, monkeypatch):
    from vae_jax.cli.options import parse_config
    from vae_jax.networks import MLP
    from vae_jax.objectives import Beta
    from vae_jax.runs import experiments as index
    from vae_jax.schedules import Linear

    words = "--model.objective.beta 6 --model.objective beta --model.network mlp --model.network.hidden 32 16"
    words += " --model.objective.schedule=linear --model.objective.schedule.steps 50 --model.latent_dim 4"
    config = parse_config(index.load(index.find("beta_vae")), words.split(), "test")
    assert config.model.objective == Beta(Linear(steps=50, start=0.125, hold=2000), beta=6.0)
    assert config.model.network == MLP((32, 16))
    assert config.model.latent_dim == 4


def fresh(code: str) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)


def test_help_loads_neither_jax_nor_tensorflow():
    done = fresh(
        "import sys\nfrom vae_jax.cli.main import run\nrun(['--help'])\n"
        "print([m for m in ('jax', 'tensorflow', 'matplotlib') if m in sys.modules])"
    )
    assert "usage: vae-jax COMMAND" in done.stdout
    assert done.stdout.strip().endswith("[]")


def test_train_help_lists_experiments_and_options(capsys):
    assert main.run(["train", "--help"]) == 0
    assert "beta_vae" in capsys.readouterr().out
    assert main.run(["train", "vae_digits", "--help"]) == 0
    out = capsys.readouterr().out
    for word in ("--model.latent-dim", "--model.network {mlp", "--optimizer.lr", "Number of latent"):
        assert word in out
