"""Posteriors and priors under the contract of `contract.py`."""

from contract import functions, select

PARTS, BUT = (
    (
        "posterior-",
        "prior-",
    ),
    (),
)
globals().update(functions(*PARTS, but=BUT))


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", select(metafunc.function.__name__, *PARTS, but=BUT))
