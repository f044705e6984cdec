"""Words that read as translated are in no string, comment or document; spelling is American."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What to write instead is in the comment of each line.
WORDS = re.compile(
    r"\b(?:"
    r"(is|are|was|were) told|told nothing|told apart"  # is conditioned on, receives; separated
    r"|mends?|mended|mending"  # fix
    r"|an? \w+ that has (not(?! been)|none)|(has|have) not (is|are|either)"  # does not have, does not provide
    r"|(one|two|three|four|MSE|\d[\d,.]*\d|\d|keys?|pass(es)?|steps|samples?|draws?|nats|bits|chains|directions|outputs?"
    r"|values?|rows?|columns?|codes?|rates?|names?(?= a table)) an? "  # one key per example, nats per pixel
    r"(example|image|layer|dispatch|step|pixel|sub-pixel|dimension|channel|variable|class|row|column|value|line|chain"
    r"|component|run|epoch|draw|table|experiment|combination|test image)(?! has)"
    r"|asked for"  # requested
    r"|by (itself|themselves)"  # alone
    r"|(will|would) do(?! nothing)"  # suffices
    r"|lower rate"  # lower the learning rate: the rate is the KL
    r"|stands? (there|in the|under)"  # is listed, is in
    r"|asked of"  # takes, requested of
    r"|as it stands"  # as is
    r"|in the light and in the dark"  # light and dark themes
    r"|with nothing else to do"  # on an idle machine
    r"|worse than a coin"  # below chance
    r")\b|\b(?:has|have) not(?=[;,.] | \()",  # does not have; a mark is no edge of a word
    re.IGNORECASE,
)
# The protocol that standard metrics are stored and compared by.
PROTOCOL = "one posterior sample an example, KL in closed form"
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
    r"|black, grey or|channels grey or rgb|did you mean 'grey'"  # values of options, in messages
    r"|[\"']normaliser[\"']|labelledby"  # state of a prior, attribute of HTML
    r"|neighbours(?=: int|: of the estimator|=0| 0| < 1| \{|\}|, seed|:$)|info_mec: neighbours"  # argument of info_mec
    r"|binarisation\)|dequantised, \(v \+ u\) / 256|256 grey levels, (v / 255|one scale)"  # from here on protocols
    r"|(\}|57|30|1,000) labelled|are labelled(, as many of each class|\")|binarised afresh"
    r"|labelled examples alone|bound of unlabelled images|grey as three channels|grey levels count as shares"
    r"|(3|5) neighbours\"|\"10 neighbours, \{|normalised root mean squared|bilinear between centres of pixels"
    r"|[\"']unlabelled[\"']|m2_unlabelled"  # name of a folder of the user's, experiment
)
SOURCES = [
    file for folder in ("vae_jax", "experiments", "benchmarks") for file in sorted((ROOT / folder).rglob("*.py"))
]
WRITTEN = [
    file
    for folder in ("vae_jax", "experiments", "benchmarks", "tests", "docs", "notebooks")
    for ending in ("py", "md", "ipynb", "css", "j2")
    for file in sorted((ROOT / folder).rglob(f"*.{ending}"))
    if file != Path(__file__).resolve() and ".ipynb_checkpoints" not in file.parts
]
DOCUMENTS = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")] + sorted(ROOT.glob("docs/*.md"))


def written(source: str):
    """Yields (line, text) of every string of a module, docstrings included, and of every comment."""
    for node in ast.walk(ast.parse(source)):
        # f-strings hold their parts as constants.
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, " ".join(node.value.split())
    # Comments on lines that follow each other are one text: a phrase may begin on one and end on the next.
    lines: dict[int, str] = {}
    first, last = 0, -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            first = first if line == last + 1 else line
            lines[first] = f"{lines.get(first, '')} {token.string.lstrip('#: ')}"
            last = line
    yield from lines.items()


def named(source: str):
    """Yields (line, name) of every variable and argument of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.arg):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.arg


def test_the_words_are_found():
    assert WORDS.search("The model is told the label.")
    assert WORDS.search("drawn from one key an example")
    assert WORDS.search("squared error 0.0108 a pixel")
    assert WORDS.search("2 or more values a variable")
    assert WORDS.search("What a model has not (an autoencoder has no rate)")
    assert WORDS.search("which it has not, and")
    assert WORDS.search("Metrics that are made only when they are asked for.")
    assert not WORDS.search("one key per example of a model that does not have a prior")
    assert not WORDS.search("How many values a pixel has; it has not converged.")


def test_words_are_found_in_strings_and_comments():
    source = 'told = f"one key {1} and one"  # one key\n# an example\n"""Each by\nitself."""\n'
    assert [WORDS.search(text) is not None for _, text in written(source)] == [True, False, False, True]
    assert dict(written(source))[1] == " one key an example"
    assert ("told" in dict(map(reversed, named(source)))) is True


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_such_word_in_a_string_or_comment(path):
    source = path.read_text()
    texts = [(line, text.replace(PROTOCOL, "")) for line, text in written(source)]
    found = [(line, hit[0]) for line, text in texts if (hit := WORDS.search(text))]
    assert not found
    assert not [line for line, name in named(source) if name == "told"]  # cond, options, requested


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
