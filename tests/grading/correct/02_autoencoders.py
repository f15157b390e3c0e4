"""Other right answers to the exercises of chapter 2; each block is one cell."""

import numpy as np
import torch
from scipy import linalg, special


# 2.1
def reconstruction_loss(x, x_hat):
    return np.einsum("bd,bd->", x - x_hat, x - x_hat) / len(x)


# 2.1
def reconstruction_loss(x, x_hat):
    return sum(np.linalg.norm(a - b) ** 2 for a, b in zip(x, x_hat, strict=True)) / x.shape[0]


# 2.1
def reconstruction_loss(x, x_hat):
    return torch.nn.functional.mse_loss(torch.from_numpy(x).float(), torch.from_numpy(x_hat).float()) * x.shape[1]


# 2.2
def best_linear_loss(covariance, K):
    return np.trace(covariance) - np.sort(np.linalg.eigvalsh(covariance))[::-1][:K].sum()


# 2.2
def best_linear_loss(covariance, K):
    return np.linalg.svd(covariance, compute_uv=False)[K:].sum()


# 2.2
def best_linear_loss(covariance, K):
    return torch.linalg.eigvalsh(torch.from_numpy(covariance)).flip(0)[K:].sum()


# 2.3
def pca_reconstruct(x_train, x_test, K):
    centred = x_train - x_train.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    projection = vectors[:, -K:] @ vectors[:, -K:].T
    return x_train.mean(0) + (x_test - x_train.mean(0)) @ projection


# 2.3
def pca_reconstruct(x_train, x_test, K):
    x, new = torch.from_numpy(x_train), torch.from_numpy(x_test)
    V = torch.linalg.svd(x - x.mean(0)).Vh[:K].T
    return (new - x.mean(0)) @ V @ V.T + x.mean(0)


# 2.3
def pca_reconstruct(x_train, x_test, K):
    mean, (_, vectors) = x_train.mean(axis=0), np.linalg.eigh(np.cov(x_train.T))
    rebuilt = np.tile(mean, (len(x_test), 1))
    for k in range(1, K + 1):
        direction = vectors[:, -k]
        rebuilt += np.outer((x_test - mean) @ direction, direction)
    return rebuilt


# 2.4
def largest_angle(A, B):
    Q_A, Q_B = linalg.orth(A), linalg.orth(B)
    sine = np.linalg.norm(Q_B - Q_A @ (Q_A.T @ Q_B), ord=2)
    return np.rad2deg(np.arcsin(min(sine, 1.0)))


# 2.4
def largest_angle(A, B):
    P_A = A @ np.linalg.pinv(A)
    P_B = B @ np.linalg.pinv(B)
    return 180 / np.pi * np.arcsin(min(1.0, np.linalg.norm(P_A - P_B, 2)))


# 2.4
def largest_angle(A, B):
    Q_A, Q_B = torch.linalg.qr(torch.from_numpy(A)).Q, torch.linalg.qr(torch.from_numpy(B)).Q
    return torch.rad2deg(torch.acos(torch.linalg.svdvals(Q_A.T @ Q_B).min().clamp(-1, 1)))


# 2.5
def denoised(x_tilde, means, weights, s, sigma):
    v = s**2 + sigma**2
    answers = np.zeros_like(x_tilde)
    for i, x in enumerate(x_tilde):
        r = weights * np.exp(-((x - means) ** 2).sum(1) / 2 / v)
        answers[i] = (r / r.sum()) @ (sigma**2 * means + s**2 * x) / v
    return answers


# 2.5
def denoised(x_tilde, means, weights, s, sigma):
    x = torch.tensor(x_tilde, requires_grad=True)  # Tweedie's formula, with the score by autograd
    v = s**2 + sigma**2
    logits = torch.tensor(weights).log() - (x[:, None] - torch.tensor(means)).square().sum(2) / (2 * v)
    (score,) = torch.autograd.grad(logits.logsumexp(1).sum(), x)
    return x + sigma**2 * score


# 2.5
def denoised(x_tilde, means, weights, s, sigma):
    distances = np.square(x_tilde[:, :, None] - means.T).sum(1)
    r = special.softmax(np.log(weights) - 0.5 * distances / (s * s + sigma * sigma), axis=1)
    shrink = s * s / (s * s + sigma * sigma)
    return shrink * x_tilde + (1 - shrink) * r @ means


# 2.6
def score(x_tilde, denoised_x, sigma):
    return -(x_tilde - denoised_x) * sigma**-2.0


# 2.6
def score(x_tilde, denoised_x, sigma):
    return torch.from_numpy(denoised_x - x_tilde).div(sigma).div(sigma).numpy()


# 2.6
def score(x_tilde, denoised_x, sigma):
    eps = (x_tilde - denoised_x) / sigma
    return [list(-row / sigma) for row in eps]
