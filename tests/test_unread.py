"""Options of commands that nothing reads are refused in one line, and what the message advises works."""

import re
import shlex

import numpy as np
import pytest
from options import make, tiny

from vae_jax.cli import main
from vae_jax.errors import InputError
from vae_jax.tasks.measuring import evaluate_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("unread")
    for name in ("run", "other"):
        run = make(path / name, tiny())
    np.save(path / "codes.npy", np.zeros((2, run.config.model.latent_dim), np.float32))
    np.save(path / "images.npy", run.examples("test", np.arange(4))["x"])
    return path


# Words, and what to do to them by the advice.
CASES = [
    "eval RUN --limit 5 --chains 3",
    "eval RUN --limit 5 --metrics elbo --points 50",
    "eval RUN --limit 5 --samples 50",
    "eval RUN --limit 5 --others OTHER",
    "eval RUN --limit 5 --metrics elbo --k 5",
    "fit-prior RUN --kind flow --components 4 --limit 50 --steps 3",
    "fit-prior RUN --components 2 --limit 50 --steps 9",
    "baseline digits --kind ppca --covariance diag",
    "baseline digits --kind ppca --iterations 5",
    "baseline digits --kind ppca --floor 0.1",
    "encode RUN --input images.npy --out made.npz --seed 4",
    "encode RUN --input images.npy --out made.npz --split train",
    "decode RUN --input codes.npy --out made.npz --seed 4",
    "reconstruct RUN --out made.npz --indices 1 2 --n 5",
    "traverse RUN --out made.npz --quantiles True --reach 2",
]


@pytest.mark.parametrize("text", CASES)
def test_what_nothing_reads_is_refused_and_the_advice_works(text, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    words = shlex.split(text.replace("RUN", "run").replace("OTHER", "other"))
    before = sorted(folder.rglob("*"))
    assert main.run(words) == 2
    said = capsys.readouterr().err
    option = re.match(r"vae-jax: (--[a-z-]+)", said)[1]
    assert option in words
    assert re.search(r"is not used|not used", said), said
    assert len(said.splitlines()) == 1
    assert "leave it out" in said
    assert sorted(folder.rglob("*")) == before
    i = words.index(option)
    rest = words[:i] + words[i + 2 :]
    if words[0] not in ("baseline",):  # its fit takes seconds
        assert main.run(rest) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ("encode run --input images.npy --out drawn.npz --seed 4", "--draw True"),
        ("decode run --input codes.npy --out drawn.npz --seed 4", "--pixels sample"),
        ("eval run --limit 8 --metrics elbo --k 3", "--metrics iwae"),
        ("eval run --limit 8 --samples 8", "--metrics mmd"),
        ("eval run --limit 8 --others other --metrics elbo", "--metrics udr"),
    ],
)
def test_adding_what_reads_it_works(words, more, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main.run(words.split()) == 2
    said = capsys.readouterr().err
    assert more.split()[-1] in said
    assert main.run([*words.split(), *more.split()]) == 0, capsys.readouterr().err


def test_settings_from_python_are_read_or_refused(folder):
    from vae_jax.runs.run import Run

    run = Run.load(folder / "run")
    with pytest.raises(InputError, match=r"^chains: is not used by the requested metrics"):
        evaluate_run(run, metrics=("elbo",), limit=5, settings={"chains": 2})
    evaluate_run(run, metrics=("elbo",), limit=5, settings={"chains": 8})  # its default
