"""Structural similarity of images and their reconstructions."""

from __future__ import annotations

from vae_jax.evaluation.subject import Subject
from vae_jax.metrics.estimate import Estimate
from vae_jax.metrics.image_pairs import ms_ssim_of_any, ssim_of_any
from vae_jax.metrics.structural import plan


def measure_ssim(subject: Subject) -> dict[str, Estimate]:
    """Returns the metric `ssim` of a run: images against the mean images of their mean codes."""
    # The window shrinks with the image: a fixed one of 11 pixels would not fit an 8x8 digit.
    window = plan(*subject.run.spec.x.shape[:2])[0]
    subject.protocol["ssim"] = (
        f"Gaussian window of {window}x{window}, sd 1.5, data range 1; mean image of the mean code"
    )
    return {"ssim": Estimate.of(ssim_of_any(subject.images, subject.reconstructions))}


def measure_ms_ssim(subject: Subject) -> dict[str, Estimate]:
    """Returns the metric `ms_ssim` of a run: images against the mean images of their mean codes."""
    # Small images have room for fewer than the 5 published scales; the weights of those that fit are renormalized.
    window, weights = plan(*subject.run.spec.x.shape[:2])
    subject.protocol["ms_ssim"] = (
        f"{len(weights)} of 5 scales fit, weights {', '.join(f'{w:.3f}' for w in weights)}; window {window}x{window}, "
        "data range 1; mean image of the mean code"
    )
    return {"ms_ssim": Estimate.of(ms_ssim_of_any(subject.images, subject.reconstructions))}
