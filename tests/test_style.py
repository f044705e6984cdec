"""Words that read as translated are in no string of the package and in no document."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What to write instead is in the comment of each line.
WORDS = re.compile(
    r"\b("
    r"(is|are|was|were) told|told nothing|told apart"  # is conditioned on, receives; separated
    r"|mends?|mended|mending"  # fix
    r"|an? \w+ that has (not|none)|(has|have) not[;,]"  # does not have, does not provide
    r"|(key|pass(es)?|steps|samples|nats|bits|chains|directions|outputs?) an? "  # one key per example, nats per pixel
    r"(example|image|layer|dispatch|step|pixel|sub-pixel|dimension|channel|variable)"
    r"|lower rate"  # lower the learning rate: the rate is the KL
    r"|stands? (there|in the|under)"  # is listed, is in
    r"|asked of"  # takes, requested of
    r"|as it stands"  # as is
    r"|in the light and in the dark"  # light and dark themes
    r"|with nothing else to do"  # on an idle machine
    r"|worse than a coin"  # below chance
    r")\b",
    re.IGNORECASE,
)
SOURCES = sorted((ROOT / "vae_jax").rglob("*.py"))
DOCUMENTS = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")] + sorted(ROOT.glob("docs/*.md"))


def strings(source: str):
    """Yields (line, text) of every string of a module, docstrings included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_the_words_are_found():
    assert WORDS.search("The model is told the label.")
    assert WORDS.search("drawn from one key an example")
    assert not WORDS.search("one key per example of a model that does not have a prior")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_such_word_in_a_string(path):
    found = [(line, hit[0]) for line, text in strings(path.read_text()) if (hit := WORDS.search(text))]
    assert not found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_such_word_in_a_document(path):
    found = [(n, hit[0]) for n, line in enumerate(path.read_text().splitlines(), 1) if (hit := WORDS.search(line))]
    assert not found
