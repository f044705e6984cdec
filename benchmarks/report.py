"""From raw repeats to medians, ratios and the table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from benchmarks.sizes import QUANTIZE, SAMPLING

Raw = dict[str, Any]
RATES = {"mlp": "images_per_s", "conv": "steps_per_s", "quantize": "vectors_per_s", "vq": "steps_per_s"}


def rate(entry: dict[str, Any], key: str) -> float:
    """Returns the median rate of one process."""
    return statistics.median(entry[key])


def ratios(repeats: Sequence[Raw], key: str, peer: str) -> list[float]:
    """Returns ours / peer of each repeat in which both ran: what ran side by side is compared."""
    pairs = [(r["ours"], r[peer]) for r in repeats if "error" not in r.get("ours", {"error": 1})]
    return [rate(a, key) / rate(b, key) for a, b in pairs if "error" not in b]


def middle(repeats: Sequence[Raw], side: str, value: Callable[[dict], float]) -> float | None:
    """Returns the median over the repeats in which `side` ran, None if it never did."""
    values = [value(r[side]) for r in repeats if side in r and "error" not in r[side]]
    return statistics.median(values) if values else None


def summarize(raw: Raw) -> dict[str, Any]:
    """Returns the medians of a run: for each model its rates, its ratios to the peers and what a step costs."""
    summary: dict[str, Any] = {}
    for model, key in RATES.items():
        if model not in raw:
            continue
        repeats = raw[model]
        entry: dict[str, Any] = {"unit": key, "ratio": {}, "rate": {}, "memory_gib": {}}
        for side in repeats[0]:
            entry["rate"][side] = middle(repeats, side, lambda e, k=key: rate(e, k))
            entry["memory_gib"][side] = middle(repeats, side, lambda e: e["memory_gib"])
            found = ratios(repeats, key, side) if side != "ours" else []
            if found:
                entry["ratio"][side] = statistics.median(found)
        entry["compile_s"] = middle(repeats, "ours", lambda e: e["compile_s"])
        has = {key for repeat in repeats for key in repeat["ours"]}
        if "gflops" in has:
            entry["share_of_peak"] = middle(repeats, "ours", lambda e: e["gflops"] / e["peak_gflops"])
            entry["peak_gflops"] = middle(repeats, "ours", lambda e: e["peak_gflops"])
        if "extra_gib" in has:
            entry["extra_gib"] = {side: middle(repeats, side, lambda e: e["extra_gib"]) for side in repeats[0]}
            entry["matrix_gib"] = middle(repeats, "ours", lambda e: e["matrix_gib"])
        summary[model] = entry
    if "tokens_per_s" in raw.get("sampling", {}):
        summary["sampling"] = sampled(raw["sampling"]["tokens_per_s"])
    summary["sweep"] = {str(line["batch"]): line["images_per_s"] for line in raw.get("sweep", {}).get("lines", [])}
    startup = raw.get("startup", {}).get("seconds", {})
    summary["startup_s"] = {name: statistics.median(times) for name, times in startup.items()}
    if "memory_gib" in raw.get("train", {}):
        summary["train_memory_gib"] = raw["train"]["memory_gib"]
    return summary


def sampled(rates: dict[str, list[float]]) -> dict[str, float]:
    """Returns median tokens/s with the cache and without, and the median ratio of what ran side by side."""
    ratio = statistics.median(a / b for a, b in zip(rates["cached"], rates["uncached"], strict=True))
    return {name: statistics.median(values) for name, values in rates.items()} | {"ratio": ratio}


def errors(raw: Any) -> list[str]:
    """Returns the distinct messages of everything that did not run."""
    if isinstance(raw, dict):
        own = [raw["error"]] if isinstance(raw.get("error"), str) else []
        return list(dict.fromkeys(own + [e for value in raw.values() for e in errors(value)]))
    if isinstance(raw, list):
        return list(dict.fromkeys(e for value in raw for e in errors(value)))
    return []


def verdict(value: float, target: float, at_most: bool = False) -> str:
    """Returns "met" or "missed"."""
    return "met" if (value <= target if at_most else value >= target) else "[red]missed[/red]"


Row = tuple[str, str, str, str]
NAMES = {"mlp": "MLP VAE", "conv": "conv VAE", "quantize": "quantize", "vq": "VQ-VAE"}
# Lowest ratio that meets the goal; peers without one are shown for comparison only.
TARGETS = {
    ("mlp", "torch-memory"): 2.0,
    ("mlp", "torch-loader"): 5.0,
    ("conv", "torch-conv"): 1.0,
    ("quantize", "torch-library"): 1.0,
    ("vq", "torch-library"): 1.0,
    ("vq", "torch-plain"): 1.0,
}


def pair_rows(model: str, entry: dict[str, Any]) -> list[Row]:
    """Returns the lines of a part with peers."""
    name, unit, lines = NAMES[model], entry["unit"].replace("_per_s", "/s"), []
    for side, value in entry["rate"].items():
        if value is not None:
            lines.append((f"{name}: {side}", f"{value:,.1f} {unit}", "", ""))
    for side, value in entry["ratio"].items():
        target = TARGETS.get((model, side))
        goal = ("", "") if target is None else (f">= {target:g}x", verdict(value, target))
        lines.append((f"{name}: ours / {side}", f"{value:.2f}x", *goal))
    if entry.get("share_of_peak") is not None:
        share, peak = entry["share_of_peak"], entry["peak_gflops"]
        lines.append((f"{name}: share of matmul peak", f"{share:.0%} of {peak:.0f} GFLOP/s", "", ""))
    if entry["compile_s"] is not None:
        lines.append((f"{name}: compile + first step", f"{entry['compile_s']:.1f} s", "", ""))
        lines.append((f"{name}: peak memory", f"{entry['memory_gib']['ours']:.2f} GiB", "", ""))
    for side, value in entry.get("extra_gib", {}).items():
        if value is not None:
            limit = entry["matrix_gib"] / 10 if side == "ours" else None
            goal = ("", "") if limit is None else (f"<= {limit:.4g} GiB", verdict(value, limit, True))
            lines.append((f"{name}: peak over what was there, {side}", f"{value:.3f} GiB", *goal))
    return lines


def rows(summary: dict[str, Any]) -> list[Row]:
    """Returns (what, value, target, verdict) for each line of the table."""
    lines = [row for model in NAMES if model in summary for row in pair_rows(model, summary[model])]
    if "sampling" in summary:
        found = summary["sampling"]
        for side in ("cached", "uncached"):
            lines.append((f"transformer prior: {side}", f"{found[side]:,.0f} tokens/s", "", ""))
        lines.append(("transformer prior: cached / uncached", f"{found['ratio']:.2f}x", "", ""))
    for batch, value in summary["sweep"].items():
        lines.append((f"MLP VAE: ours, batch {batch}", f"{value:,.0f} images/s", "", ""))
    if "train_memory_gib" in summary:
        memory = summary["train_memory_gib"]
        lines.append(("train vae_mnist: peak memory", f"{memory:.2f} GiB", "< 1.5", verdict(memory, 1.5, True)))
    for name, what in (("python", "bare interpreter"), ("import", "import vae_jax"), ("help", "vae-jax --help")):
        if name in summary["startup_s"]:
            value = summary["startup_s"][name]
            target, met = ("< 2 s", verdict(value, 2.0, True)) if name == "help" else ("", "")
            lines.append((what, f"{value:.2f} s", target, met))
    return lines


def table(summary: dict[str, Any], title: str, quick: bool = False) -> Table:
    """Returns the table that is printed; with `quick` the sizes are small, and targets do not apply."""
    vectors, prior = QUANTIZE[quick], SAMPLING[quick]
    caption = (
        f"MLP VAE 784-512-512-20, batch 128, {'random images' if quick else 'gray MNIST'}; conv beta-VAE 64x64, 4x4 "
        f"kernels, batch 64; quantize: {vectors.vectors:,} vectors of length {vectors.features}, {vectors.codes:,} "
        f"codes; VQ-VAE of {'random images' if quick else 'CIFAR-10'}, 512 codes, batch 32; transformer prior of "
        f"{prior.side}x{prior.side} codes, batch {prior.batch}. Medians."
    )
    out = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for name, justify in (("measured", "left"), ("value", "right"), ("target", "right"), ("", "left")):
        out.add_column(name, justify=justify)  # type: ignore[arg-type]
    for what, value, *goal in rows(summary):
        out.add_row(what, value, *(("", "") if quick else goal))
    return out
