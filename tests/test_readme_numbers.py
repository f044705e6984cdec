"""Every measured number of README.md and its pages is in the results file that is named, at the precision printed.

Lines of README are written anew from `results/*.json` and must be found there. What is left of the sections with
measurements may hold no further measured number, so none can be added without a file behind it.
"""

import json
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = "\n".join((ROOT / name).read_text() for name in ("README.md", "docs/measuring.md", "docs/numbers.md"))
Result = Mapping[str, Any]


def held(name: str) -> dict[str, Any]:
    return json.loads(place(name).read_text())


def place(name: str) -> Path:
    """Returns the file of a result, in whatever topic folder it lies."""
    [path] = (ROOT / "results").rglob(f"{name}.json")
    return path


def plus_minus(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def metric(result: Result, name: str, digits: int) -> str:
    found = result["metrics"][name]
    return plus_minus(found["value"], found["stderr"], digits)


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def ladder(r: Result) -> list[str]:
    names = {
        "load": ("ELBO", "elbo"),
        "iw_500": ("IW-500", "iw_500"),
        "iw_5000": ("IW-5000", "iw_5000"),
        "ais, 25 temperatures": ("AIS, 8 chains, 25 temperatures", "ais"),
        "ais, 100 temperatures": ("AIS, 8 chains, 100 temperatures", "ais"),
    }
    assert r["limit"] == 1000
    return [
        row(label, metric(part, name, 1), f"{part['seconds']:.0f}", f"{part['memory_gib']:.2f}")
        for key, (label, name) in names.items()
        for part in [r["parts"][key]]
    ]


def sprites(r: Result) -> list[str]:
    labels = {
        "beta": "beta-VAE, beta 4",
        "factor": "FactorVAE, gamma 20",
        "beta-tc": "beta-TCVAE, beta 6",
        "dip-ii": "DIP-VAE-II, lambda 10",
        "capacity": "AnnealedVAE, capacity 25 nats",
    }
    scores = ("mig", "dci_disentanglement", "sap", "factorvae_score", "betavae_score")
    assert (r["steps"], r["seeds"], set(labels)) == (1500, "0:3", set(r["methods"]))
    lines = []
    for key, label in labels.items():
        s = r["methods"][key]["summary"]
        cells = [plus_minus(s[name]["mean"], s[name]["sd"], 3) for name in scores]
        lines.append(row(label, *cells, plus_minus(s["elbo"]["mean"], s["elbo"]["sd"], 1)))
    return lines


def sweep(r: Result) -> list[str]:
    run = r["runs"]["vae_digits, 5000 steps, 16 seeds"]
    assert run["single_runs"]["measured"]
    one, many = run["vmap"]["seconds"], run["single_runs"]["seconds_of_16"]
    return [f"took {one:.0f} s as one program and {many:.0f} s as 16", f"{run['vmap']['ratio']:.2f} of the time"]


def beta_vae(r: Result) -> list[str]:
    m = r["metrics"]
    text = f"ELBO {metric(r, 'elbo', 1)}, rate {m['rate']['value']:.1f} nats; {m['active_units']['value']:.0f} active"
    return [f"{r['step']:,} steps, 1 seed | {text} units"]


def default_run(r: Result) -> list[str]:
    least = r["least"]
    return [
        f"in {r['all_own']} of {len(r['runs'])} seeds x, y and scale each have a dimension of their own",
        f"tells the three shapes apart in {100 * least['shape_accuracy']:.0f} % of the test images or more",
        f"share {100 * least['overlap']:.0f} % or more of their pixels",
        f"ELBO {plus_minus(r['elbo']['mean'], r['elbo']['sd'], 1)} nats",
    ]


def vae_digits(r: Result) -> list[str]:
    assert len(r["seeds"]) == 3
    text = f"ELBO {metric(r, 'elbo', 2)}, IW-100 {metric(r, 'iw_100', 3)} nats"
    return [f"{r['step']:,} steps, mean of 3 seeds | {text}"]


def cvae(r: Result) -> list[str]:
    return [f"{r['step']:,} steps, 1 seed | IW-10 {metric(r, 'iw_10', 1)} nats"]


def iwae(r: Result) -> list[str]:
    assert r["protocol"]["n"] == 10_000
    return [f"{r['step']:,} steps, 1 seed | ELBO {metric(r, 'elbo', 1)}, IW-5000 {metric(r, 'iw_5000', 2)} nats"]


def family(r: Result) -> list[str]:
    labels = {
        "N(0, I)": "N(0, I)",
        "MoG": "mixture of Gaussians",
        "VampPrior": "VampPrior, 500 pseudo-inputs",
        "IWAE-50, N(0, I)": "IWAE-50, N(0, I)",
    }
    protocol = r["protocol"]
    assert (protocol["steps"], protocol["images"], protocol["k"]) == (1000, 200, 5000)
    lines = []
    for key, label in labels.items():
        m = r["members"][key]
        gains = [seed["metrics"]["gain"] for seed in m["seeds"] if "gain" in seed["metrics"]]
        cell = ", ".join("+" + plus_minus(g["value"], g["stderr"], 2) for g in gains)
        lines.append(f"| {label} | {plus_minus(m['iw_mean'], m['iw_sd'], 1)} |{f' {cell} ' if cell else ' '}|")
    return lines


def semi(r: Result) -> list[str]:
    assert (r["protocol"]["steps"], r["protocol"]["seeds"], r["protocol"]["labels"]) == (2000, 3, 100)
    found = {name: plus_minus(m["accuracy"]["mean"], m["accuracy"]["sd"], 3) for name, m in r["methods"].items()}
    return [f"alone reaches {found['classifier']}, M1 (an SVM on codes) {found['m1']}, M2 {found['m2']}"]


def collapse(r: Result) -> list[str]:
    labels = {
        "plain": "plain ELBO",
        "linear": "linear annealing",
        "cyclical": "cyclical annealing",
        "free-bits": "free bits, 0.5 nats per dimension",
        "delta-vae": "delta-VAE, 5 nats",
        "aggressive": "aggressive encoder, 5 updates per decoder update in the first half, with annealing",
    }
    assert (r["steps"], r["seeds"]) == (400, [0])
    lines = []
    for key, label in labels.items():
        [run], m = r["runs"][key], {name: s["mean"] for name, s in r["summary"][key].items()}
        elbo = plus_minus(run["elbo"]["value"], run["elbo"]["stderr"], 1)
        lines.append(row(label, elbo, f"{m['rate']:.2f}", f"{m['mutual_information']:.2f}", f"{m['active_units']:.0f}"))
    return lines


def gradients(r: Result) -> list[str]:
    assert r["draws"] == 2000
    return [f"about {round(r['reinforce_over_pathwise'], -2):,.0f} times the variance of the pathwise gradient"]


def bound_speed(r: Result) -> list[str]:
    s, (ours, theirs) = r["summary"], (r["raw"]["ours"], r["raw"]["torch"])
    pairs = zip(ours, theirs, strict=True)
    first, second = (statistics.median(b["seconds"]) / statistics.median(a["seconds"]) for a, b in pairs)
    rates = [f"{s[side]['samples_per_s'] / 1e3:.0f}k" for side in ("ours", "torch")]
    share, memory = 100 * s["ours"]["share_of_matmul_peak"], s["ours"]["memory_gib"]
    return [
        f"memory: {rates[0]} samples/s for a 784-200-200-50 net against {rates[1]} with the same loop in torch",
        f"{first:.2f}x and {second:.2f}x in two repeats, at {share:.0f} % of the matmul peak and in {memory:.2f} GiB",
    ]


def linear(r: Result) -> list[str]:
    assert (r["protocol"]["steps"], r["protocol"]["raw"]) == (10_000, False)
    return [f"ends {r['gap']:.3f} nats below the pPCA optimum of {r['optimum']:.3f}"]


def bench(r: Result) -> list[str]:
    def side(part: str, peer: str, ours: str, theirs: str) -> str:
        key = r["summary"][part]["unit"]

        def rate(entry: Mapping[str, Any]) -> float:
            return statistics.median(entry[key])

        found = [rate(repeat["ours"]) / rate(repeat[peer]) for repeat in r["raw"][part]]
        middle = r["summary"][part]["ratio"][peer]
        assert middle == pytest.approx(statistics.median(found))
        return f"| {ours} | {theirs} | {middle:.2f}x ({min(found):.2f} to {max(found):.2f}) |"

    s = r["summary"]
    mlp, conv = s["mlp"], s["conv"]
    ours = f"{mlp['rate']['ours'] / 1e3:.1f}k images/s"
    memory, loader, torch_conv = (
        f"{mlp['rate']['torch-memory'] / 1e3:.1f}k",
        f"{mlp['rate']['torch-loader'] / 1e3:.1f}k",
        f"{conv['rate']['torch-conv']:.1f}",
    )
    shares = [f"{100 * part['share_of_peak']:.0f} %" for part in (mlp, conv)]
    assert r["repeats"] == 3
    # README says that other parts have no results: one that has needs its line there and here.
    assert set(r["raw"]) == {"mlp", "conv", "sweep", "startup", "train"}
    return [
        side("mlp", "torch-memory", ours, memory),
        side("mlp", "torch-loader", ours, loader),
        side("conv", "torch-conv", f"{conv['rate']['ours']:.1f} steps/s", torch_conv),
        f"at {shares[0]} of the matmul peak measured in the same process ({mlp['peak_gflops']:.0f} GFLOP/s)",
        f"the conv step at {shares[1]};",
        f"reaches {s['sweep']['1024'] / 1e3:.1f}k images/s",
        f"takes {mlp['compile_s']:.1f} s (MLP) and {conv['compile_s']:.1f} s (conv)",
        f"peaks at {s['train_memory_gib']:.2f} GiB",
        f"`vae-jax --help` takes {s['startup_s']['help']:.2f} s",
    ]


# Results file -> what README says of it.
SAID: dict[str, Callable[[Result], list[str]]] = {
    "ais": ladder,
    "sprites": sprites,
    "sweep": sweep,
    "beta_vae": beta_vae,
    "default_run": default_run,
    "vae_digits": vae_digits,
    "cvae_mnist": cvae,
    "iwae_mnist_iw5000": iwae,
    "family": family,
    "semi_supervised": semi,
    "collapse": collapse,
    "gradient_variance": gradients,
    "iw": bound_speed,
    "linear_mnist": linear,
    "bench": bench,
}
# Sections with measurements, subsections included.
MEASURED = ("Likelihoods", "Disentanglement", "Sweeps", "Numbers", "The single-latent family", "Out-of-distribution")
# A number with a decimal point or an error, or with a unit of what is measured.
NUMBER = re.compile(r"[-+]?\d[\d,.]*\.\d+|\d(?:[\d,.]*\d)?k?\s?(?:nats|GiB|GFLOP/s|\w+/s|%|ms|s|x|times)(?![\w-])")
# Numbers of another kind that are left, with the reason.
EXPLAINED = {
    "0.10.2": "the version of jax, compared below",
    "2x": "a goal",
    "5x": "a goal",
    "1x": "a goal",
}


def plain(text: str) -> str:
    """Returns the text in one line, as markdown reads it."""
    return " ".join(text.split())


def measured_text() -> str:
    """Returns the sections with measurements, without code."""
    parts = re.split(r"^## ", README, flags=re.M)
    text = "\n".join(part for part in parts if part.startswith(MEASURED))
    assert len([part for part in parts if part.startswith(MEASURED)]) == len(MEASURED)
    return text


@pytest.mark.parametrize("name", SAID)
def test_readme_says_what_the_file_holds(name):
    text = plain(README)
    for line in SAID[name](held(name)):
        assert plain(line) in text
    assert str(place(name).relative_to(ROOT)) in README


@pytest.mark.parametrize("name", SAID)
def test_the_file_is_of_a_commit_without_changes(name):
    """A number that no commit repeats is no result. `iw` and the part of `sweep` that is read say theirs elsewhere."""
    result = held(name)
    if name == "sweep":
        result = result["runs"]["vae_digits, 5000 steps, 16 seeds"]
    commits = re.findall(r'"commit": "(\w+)(\+changes)?"', json.dumps(result))
    assert [changes for _, changes in commits] == [""] * len(commits)
    assert bool(commits) == (name not in WITHOUT_COMMIT)


# Written before results files named their commit.
WITHOUT_COMMIT = ("gradient_variance", "iw")


def test_no_other_number_is_measured():
    text = plain(re.sub(r"```.*?```|`[^`]*`", "", measured_text(), flags=re.S))
    for name, lines in SAID.items():
        for line in lines(held(name)):
            shown = plain(re.sub(r"`[^`]*`", "", line))
            assert shown in text, line
            text = text.replace(shown, " ")
    left = {found.strip() for found in NUMBER.findall(re.sub(r"arXiv:\d{4}\.\d+", "", text))}
    assert left - set(EXPLAINED) == set()
    assert set(EXPLAINED) - left == set()


def test_what_is_said_of_the_machine():
    for name in ("ais", "bench"):
        assert f"jax {held(name)['versions']['jax']}" in README
    training = held("beta_vae")["training"]
    assert f"{training['cpus']} CPU cores ({training['processor']}" in README
    assert f"jax {training['jax']}" in README


def test_the_number_of_experiments_with_a_result():
    lines = (ROOT / "results" / "README.md").read_text().split("## No result yet")[0].splitlines()
    names = {line.split("|")[1].strip() for line in lines if line.startswith("| ")} - {"experiment", "---"}
    assert f"for each of the {len(names)} experiments that were measured" in README
