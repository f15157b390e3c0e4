"""Other right answers to the exercises of chapter 1; each block is one cell."""

import numpy as np
import torch
from scipy import stats


# 1.1
def bits_per_dim(nll, D):
    return np.mean([one / D / np.log(2) for one in nll])


# 1.1
def bits_per_dim(nll, D):
    return torch.from_numpy(nll).float().mean() * np.log2(np.e) / D


# 1.1
bits_per_dim = lambda nll, D: np.log2(np.exp(np.average(nll) / D))  # noqa: E731


# 1.2
def bits_per_dim_of_levels(nll, D, levels):
    return np.mean((nll + D * np.log(levels)) / D) * np.log2(np.e)


# 1.2
def bits_per_dim_of_levels(nll, D, levels):
    total = 0.0
    for one in nll:
        total += (one / D + np.log(levels)) / np.log(2)
    return total / len(nll)


# 1.2
def bits_per_dim_of_levels(nll, D, levels):
    return torch.as_tensor(nll).mean() / (D * torch.log(torch.tensor(2.0))) + torch.log2(torch.tensor(float(levels)))


# 1.3
def kl_on_grid(log_p, log_q, delta):
    p, q = np.exp(log_p), np.exp(log_q)
    return np.sum(np.where(p > 1e-300, p * (np.log(np.maximum(p, 1e-300)) - log_q), 0)) * delta + 0 * q.sum()


# 1.3
def kl_on_grid(log_p, log_q, delta):
    log_p, log_q = torch.from_numpy(log_p), torch.from_numpy(log_q)
    return torch.dot(log_p.exp(), log_p - log_q) * delta


# 1.3
def kl_on_grid(log_p, log_q, delta):
    return np.trapezoid(np.exp(log_p) * (log_p - log_q), dx=delta)


# 1.4
def jsd_on_grid(log_p, log_q, delta):
    p, q = np.exp(log_p), np.exp(log_q)
    m = (p + q) / 2
    entropy = lambda f: -np.sum(f * np.log(f + 1e-300)) * delta  # noqa: E731
    return entropy(m) - (entropy(p) + entropy(q)) / 2


# 1.4
def jsd_on_grid(log_p, log_q, delta):
    def kl(a, b):
        return (np.exp(a) * (a - b)).sum() * delta

    log_m = np.log(np.exp(log_p) / 2 + np.exp(log_q) / 2)
    return (kl(log_p, log_m) + kl(log_q, log_m)) / 2


# 1.4
def jsd_on_grid(log_p, log_q, delta):
    log_p, log_q = torch.from_numpy(log_p), torch.from_numpy(log_q)
    log_m = torch.logsumexp(torch.stack([log_p, log_q]), 0) - np.log(2)
    return delta * sum(torch.sum(a.exp() * (a - log_m)) for a in (log_p, log_q)) / 2


# 1.5
def log_density_after_map(y, A, b):
    return stats.multivariate_normal(b, A @ A.T).logpdf(y)


# 1.5
def log_density_after_map(y, A, b):
    x = (y - b) @ np.linalg.inv(A).T
    return stats.norm.logpdf(x).sum(axis=1) - np.log(np.abs(np.linalg.det(A)))


# 1.5
def log_density_after_map(y, A, b):
    A, b, y = map(torch.from_numpy, (A, b, y))
    return torch.distributions.MultivariateNormal(b, A @ A.T).log_prob(y)


# 1.6
def log_kde(x, data, h):
    return np.logaddexp.reduce(stats.norm.logpdf(x[:, None], data, h), axis=1) - np.log(len(data))


# 1.6
def log_kde(x, data, h):
    normal = torch.distributions.Normal(torch.from_numpy(data), h)
    return normal.log_prob(torch.from_numpy(x)[:, None]).logsumexp(1) - np.log(len(data))


# 1.6
def log_kde(x, data, h):
    answers = []
    for point in x:
        exponents = -((point - data) ** 2) / (2 * h * h)
        top = max(exponents)
        answers.append(top + np.log(sum(np.exp(exponents - top))) - np.log(len(data) * h) - 0.5 * np.log(2 * np.pi))
    return answers
