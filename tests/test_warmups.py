"""Warm-ups that are longer than the run are said at its start, with a value that fits."""

import pytest

from vae_jax.cli.options import parse_config
from vae_jax.runs.config import Config
from vae_jax.tasks import warmups

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the notes are

LINEAR = "--model.objective.schedule linear"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"--steps 2000 {LINEAR}", "the weight of the KL moves until step 10,000, but the run ends at step 2,000"),
        (f"--steps 300 {LINEAR} --model.objective.schedule.hold 299", "until step 10,299"),
        ("--steps 9 --model.objective capacity", "the capacity moves until step 100,000"),
        ("--steps 9 --optimizer.schedule.warmup-steps 10", "the learning rate moves until step 10"),
    ],
)
def test_a_warm_up_longer_than_the_run_is_said_and_the_value_fits(words, said):
    (note,) = warmups.notes(parse_config(Config(), words.split(), "train"))
    assert said in note
    fits = note.partition("; use ")[2].split()
    assert not list(warmups.notes(parse_config(Config(), [*words.split(), *fits], "train")))


def test_a_run_says_it_once_at_its_start(tmp_path, capsys):
    from options import done

    words = ["--steps", 2, "--data.batch-size", 8, "--mesh.data", 1, "--logging.tensorboard", False, *LINEAR.split()]
    words += ["--model.network.hidden", 4, "--evaluation.limit", 8]
    done("train", "vae_digits", *words, "--logging.figures-minutes", 0, "--workdir", tmp_path / "run")
    said = "".join(capsys.readouterr())
    assert said.count("--model.objective.schedule.steps: the weight of the KL moves until step 10,000") == 1
