"""Words that read as translated are in no string of the package and in no document; spelling is American."""

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
# One spelling, that of JAX and flax, in code as in prose. -ise only after stems that take -ize: "noise" is no verb.
BRITISH = re.compile(
    r"(normal|dequant|quant|binar|discret|factor|optim|minim|maxim|initial|regular|recogn|standard|penal|summar|parameter"
    r"|organ|stabil|amort|random|general|visual|special|material|marginal|character|categor|local|util|serial|vector"
    r"|raster|orthogonal|diagonal|linear|synchron|custom|token|central|equal|emphas|final|memor|capital)"
    r"is(e[sdr]?|ing|ation|ations|able|ers)(?![a-z])"
    r"|colour|favour|behaviour|neighbour|honour|flavour|labell|modell(ed|ing)|cancell(ed|ing)|travell|signall|levelled"
    r"|centre|centring|analys(e[sd]?|ing)\b|artefact|catalogue|judgement|programme(?!r|d)|licence|learnt|grey|fulfil\b"
    r"|defence|offence|sceptic|whilst|ageing",
    re.IGNORECASE,
)
# Names that are public or stored in files, and texts that evaluations are compared by, stay as they were written first.
STORED = re.compile(
    r"amortisation_gap|[\"']amortised[\"']|mean optimised ELBO"  # metric, key of a measure's work, protocol
    r"|labelled_(weight|accuracy)|[\"']labelled[\"']|grey_levels_digits|[\"']grey[\"']"  # option, site, name, kind
    r"|[\"']normaliser[\"']|labelledby"  # state of a prior, attribute of HTML
    r"|neighbours(?=: int|: of the estimator|=0| 0| < 1| \{|\}|, seed|:$)|info_mec: neighbours"  # argument of info_mec
    r"|binarisation\)|dequantised, \(v \+ u\) / 256|256 grey levels, (v / 255|one scale)"  # from here on protocols
    r"|(\}|57|30|1,000) labelled|are labelled(, as many of each class|\")|binarised afresh"
    r"|labelled examples alone|bound of unlabelled images|grey as three channels|grey levels count as shares"
    r"|(3|5) neighbours\"|\"10 neighbours, \{|normalised root mean squared|bilinear between centres of pixels"
)
SOURCES = sorted((ROOT / "vae_jax").rglob("*.py"))
WRITTEN = [
    file
    for folder in ("vae_jax", "experiments", "benchmarks", "tests", "docs", "notebooks")
    for ending in ("py", "md", "ipynb", "css", "j2")
    for file in sorted((ROOT / folder).rglob(f"*.{ending}"))
    if file != Path(__file__).resolve() and ".ipynb_checkpoints" not in file.parts
]
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


def british(text: str) -> list[tuple[int, str]]:
    """Returns the lines and words of British spelling, but for names and texts that are stored."""
    lines = (STORED.sub("", line) for line in text.splitlines())
    return [(n, hit[0]) for n, line in enumerate(lines, 1) for hit in BRITISH.finditer(line)]


def test_british_spelling_is_found():
    text = "a labelled colour\nnoise, otherwise, raised, precise\nthe `labelled_weight` of an Optimiser"
    assert british(text) == [(1, "labell"), (1, "colour"), (3, "Optimiser")]


def test_spelling_is_american():
    files = [*WRITTEN, *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY"))]
    assert len(files) > 400
    found = {
        str(file.relative_to(ROOT)): words for file in files if (words := british(file.read_text(encoding="utf-8")))
    }
    assert not found
