"""Objectives, gradient estimators and schedules under the contract of `contract.py`."""

from contract import *  # noqa: F403
from contract import select


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", select(metafunc.function.__name__, "objective-", "gradient-", "schedule-"))
