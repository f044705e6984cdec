"""Commands that show examples take what there is of few, say so, and refuse only a number that was given."""

from typing import Any

import numpy as np
import pytest

import vae_jax as vj
from vae_jax.cli import main
from vae_jax.tasks import training

SMALL = {"steps": 1, "mesh.data": 1, "data.batch_size": 1, "model.network.hidden": (4,), "model.latent_dim": 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Returns a function that trains on arrays with so many examples in each split."""
    folder = tmp_path_factory.mktemp("few")

    def run(name, **sizes):
        path = folder / name
        if not path.exists():
            x = np.random.default_rng(0).integers(256, size=(20, 8, 8), dtype=np.uint8)
            parts: dict[str, Any] = {f"{split}_images": x[:size] for split, size in sizes.items()}
            parts |= {f"{split}_labels": np.arange(size) % 2 for split, size in sizes.items()}
            np.savez(folder / f"{name}.npz", **parts)
            data = {"data.name": "npz", "data.source": str(folder / f"{name}.npz"), "evaluation.k": ()}
            config = vj.experiment("vae_digits", **SMALL, **data, **{"logging.tensorboard": False})
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(training, "_figures", lambda run, state, step, *more: None)
                training.train_run(config, "x", path)
        return str(path)

    return run


def shown(capsys, tmp_path, *words):
    """Returns (the arrays that a command wrote, its lines)."""
    out = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
    assert main.run([*map(str, words), "--out", str(out)]) == 0
    with np.load(out) as held:
        return dict(held), capsys.readouterr().out.splitlines()[1:]


def refused(capsys, *words):
    assert main.run([*map(str, words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_there_is_is_shown_and_said(runs, tmp_path, capsys):
    run = runs("three", train=6, test=3)
    held, lines = shown(capsys, tmp_path, "reconstruct", run)
    assert held["index"].tolist() == [0, 1, 2]
    assert lines == ["note: examples of the test split: 3, fewer than the usual 32"]
    held, lines = shown(capsys, tmp_path, "interpolate", run)
    assert held["index"].tolist() == [[0, 1]]
    assert lines == ["note: pairs of examples of the test split: 1, fewer than the usual 4"]
    held, lines = shown(capsys, tmp_path, "arithmetic", run, "--from", 0, "--to", 1)
    assert held["index"].tolist() == [0, 2]
    assert lines == ["note: examples of the test split with label 0: 2, fewer than the usual 8"]


def test_a_number_that_was_given_is_shown_or_refused(runs, tmp_path, capsys):
    run = runs("three", train=6, test=3)
    for words, fewer in (
        (["reconstruct", run, "--n", 3], ["reconstruct", run, "--n", 4]),
        (["interpolate", run, "--indices", 0, 1], ["interpolate", run, "--indices", 2, 3]),
        (["arithmetic", run, "--from", 0, "--to", 1, "--n", 2], ["arithmetic", run, "--from", 0, "--to", 1, "--n", 3]),
    ):
        assert shown(capsys, tmp_path, *words)[1] == []
        line = refused(capsys, *fewer)
        assert "is out of range" in line
        fix = line.partition("use ")[2].removesuffix(", say").split()
        assert shown(capsys, tmp_path, *words[: words.index(fix[0])], *fix)[1] == []


def test_enough_is_not_remarked(runs, tmp_path, capsys):
    run = runs("many", train=4, test=16)
    for words in (["interpolate", run], ["arithmetic", run, "--from", 0, "--to", 1]):
        held, lines = shown(capsys, tmp_path, *words)
        assert lines == []
    assert held["index"].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]


def test_a_path_needs_two(runs, tmp_path, capsys):
    line = refused(capsys, "interpolate", runs("one", train=6, test=1))
    assert line.endswith("--split: test holds 1 example, but a path goes from one to another; use --split train")
    shown(capsys, tmp_path, "interpolate", runs("one", train=6, test=1), "--split", "train")
    line = refused(capsys, "interpolate", runs("ones", train=1, test=1))
    assert line.endswith("; give two or more with --input")
    np.save(tmp_path / "two.npy", np.zeros((2, 8, 8), np.uint8))
    shown(capsys, tmp_path, "interpolate", runs("ones", train=1, test=1), "--input", tmp_path / "two.npy")
    line = refused(capsys, "arithmetic", runs("one", train=6, test=1), "--from", 1, "--to", 0)
    assert "--from: 1: no example of the test split has it; choose another value, or another --split" in line
    shown(capsys, tmp_path, "arithmetic", runs("one", train=6, test=1), "--from", 1, "--to", 0, "--split", "train")


def test_in_python_the_result_says_it(runs):
    run = vj.load(runs("three", train=6, test=3))
    assert len(vj.reconstruct(run)) == 3
    assert run.interpolate().note == "pairs of examples of the test split: 1, fewer than the usual 4"
    assert run.plot_reconstructions() is not None
