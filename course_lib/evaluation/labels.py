r"""Figures that need class labels, or a classifier that gives them."""

from __future__ import annotations

import math

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from course_lib.evaluation.checks import require_pair, require_samples
from course_lib.evaluation.intervals import Interval, share_interval

__all__ = ["inception_score", "train_on_synthetic"]


@torch.no_grad()
def inception_score(logits: Tensor) -> float:
    r"""Inception Score: are samples of one class each, and all classes equally frequent?

    .. math:: \mathrm{IS} = \exp\, \mathbb E_x \, D_{\mathrm{KL}}\!\left( p(c \mid x) \,\Vert\, p(c) \right),
              \qquad p(c) = \mathbb E_x\, p(c \mid x)

    It lies between 1 and the number of classes. It never looks at real data: one perfect image of each class, copied,
    gets the highest score. Computed on all samples at once, since cutting them in ten splits lowers it.

    Args:
        logits: What a classifier says of generated data, shape (N, classes).

    Returns:
        The score.

    Raises:
        ValueError: If the logits are not of shape (N, classes), or hold NaN.

    Reference:
        Salimans et al., *Improved Techniques for Training GANs* (2016), section 4; Barratt and Sharma, *A Note on the
        Inception Score* (2018), for its faults.

    Example:
        >>> round(inception_score(100 * torch.eye(10)), 3), round(inception_score(torch.zeros(10, 10)), 3)
        (10.0, 1.0)
    """
    require_samples(logits=logits)
    log_p = logits.double().log_softmax(1)  # (N, classes)
    log_marginal = log_p.logsumexp(0) - math.log(len(log_p))
    return torch.special.xlogy(log_p.exp(), (log_p - log_marginal).exp()).sum(1).mean().exp().item()


def train_on_synthetic(fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor) -> Interval:
    r"""Train a classifier on generated data and test it on real data.

    The accuracy says how far generated data can stand in for real data. Compare it with the same figure for real
    training data of the same size. The classifier is logistic regression on standardized inputs: deterministic, and
    the same for all.

    Args:
        fake: Generated data or its features, shape (N, D).
        fake_labels: Their classes, shape (N,). A model without classes has none: label its samples by a classifier of
            real data, and say so.
        real: Real data that neither the model nor that classifier was trained on, shape (M, D).
        real_labels: Their classes, shape (M,).

    Returns:
        Accuracy on the real data, with Wilson's interval.

    Raises:
        ValueError: If the samples cannot be compared, there is not one label for each row, or the generated data has
            only one class.

    Reference:
        Esteban, Hyland and Rätsch, *Real-valued (Medical) Time Series Generation with Recurrent Conditional GANs*
        (2017), section 4; Ravuri and Vinyals, *Classification Accuracy Score for Conditional Generative Models* (2019).

    Example:
        >>> x, y = torch.randn(400, 2), torch.arange(400) % 2
        >>> x[:, 0] += 20 * y
        >>> train_on_synthetic(x[:200], y[:200], x[200:], y[200:]).value
        1.0
    """
    require_pair(fake=fake, real=real)
    for name, x, labels in (("fake", fake, fake_labels), ("real", real, real_labels)):
        if labels.shape != x.shape[:1] or labels.is_floating_point():
            raise ValueError(
                f"expected one whole number for each of the {len(x)} rows of {name}, "
                f"got labels of shape {tuple(labels.shape)} and type {labels.dtype}"
            )
    if len(classes := fake_labels.unique()) < 2:
        raise ValueError(f"the generated data has only one class, {classes.tolist()}: there is nothing to learn")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(fake.cpu().numpy(), fake_labels.cpu().numpy())
    right = classifier.predict(real.cpu().numpy()) == real_labels.cpu().numpy()
    return share_interval(int(right.sum()), len(right))
