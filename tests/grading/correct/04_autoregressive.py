"""Other right answers to the exercises of chapter 4; each block is one cell."""

import numpy as np
import torch
from scipy import special, stats


# 4.1
def mask(degrees_in, degrees_out, strict):
    return np.array([[float(o > i or (o == i and not strict)) for i in degrees_in] for o in degrees_out])


# 4.1
def mask(degrees_in, degrees_out, strict):
    return np.greater_equal.outer(degrees_out - int(strict), degrees_in)


# 4.1
def mask(degrees_in, degrees_out, strict):
    difference = torch.from_numpy(degrees_out)[:, None] - torch.from_numpy(degrees_in)
    return (difference >= (1 if strict else 0)).int()


# 4.2
def masked_kernel(weight, sees_centre):
    k = weight.shape[-1]
    c = k // 2
    weight[:, :, c + 1 :, :] = 0
    weight[:, :, c, c + int(sees_centre) :] = 0
    return weight


# 4.2
def masked_kernel(weight, sees_centre):
    flat = torch.from_numpy(weight).flatten(2).clone()
    flat[..., flat.shape[-1] // 2 + int(sees_centre) :] = 0
    return flat.reshape(weight.shape)


# 4.2
def masked_kernel(weight, sees_centre):
    k = weight.shape[-1]
    row, column = np.mgrid[:k, :k] - k // 2
    return np.where((row < 0) | ((row == 0) & (column < 0)) | ((row == 0) & (column == 0) & sees_centre), weight, 0.0)


# 4.3
def log_mixture(x, logits, means, scales):
    return special.logsumexp(stats.logistic.logpdf(x[:, None], means, scales), axis=1, b=special.softmax(logits))


# 4.3
def log_mixture(x, logits, means, scales):
    x, logits, means, scales = (torch.from_numpy(a) for a in (x, logits, means, scales))
    u = (x[:, None] - means) / scales
    log_components = torch.nn.functional.logsigmoid(u) + torch.nn.functional.logsigmoid(-u) - scales.log()
    return (logits.log_softmax(0) + log_components).logsumexp(1)


# 4.3
def log_mixture(x, logits, means, scales):
    density = np.zeros(len(x))
    for weight, mean, scale in zip(np.exp(logits) / np.exp(logits).sum(), means, scales, strict=True):
        density += weight / (4 * scale * np.cosh((x - mean) / (2 * scale)) ** 2)
    return np.log(density)


# 4.4
def sample_mixture(logits, means, scales, u_component, u_noise):
    edges = np.cumsum(special.softmax(logits))
    return np.array(
        [
            stats.logistic.ppf(v, *((means[m], scales[m])))
            for u, v in zip(u_component, u_noise)
            for m in [np.argmax(edges > u)]
        ]
    )


# 4.4
def sample_mixture(logits, means, scales, u_component, u_noise):
    weights = torch.from_numpy(logits).softmax(0)
    m = torch.bucketize(torch.from_numpy(u_component), weights.cumsum(0), right=True).clamp(max=len(means) - 1)
    return torch.from_numpy(means)[m] + torch.from_numpy(scales)[m] * torch.logit(torch.from_numpy(u_noise))


# 4.4
def sample_mixture(logits, means, scales, u_component, u_noise):
    edges = np.cumsum(np.exp(logits) / np.sum(np.exp(logits)))
    m = np.sum(u_component[:, None] >= edges[:-1], axis=1)
    return means[m] - scales[m] * np.log(1 / u_noise - 1)


# 4.5
def log_discretized(x, mean, scale, levels):
    edges = np.concatenate([[-np.inf], np.arange(levels - 1) + 0.5, [np.inf]])
    masses = np.diff(stats.logistic.cdf(edges, mean, scale))
    return np.log(masses)[x.astype(int)]


# 4.5
def log_discretized(x, mean, scale, levels):
    x = torch.from_numpy(x)
    above = torch.sigmoid((x + 0.5 - mean) / scale).where(x < levels - 1, torch.ones(()).double())
    below = torch.sigmoid((x - 0.5 - mean) / scale).where(x > 0, torch.zeros(()).double())
    return (above - below).log()


# 4.5
def log_discretized(x, mean, scale, levels):
    F = lambda edge: 0.5 * (1 + np.tanh((edge - mean) / (2 * scale)))  # noqa: E731
    p = F(x + 0.5) - F(x - 0.5)
    p = p + (x == 0) * F(-0.5) + (x == levels - 1) * (1 - F(levels - 0.5))
    return np.log(p)


# 4.6
def tempered(logits, T):
    return special.softmax(logits / T, axis=1)


# 4.6
def tempered(logits, T):
    return torch.softmax(torch.from_numpy(logits) / T, dim=-1)


# 4.6
def tempered(logits, T):
    p = special.softmax(logits, axis=1) ** (1 / T)
    return p / p.sum(axis=1, keepdims=True)
