"""What a user gets with the package: its version, types, requirements, and the files beside the sources."""

import importlib
import importlib.metadata
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import vae_jax
from vae_jax.cli.main import run

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"


def test_every_version_is_that_of_pyproject(capsys):
    assert vae_jax.__version__ == PROJECT["version"]
    assert "__version__" in dir(vae_jax)
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"vae-jax {PROJECT['version']}\n"


def test_sources_that_were_never_installed_have_a_version_too(monkeypatch, capsys):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "vae-jax 0+unknown\n"


@pytest.mark.parametrize("name", ["jax", "flax", "optax", "orbax-checkpoint"])
def test_lower_bounds_are_the_versions_that_the_suite_runs_on(name):
    (needed,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == name)
    assert str(needed.specifier) == f">={PINS[name]}"


def test_requirements_shut_out_no_newer_release():
    extras = [r for name, group in PROJECT["optional-dependencies"].items() for r in group]
    for needed in map(Requirement, PROJECT["dependencies"] + extras):
        assert {s.operator for s in needed.specifier} <= {">="}, needed
        pin = PINS.get(needed.name)
        assert pin is None or Version(pin) in needed.specifier, f"{needed} refuses the pinned {pin}"


def test_no_license_classifier_beside_the_license_expression():
    assert PROJECT["license"] == "Apache-2.0"
    assert [c for c in PROJECT["classifiers"] if c.startswith("License")] == []
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_the_citation_names_this_package():
    # The keys that CFF 1.2.0 requires are cff-version, message, title and authors.
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["cff-version"], cited["type"]) == ("1.2.0", "software")
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    assert cited["authors"] == PROJECT["authors"]
    assert cited["title"].startswith("vae_jax: ")
    assert cited["message"]


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("[!c]*.yml")), ids=lambda path: path.stem)
def test_an_issue_form_has_what_the_site_requires(path):
    form = yaml.safe_load(path.read_text())
    assert form.keys() == {"name", "description", "labels", "body"}
    for part in form["body"]:
        kind, attributes = part["type"], part["attributes"]
        assert kind in ("markdown", "textarea")
        assert attributes["value" if kind == "markdown" else "label"]
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(set(ids)) == len(ids) > 0


def test_templates_name_targets_files_and_commands_that_exist():
    texts = [path.read_text() for path in (ROOT / ".github").rglob("*.*")]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {name for text in texts for name in re.findall(r"`make ([a-z-]+)", text)} <= targets
    assert {name for text in texts for name in re.findall(r"\b[A-Z]+\.md\b", text)} <= {p.name for p in ROOT.iterdir()}
    assert {name for text in texts for name in re.findall(r"`vae-jax ([\w-]+)", text)} == {"--version", "train"}


def newest(python: str) -> subprocess.CompletedProcess:
    """Runs `make test-newest` with `python` in place of the one that it would find."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    words = ["make", "--no-print-directory", "--silent", "test-newest", f"NEWEST_PYTHON={python}"]
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)


def test_without_a_newer_python_the_leg_says_so_and_passes():
    done = newest("")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"test-newest: not run, because [^\n]*; name one with NEWEST_PYTHON=PATH\n", done.stdout)


def test_a_python_that_does_not_start_fails_the_leg(tmp_path):
    done = newest(str(tmp_path / "python3.13"))
    assert done.returncode != 0
    assert "python3.13: No such file" in done.stderr


def test_the_leg_selects_tests_that_exist():
    script = (ROOT / ".ci" / "test-newest").read_text()
    assert {name for name in re.findall(r"\btests/\w+\.py", script) if not (ROOT / name).is_file()} == set()
    defined = re.findall(r"^def (test_\w+)", (ROOT / "tests" / "contract.py").read_text(), re.M)
    (chosen,) = re.findall(r"-k '([^']+)'", script)
    # A renamed test would leave the leg in silence.
    assert [k for k in chosen.split(" or ") if not any(k in name for name in defined)] == []


def test_the_modules_whose_warnings_are_shown_exist():
    """A logger of a module that was renamed is a name like any other: its warnings would lose their form."""
    from vae_jax.cli.main import WARN

    for name in WARN:
        assert hasattr(importlib.import_module(f"vae_jax.{name}"), "logger"), name
