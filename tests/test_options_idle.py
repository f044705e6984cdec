"""Options of training that nothing reads are refused by name, and what the message advises works."""

import functools
import re

import jax
import numpy as np
import option_fields
import pytest
import support
from options import tiny

import vae_jax as vj
from vae_jax import train
from vae_jax.cli import main, options, sweep
from vae_jax.cli.options import parse_config
from vae_jax.errors import InputError
from vae_jax.models import VAE, VQVAE, Autoencoder
from vae_jax.networks import MLP
from vae_jax.objectives import Factor, FreeBits, LeaveOneOut
from vae_jax.posteriors import Categorical
from vae_jax.priors import PRIORS
from vae_jax.quantizers import LFQ, VQ
from vae_jax.runs import config as configs
from vae_jax.runs import idle

DISCRETE = VAE(3, MLP((4,)), posterior=Categorical(), prior=PRIORS["categorical"](), gradient=LeaveOneOut())
MOVED = VQVAE(4, support.GRID, quantizer=VQ(codes=8, update="gradient"))
SURE = VQVAE(3, support.GRID, quantizer=LFQ(bits=3, entropy=0.0))
# The words that nothing reads -> the experiment that they are given for.
CASES = {
    "--optimizer.schedule.final 0.2": tiny(),
    "--optimizer.schedule.milestones 3 5": tiny(),
    "--optimizer.schedule.factor 0.5": tiny(**{"optimizer.schedule.kind": "cosine"}),
    "--optimizer.b2 0.5": tiny(**{"optimizer.name": "sgd"}),
    "--optimizer.eps 0.5": tiny(**{"optimizer.name": "sgd"}),
    "--critic-optimizer.lr 0.5": tiny(),
    "--critic-optimizer.schedule.final 0.3": tiny(VAE(3, MLP((4,)), objective=Factor())),
    "--critic-optimizer.schedule.milestones 3 5": tiny(VAE(3, MLP((4,)), objective=Factor())),
    "--critic-optimizer.schedule.factor 0.3": tiny(VAE(3, MLP((4,)), objective=Factor())),
    "--critic-optimizer.b2 0.5": tiny(VAE(3, MLP((4,)), objective=Factor()), **{"critic_optimizer.name": "sgd"}),
    "--critic-optimizer.eps 0.5": tiny(VAE(3, MLP((4,)), objective=Factor()), **{"critic_optimizer.name": "sgd"}),
    "--critic-optimizer.schedule.warmup-steps 5": tiny(),
    "--data.label-seed 3": tiny(),
    "--data.workers 2": tiny(**{"data.pipeline": "device"}),
    "--model.corruption-level 0.5": tiny(Autoencoder(3, MLP((4,)))),
    "--model.objective.groups 3": tiny(VAE(3, MLP((4,)), objective=FreeBits())),
    "--model.posterior.temperature 0.7": tiny(DISCRETE),
    "--model.posterior.final-temperature 0.7": tiny(DISCRETE),
    "--model.posterior.anneal-steps 7": tiny(DISCRETE),
    "--model.posterior.relaxation straight-through": tiny(DISCRETE),
    "--model.quantizer.decay 0.5": tiny(MOVED),
    "--model.quantizer.epsilon 0.5": tiny(MOVED),
    "--model.quantizer.diversity 0.5": tiny(SURE),
    "--model.quantizer.temperature 0.5": tiny(SURE),
    "--model.quantizer.joint 2": tiny(SURE),
    "--model.condition.encoder False": tiny(),
    "--model.condition.decoder False": tiny(),
}


def given(words, experiment):
    """Returns the config of these words, which must all be read."""
    config = parse_config(experiment, words, "test")
    idle.refuse([config], experiment, options.given(words))
    return config


@pytest.mark.usefixtures("command_line")  # whose words are typed again below
@pytest.mark.parametrize("text", CASES)
def test_what_nothing_reads_is_refused_and_the_advice_works(text):
    words, experiment = text.split(), CASES[text]
    option = words[0][2:].replace("-", "_")
    with pytest.raises(InputError) as error:
        given(words, experiment)
    found = re.fullmatch(r"(\S+): (.+) is not used because .+; add (.+), or leave it out", str(error.value))
    assert found
    assert (found[1], found[2]) == (option, " ".join(words[1:]))
    config = given([*words, *found[3].split()], experiment)
    assert configs.get(config, option) != configs.get(experiment, option)
    given([], experiment)


def test_every_rule_has_a_case():
    options = [text.split()[0][2:].replace("-", "_") for text in CASES]
    assert all(any(option.startswith(name) for option in options) for name in idle.RULES)


def test_a_value_that_the_experiment_has_already_is_no_error():
    given(["--optimizer.schedule.final", "0.0"], tiny())


@pytest.mark.parametrize(
    "text",
    [
        # Of a model, which is built and traced twice: one option.
        pytest.param(text, marks=pytest.mark.slow if text.startswith("--model") and "groups" not in text else [])
        for text in CASES
        if text.startswith(("--model", "--optimizer"))
    ],
)
def test_nothing_reads_them_indeed(text):
    words, experiment = text.split(), CASES[text]
    other = parse_config(experiment, words, "test")
    for config in (experiment, other):
        config.model.check() if hasattr(config.model, "check") else None
    if words[0].startswith("--optimizer"):
        updates = [_updates(config.optimizer) for config in (experiment, other)]
        np.testing.assert_array_equal(*updates)
        return
    old, new = (option_fields.Built(config.model, "model", "any") for config in (experiment, other))
    assert old.shapes == new.shapes
    assert old.programs == new.programs


@functools.cache
def _updates(optimizer: train.Optimizer) -> np.ndarray:
    params = {"w": jax.numpy.ones(3)}
    tx = optimizer.build(4)
    state, found = tx.init(params), []
    for _ in range(6):
        updates, state = tx.update({"w": jax.numpy.arange(1.0, 4.0)}, state, params)
        found.append(updates["w"])
    return np.stack(found)


def test_the_command_refuses_before_it_writes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "vae_digits", "--optimizer.schedule.milestones", "100", "200", "--workdir", "run"]
    assert main.run(words) == 2
    assert capsys.readouterr().err == (
        "vae-jax: optimizer.schedule.milestones: 100 200 is not used because the schedule has no milestones; add "
        "--optimizer.schedule.kind step, or leave it out\n"
    )
    assert not (tmp_path / "run").exists()


NO_CRITIC = (
    "critic_optimizer.lr: 0.5 is not used because the objective trains no critic; add --model.objective factor, or "
    "leave it out"
)


def test_a_sweep_refuses_common_options_that_no_member_reads(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "vae_digits", "--seeds", "0:2", "--critic-optimizer.lr", "0.5", "--workdir", "made", "--smoke"]
    assert main.run(words) == 2
    assert capsys.readouterr().err == f"vae-jax: {NO_CRITIC}\n"
    assert list(tmp_path.iterdir()) == []
    for more in (["--model.objective", "factor"], ["--vary", "model.objective=elbo,factor"]):
        own, rest = sweep.take_own([*words[2:6], *more])
        plan = sweep.read_plan(vj.experiment("vae_digits"), "vae_digits", own, rest, smoke=True)
        assert {member.config.critic_optimizer.lr for member in plan.members} == {0.5}


def test_python_refuses_the_same(monkeypatch):
    plans: list = []
    monkeypatch.setattr("vae_jax.api.run_sweep", lambda plan, *a, **k: plans.append(plan) or ({}, None))
    option = {"critic_optimizer.lr": 0.5}
    factor = {"model.objective": "factor"}
    for refused in (lambda: vj.experiment("vae_digits", **option), lambda: vj.sweep("vae_digits", **option)):
        with pytest.raises(InputError) as error:
            refused()
        assert str(error.value) == NO_CRITIC.replace("--model.objective factor", '**{"model.objective": "factor"}')
    assert vj.experiment("vae_digits", **option, **factor).critic_optimizer.lr == 0.5
    vj.sweep("vae_digits", **option, vary={"model.objective": ("elbo", "factor")})
    vj.sweep("vae_digits", **option, **factor)
    assert [len(plan.members) for plan in plans] == [2, 1]
