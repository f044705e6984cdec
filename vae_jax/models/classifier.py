"""The classifier that a semi-supervised model has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from vae_jax.models.semi import M2
from vae_jax.options.ranges import NotNegative


@dataclass(frozen=True)
class Classifier(M2):
    """The networks of M2 trained on the labeled examples alone (the baseline of arXiv:1406.5298).

    Without the unlabeled bound nothing but the classification loss reaches q(y|x); the generative networks, which
    share no parameter with it, learn the labeled images and show what a class looks like.
    """

    alpha: Annotated[float, NotNegative()] = 1.0
    """Weight of the classification loss. It is alone in moving the classifier, so it says little under Adam."""

    unlabeled: ClassVar[bool] = False
