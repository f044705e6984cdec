"""Every field of every component changes what it should, and nothing else; the command line reaches each."""

import dataclasses
import importlib

import pytest
from option_fields import EXCEPTIONS, FIELDS, VARIANTS, base, built, changes, fields, path

from vae_jax.cli.options import parse_config
from vae_jax.errors import InputError
from vae_jax.models import VAE
from vae_jax.networks import Broadcast
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config
from vae_jax.spec import ArraySpec

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the messages below are

COMPONENTS = list(dict.fromkeys((option, name) for option, name, _ in FIELDS))


def of(option, name):
    """Returns field -> (value, what it changes) of one component."""
    return {field: row for (o, n, field), row in FIELDS.items() if (o, n) == (option, name)}


def quick(rows):
    """Returns the rows whose answer is seen in the shapes alone, and of the others, which need programs, the first."""
    shapes = {field: row for field, row in rows.items() if row[1].startswith("shape:")}
    return dict(list({field: row for field, row in rows.items() if field not in shapes}.items())[:1]) | shapes


@pytest.mark.parametrize(("option", "name"), COMPONENTS, ids=lambda v: v)
def test_a_field_of_each_component_changes_what_it_should(option, name):
    check_rows(option, name, quick(of(option, name)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "name"), [c for c in COMPONENTS if of(*c).keys() != quick(of(*c)).keys()], ids=lambda v: v
)
def test_each_field_changes_what_it_should(option, name):
    check_rows(option, name, of(option, name))


def check_rows(option, name, rows):
    got = {field: changes(option, name, field, value) for field, (value, _) in rows.items()}
    built.cache_clear()
    assert got == {field: want for field, (_, want) in rows.items()}


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[] if row[5].startswith("shape:") else pytest.mark.slow) for row in VARIANTS],
    ids=lambda row: " ".join(map(str, (row[1], *row[2].values(), row[3]))),
)
def test_each_field_is_read_beside_other_values(row):
    option, name, needs, field, value, want = row
    assert changes(option, name, field, value, needs) == want


def words(value):
    return [str(v) for v in value] if isinstance(value, tuple) else [str(value)]


@pytest.mark.parametrize(("option", "name"), COMPONENTS, ids=lambda v: v)
def test_the_command_line_reaches_each_field(option, name):
    model = base(option, name)
    config = Config(model=VAE() if option == "model.condition" else model)
    want, given = config, [] if option == "model.condition" else [f"--{option}", name]
    for field, (value, _) in of(option, name).items():
        where = f"model.{path(option, field)}"
        given += [f"--{where}".replace("_", "-"), *words(value)]
        want = configs.put(want, where, value)
    if option == "model" and name != "vae":
        config = Config()
        # Its other components are those of its default, not the small ones of `base`.
        others = {f.name for f in dataclasses.fields(model)} - set(of(option, name)) - {"mask_input"}
        assert others <= {"network", "likelihood", "quantizer", "generator", "condition", "first"}
        for other in others:
            want = configs.put(want, f"model.{other}", getattr(type(model)(), other))
    assert parse_config(config, given, "test") == want


def test_every_field_has_a_row_or_a_test_that_says_why_not():
    wanted = fields()
    assert sorted(wanted) == sorted([*FIELDS, *EXCEPTIONS])
    assert all(changed for _, changed in FIELDS.values())
    for key, test in EXCEPTIONS.items():
        module, _, name = test.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name)), key


@pytest.mark.parametrize(("field", "value"), [("up_kernel", 5), ("upsample", "nearest")])
def test_what_broadcast_does_not_use_is_refused(field, value):
    option = f"--model.network.{field.replace('_', '-')}"
    with pytest.raises(InputError) as error:
        Broadcast(**{field: value}).check(ArraySpec((64, 64, 1)))
    message = str(error.value)
    assert message.startswith(f"model.network.{field}: {value} is not used")
    # Both ways that it offers work.
    advised = message.partition("set ")[2].partition(", or")[0].split()
    assert advised[0] == option
    start = Config(model=VAE(network=Broadcast(**{field: value})))
    parse_config(start, advised, "test").model.network.check(ArraySpec((64, 64, 1)))
    assert message.endswith("use --model.network conv64")
    other = parse_config(start, ["--model.network", "conv64"], "test").model.network
    other.check(ArraySpec((64, 64, 1)))
    assert getattr(other, field) == value
