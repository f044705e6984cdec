"""Every option of every command, and every setting of a metric, has a test that gives it."""

import dataclasses
import importlib
from pathlib import Path

import pytest
from options import COVERED, _given, covers, every_option

from vae_jax.cli import main
from vae_jax.evaluation.measures import MEASURES
from vae_jax.evaluation.settings import Settings

FILES = sorted(path.stem for path in Path(__file__).parent.glob("test_options_*.py"))
# (command, option) -> the test elsewhere that covers it. A row is for what the running process cannot show.
ELSEWHERE: dict[tuple[str, str], str] = {}


def known() -> dict[tuple[str, str], list[str]]:
    for name in FILES:
        importlib.import_module(name)
    return COVERED


def test_every_option_of_every_command_has_a_test():
    wanted = every_option()
    missing = sorted(wanted - known().keys() - ELSEWHERE.keys())
    assert not missing, f"options without a test (see tests/options.py: covers): {missing}"
    for test in ELSEWHERE.values():
        module, _, name = test.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))


def test_no_test_covers_an_option_that_is_gone():
    assert not sorted(known().keys() - every_option())


def test_every_command_is_enumerated():
    seen = {command.split()[0] for command, _ in every_option()}
    # `list` has no option, only its word.
    assert seen == main.COMMANDS.keys() - {"list"}
    assert ("train", "optimizer.schedule.warmup-steps") in every_option()
    assert ("sweep", "vary") in every_option()


def test_every_setting_of_a_metric_is_an_option_of_eval_and_read_by_one():
    fields = {f.name for f in dataclasses.fields(Settings)}
    assert {("eval", name.replace("_", "-")) for name in fields} <= every_option()
    assert {name for measure in MEASURES.values() for name in measure.reads} == fields | {"others"}


def test_a_test_that_does_not_give_its_option_fails():
    @covers("train", "steps")
    def idle():
        pass

    COVERED[("train", "steps")].pop()
    _given.add(("train", "steps"))  # by an earlier test, which does not count
    with pytest.raises(AssertionError, match=r"idle does not give train the options \['steps'\]"):
        idle()
