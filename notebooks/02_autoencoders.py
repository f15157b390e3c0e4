# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2 · Autoencoders
#
# An autoencoder squeezes data through a narrow passage and tries to rebuild it on the other side. What survives the
# passage is a *code*: a short list of numbers that stands for an image. This chapter builds one, holds it against the
# exact answer where there is one, uses its codes, and then shows why it cannot generate.
#
# **You will be able to**
#
# - write an autoencoder's loss and one training step by hand,
# - say what the best linear autoencoder is, and check that yours has found it,
# - explain what a denoising autoencoder learns, and measure it against the exact score,
# - choose the size of a bottleneck by held-out error instead of by a rule of thumb,
# - use reconstruction error as an anomaly score, and say when it is wrong,
# - show by measurement that decoding random codes is not sampling, and repair it.
#
# **It builds on** basic PyTorch, the normal distribution, and eigenvectors.
#
# **Time**: about 40 seconds in the quick profile and 3 minutes in the full profile, both measured on two CPU cores.
#
# [Open this chapter in Colab](https://colab.research.google.com/github/example-org/deep-generative-modelling/blob/main/notebooks/02_autoencoders.ipynb)

# %%
try:
    import google.colab  # noqa: F401

    # %pip install --quiet "course_lib @ git+https://github.com/example-org/deep-generative-modelling"
except ImportError:
    pass  # not on Colab: the library is installed already

# %%
import numpy as np
import torch
from scipy.linalg import subspace_angles
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture as DensityOfCodes
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    NearestNeighbors,
)
from torch import nn

from course_lib import data, notebook, plot, probability
from course_lib.data import Batches, Draws
from course_lib.evaluation import c2st
from course_lib.models.autoencoder import (
    Autoencoder,
    DenoisingAutoencoder,
    linear_autoencoder,
)
from course_lib.nn import MLP, dense_networks
from course_lib.notebook import check
from course_lib.train import fit, minimize
from course_lib.widgets import Choice, Explorer, Question, Quiz

run = notebook.setup("autoencoders")

# %% [markdown]
# ## The idea
#
# A photograph of a handwritten digit holds hundreds of grey values, but nobody needs hundreds of numbers to describe it.
# "A seven, slanted, with a bar" comes close. An autoencoder looks for such a description by itself, without being told
# what a seven is.
#
# It has two parts. The **encoder** $f$ maps an image $x$ with $D$ numbers to a **code** $z$ with $K$ numbers. The
# **decoder** $g$ maps the code back to an image $\hat x$, the **reconstruction**. Both are neural networks, and they
# are trained together so that $\hat x$ comes close to $x$.

# %% tags=["hide-input"]
notebook.drawing(
    "autoencoder",
    alt="Data x with D numbers goes into an encoder f, which narrows to a code z "
    "with K numbers, the bottleneck; a decoder g widens it again to a "
    "reconstruction x-hat with D numbers. The loss compares x-hat with x.",
)

# %% [markdown]
# The narrow passage in the middle is the **bottleneck**. It is the whole point. If $K$ were as large as $D$, both
# networks could pass everything through unchanged, reach zero error, and learn nothing. With $K$ much smaller than $D$,
# the networks must find out which few numbers describe the data best.

# %% [markdown]
# ## The mathematics
#
# **The loss.** The error of one example is the squared distance between it and its reconstruction, summed over the $D$
# dimensions. The loss is its mean over the data:
#
# $$L(f, g) = \mathbb E_{x \sim p} \, \big\| g(f(x)) - x \big\|^2 . \tag{2.1}$$
#
# **The linear case has an exact answer.** Let $f$ and $g$ be linear, let $x$ have mean zero and covariance
# $C = \mathbb E[x x^\top]$. Then $g(f(x)) = P x$, where the matrix $P$ has rank at most $K$. Write the loss as a trace:
#
# $$L = \mathbb E \, \| x - P x \|^2 = \operatorname{tr} \big[ (I - P) \, C \, (I - P)^\top \big] . \tag{2.2}$$
#
# Which $P$ of rank $K$ makes this smallest? For a fixed $K$-dimensional range, the closest point to $x$ in that range is
# the orthogonal projection, so $P$ must be one. For an orthogonal projection $P^\top = P = P^2$, and (2.2) becomes
#
# $$L = \operatorname{tr}(C) - \operatorname{tr}(P C) . \tag{2.3}$$
#
# Now we want the $K$-dimensional subspace that holds the most variance $\operatorname{tr}(PC)$. It is spanned by the $K$
# eigenvectors of $C$ with the largest eigenvalues $\lambda_1 \ge \dots \ge \lambda_K$. The best possible loss is what is
# left over:
#
# $$L^* = \sum_{i = K + 1}^{D} \lambda_i . \tag{2.4}$$
#
# This is **principal component analysis** (PCA). Two remarks on what the result does *not* say.
#
# - It fixes the subspace, not the axes in it. For any invertible $K \times K$ matrix $A$, the encoder $A f$ with the decoder
#   $g A^{-1}$ has the same $P$ and the same loss. The codes of a linear autoencoder need be neither orthogonal nor sorted.
# - It says nothing about how hard $L^*$ is to reach. {cite:t}`baldi1989neural` proved that every local minimum of (2.2) is
#   a global one; all other critical points are saddles. Gradient descent may slow down near a saddle, but has no bad valley
#   to end in.
#
# **Nonlinear networks** have no such formula. They can bend the $K$-dimensional surface onto which data is projected, so
# their error can be lower than PCA's. By how much is a question for measurement.

# %% [markdown]
# ## By hand
#
# Here is everything that matters, in ten lines: two layers, the loss (2.1), and one step of gradient descent.

# %%
D, K = 20, 3
torch.manual_seed(run.seed)
encoder, decoder = nn.Linear(D, K), nn.Linear(K, D)
x = torch.randn(128, D)


def loss_by_hand(x):
    z = encoder(x)  # (B, K): compress
    x_hat = decoder(z)  # (B, D): rebuild
    squared_error = (x_hat - x) ** 2  # (B, D)
    return squared_error.sum(dim=1).mean()  # sum over dimensions, mean over the batch


loss = loss_by_hand(x)
loss.backward()
with torch.no_grad():
    for parameter in [*encoder.parameters(), *decoder.parameters()]:
        parameter -= 0.01 * parameter.grad

# %% [markdown]
# The library's `Autoencoder` computes the same loss, and its `minimize` makes the same step. We check both, starting from
# the same weights.

# %%
torch.manual_seed(run.seed)
model = Autoencoder(nn.Linear(D, K), nn.Linear(K, D))
torch.testing.assert_close(model.loss(x), loss)

fit(
    minimize(model.loss, torch.optim.SGD(model.parameters(), lr=0.01)),
    Batches(x, batch_size=len(x)),
    steps=1,
)
largest_difference = (model.decoder.weight - decoder.weight).abs().max().item()

# %% tags=["nbval-check-output"]
check(
    "one step by hand and one step of the library give the same weights",
    largest_difference < 1e-6,
)

# %% [markdown]
# > **Common mistake.** `nn.MSELoss()` averages over the batch *and* over the dimensions. That is (2.1) divided by $D$.
# > For an autoencoder alone it only rescales the learning rate. As soon as a second term joins the loss, as in the next
# > chapter, it silently changes the weight between the two by a factor of $D$. We sum over the dimensions, always.
#
# From here on we use the library. This is the code that runs:

# %%
notebook.show_source(Autoencoder)

# %% [markdown]
# ## An oracle: the linear autoencoder
#
# To trust a method, try it where the answer is known. We draw data from a 20-dimensional normal distribution whose
# covariance we chose ourselves: three directions with a large variance, seventeen with a small one, all rotated at
# random. By (2.4) the best loss with $K = 3$ is the sum of the seventeen small eigenvalues.

# %%
generator = torch.Generator().manual_seed(run.seed)
eigenvectors = torch.linalg.qr(
    torch.randn(D, D, generator=generator)
).Q  # (D, D), one in each column
eigenvalues = torch.cat(
    [torch.tensor([5.0, 3.0, 2.0]), 0.5 * 0.9 ** torch.arange(D - 3)]
)
covariance = eigenvectors @ torch.diag(eigenvalues) @ eigenvectors.T
truth = probability.gaussian(torch.randn(D, generator=generator), covariance)

best_loss = eigenvalues[K:].sum()
print(f"best possible loss: {best_loss:.4f}")

# %% [markdown]
# The data has a mean other than zero, so both layers carry a bias. Because everything is linear and normal, the trained
# model's loss on the *whole population* can be computed too, without drawing a single test point. With
# $g(f(x)) = P x + b$ and mean $m$,
#
# $$L = \operatorname{tr} \big[ (I - P) \, C \, (I - P)^\top \big] + \big\| (P - I) \, m + b \big\|^2 . \tag{2.5}$$

# %%


def population_loss(model):
    projection = model.decoder.weight @ model.encoder.weight  # P, (D, D)
    bias = model.decoder(model.encoder.bias)  # b, (D,)
    residual = torch.eye(D) - projection
    return (residual @ truth.covariance @ residual.T).trace() + (
        bias - residual @ truth.mean
    ).square().sum()


def angle_to_principal_subspace(model):
    """The largest angle between the decoder's range and the top eigenvectors."""
    return np.degrees(
        subspace_angles(
            model.decoder.weight.detach().numpy(), eigenvectors[:, :K].numpy()
        ).max()
    )


# %% [markdown]
# Five autoencoders, five seeds, a fresh batch from the population at every step:

# %%
steps = 2000
linear_models, excess_curves = [], []
for seed in range(5):
    torch.manual_seed(seed)
    model = linear_autoencoder(dim=D, latent=K)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=steps
    )
    curve = []

    def record(k, history, model=model, curve=curve):
        if k % 20 == 0:
            curve.append(population_loss(model).item() / best_loss.item() - 1)

    batches = Draws(truth.sample, batch_size=256, seed=seed)
    fit(
        minimize(model.loss, optimizer, schedule=schedule),
        batches,
        steps,
        hooks=[record],
    )
    linear_models.append(model)
    excess_curves.append(curve)

excess = [
    population_loss(model).item() / best_loss.item() - 1 for model in linear_models
]
angles = [angle_to_principal_subspace(model) for model in linear_models]

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=3.2)
plot.curves(
    ax,
    {
        f"seed {seed}": (range(0, steps, 20), 100 * np.array(curve))
        for seed, curve in enumerate(excess_curves)
    },
    xlabel="training step",
    ylabel="loss above PCA's, %",
    title="A linear autoencoder finds the principal subspace",
)
ax.set_yscale("log")
ax.axhline(1, color="black", linewidth=1, linestyle="--")
ax.annotate("1 %", (steps, 1), ha="right", va="bottom")
notebook.show(
    figure,
    alt="Loss above the best possible one, in percent on a log scale, against "
    "training step for five seeds. All five fall together and end far below the "
    "dashed line at one percent.",
)

# %% tags=["nbval-check-output"]
check(
    "on five of five seeds the linear autoencoder's loss is within 1 % of PCA's",
    max(excess) < 0.01,
    f"at most {100 * max(excess):.3f} % above",
)
check(
    "on five of five seeds its subspace is within 1 degree of PCA's",
    max(angles) < 1,
    f"at most {max(angles):.2f} degrees",
)

# %% [markdown]
# The first remark above was that only the subspace is determined. So the decoder's columns should span the same space as the
# eigenvectors without *being* eigenvectors. Here is the largest cosine between any column and any of the three, per seed:

# %%


def best_alignment(model):
    columns = nn.functional.normalize(model.decoder.weight.detach(), dim=0)  # (D, K)
    return (eigenvectors[:, :K].T @ columns).abs().amax(dim=0).min().item()


alignments = [best_alignment(model) for model in linear_models]

# %% tags=["nbval-check-output"]
check(
    "on five of five seeds a column of the decoder is far from every eigenvector",
    max(alignments) < 0.95,
    f"cosine to the nearest eigenvector {', '.join(f'{a:.2f}' for a in alignments)}",
)

# %% [markdown]
# ## A second oracle: denoising points uphill
#
# A bottleneck is one way to stop an autoencoder from copying its input. Another is to spoil the input. A **denoising
# autoencoder** {cite}`vincent2008extracting` receives $\tilde x = x + \sigma \epsilon$ with standard normal noise $\epsilon$
# and is asked for the clean $x$:
#
# $$L = \mathbb E_{x, \epsilon} \, \big\| r(x + \sigma \epsilon) - x \big\|^2 . \tag{2.6}$$
#
# What is the best possible $r$? For each noisy $\tilde x$ we choose one answer $r(\tilde x)$ to be closest, in mean square, to
# all the clean $x$ it may have come from. The best single answer under squared error is their mean:
#
# $$r^*(\tilde x) = \mathbb E[x \mid \tilde x] . \tag{2.7}$$
#
# This posterior mean has a remarkable form. Let $p_\sigma$ be the density of the noisy data,
# $p_\sigma(\tilde x) = \int p(x) \, \mathcal N(\tilde x; x, \sigma^2 I) \, dx$. Differentiate under the integral, using
# $\nabla_{\tilde x} \mathcal N(\tilde x; x, \sigma^2 I) = \frac{x - \tilde x}{\sigma^2} \, \mathcal N(\tilde x; x, \sigma^2 I)$:
#
# $$\nabla p_\sigma(\tilde x) = \int p(x) \, \frac{x - \tilde x}{\sigma^2} \, \mathcal N(\tilde x; x, \sigma^2 I) \, dx
# = p_\sigma(\tilde x) \, \frac{\mathbb E[x \mid \tilde x] - \tilde x}{\sigma^2} . \tag{2.8}$$
#
# Divide by $p_\sigma(\tilde x)$ and rearrange:
#
# $$\mathbb E[x \mid \tilde x] - \tilde x = \sigma^2 \, \nabla \log p_\sigma(\tilde x) . \tag{2.9}$$
#
# The step from the noisy point to its denoised version is $\sigma^2$ times the gradient of the log-density, which is called the
# **score**. To denoise is to walk uphill in the density. Equation (2.9) is known as Tweedie's formula
# {cite}`efron2011tweedie`; its meaning for autoencoders was worked out by {cite:t}`alain2014regularized`. Keep it in mind:
# the chapter on diffusion models is built on it.
#
# For a mixture of normals, the score and the posterior mean are known in closed form. We train on one and compare.

# %%
mixture = probability.GaussianMixture(
    means=torch.tensor([[-2.0, 0.0], [1.5, 1.5], [1.0, -1.5]]),
    covariances=torch.tensor(
        [
            [[0.6, 0.0], [0.0, 0.1]],
            [[0.3, -0.2], [-0.2, 0.3]],
            [[0.15, 0.1], [0.1, 0.4]],
        ]
    ),
    weights=torch.tensor([0.4, 0.3, 0.3]),
)
sigma = 0.5
noisy = mixture.noised(alpha_t=1.0, sigma_t=sigma)  # the density of the noisy data

# %%


def train_denoiser(seed, steps=1500):
    torch.manual_seed(seed)
    model = DenoisingAutoencoder(
        MLP(2, 64, hidden=[128]), MLP(64, 2, hidden=[128]), sigma=sigma
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=5e-3, total_steps=steps
    )
    fit(
        minimize(model.loss, optimizer, schedule=schedule),
        Draws(mixture.sample, batch_size=512, seed=seed),
        steps,
    )
    return model.requires_grad_(False)


denoisers = [train_denoiser(seed) for seed in range(5)]

# %% [markdown]
# There is no bottleneck here: the code has 64 numbers for 2-dimensional data. The noise alone keeps the model from copying.

# %%
torch.manual_seed(run.seed)
test_points = noisy.sample(20_000)
exact_score = noisy.score(test_points)


def relative_score_error(model):
    """Root mean square error, as a share of the exact score's root mean square."""
    error = (model.score(test_points) - exact_score).square().sum(1).mean()
    return (error / exact_score.square().sum(1).mean()).sqrt().item()


score_errors = [relative_score_error(model) for model in denoisers]

# %% tags=["hide-input"]
extent = (-4.5, 3.5, -3.5, 3.5)
figure, axes = plot.subplots(1, 2, height=3.4)
density = noisy.log_prob(plot.grid_points(extent, n=120)).exp()
arrow_tails = plot.grid_points(extent, n=14)
arrow_tails = arrow_tails[
    noisy.log_prob(arrow_tails) > -7
]  # where there is data to learn from
for ax, title, score in (
    (axes[0], "exact score", noisy.score(arrow_tails)),
    (axes[1], "learned by denoising", denoisers[0].score(arrow_tails)),
):
    plot.contours(ax, density, extent=extent, title=title)
    plot.arrows(ax, arrow_tails, sigma**2 * score)
notebook.show(
    figure,
    alt="Two panels with the density of noisy data from three clusters and arrows "
    "at grid points. Left, the exact score; right, the step a trained denoiser "
    "takes. In both, arrows point towards the clusters, and they look alike.",
)

# %% tags=["nbval-check-output"]
check(
    "on five of five seeds the denoiser's score is within 20 % of the exact score",
    max(score_errors) < 0.20,
    f"relative error {min(score_errors):.3f} to {max(score_errors):.3f}",
)
posterior_mean = mixture.posterior_mean(test_points, alpha_t=1.0, sigma_t=sigma)
gap = (posterior_mean - test_points - sigma**2 * exact_score).abs().max().item()
check(
    "Tweedie's formula (2.9) holds for the exact mixture",
    gap < 1e-4,
    f"largest gap {gap:.0e}",
)

# %% [markdown]
# ## Images
#
# Now real data. The full profile uses MNIST {cite}`lecun1998gradient`, 28 x 28 pixels; the quick profile uses the digits
# that come with scikit-learn, 8 x 8 pixels. All figures on this page are from the full profile.

# %%
name = run.pick(quick="digits", full="mnist")
x_train, y_train = data.images(name)
x_test, y_test = data.images(name, split="test")
x_train, x_test = x_train.to(run.device), x_test.to(run.device)
flat_train, flat_test = x_train.flatten(1).cpu(), x_test.flatten(1).cpu()  # (N, D)

shape, D = tuple(x_train.shape[1:]), flat_train.shape[1]
hidden = run.pick(quick=(256, 128), full=(512, 256))
steps = run.pick(quick=800, full=1500)
latent_sizes = run.pick(quick=[1, 2, 4, 8, 16, 32], full=[2, 4, 8, 16, 32, 64])
latent = run.pick(quick=8, full=16)  # the size used wherever one is enough
print(f"{name}: {len(x_train):,} training, {len(x_test):,} test images, D = {D}")

# %%


def train_autoencoder(x, latent, seed):
    torch.manual_seed(seed)
    networks = dense_networks(shape, latent, hidden=hidden)
    model = Autoencoder(*networks).to(run.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    batches = Batches(x, batch_size=128, seed=seed)
    fit(minimize(model.loss, optimizer, schedule=schedule), batches, steps)
    return model.eval().requires_grad_(False)


# %% [markdown]
# ### How small may the code be?
#
# We train one autoencoder for each code size and compare its error on *held-out* images with PCA's at the same size. Two
# horizontal lines give the numbers a meaning. The **mean image** is the best reconstruction without any code. The **lookup**
# answers each test image with the nearest training image: a memory of all training images, and nothing else.

# %%
models, ae_errors = {}, {}
for size in latent_sizes:
    models[size] = train_autoencoder(x_train, size, run.seed)
    ae_errors[size] = models[size].reconstruction_error(x_test).mean().item()

# %% [markdown]
# PCA's components are orthogonal, so one decomposition gives its error at every size: it is what the later components hold.

# %%
pca = PCA(random_state=run.seed).fit(flat_train)  # all D components at once
squared_scores = np.square(pca.transform(flat_test)).mean(axis=0)  # (D,)
pca_error = squared_scores.sum() - np.cumsum(squared_scores)  # after 1, 2, ..., D
pca_errors = {size: pca_error[size - 1] for size in latent_sizes}

# %%
memory = NearestNeighbors(n_neighbors=1).fit(flat_train)


def squared_distance_to_training_data(x):
    distance, _ = memory.kneighbors(x.flatten(1).cpu())
    return distance[:, 0] ** 2  # (B,)


mean_image_error = (flat_test - flat_train.mean(0)).square().sum(1).mean().item()
lookup_error = squared_distance_to_training_data(x_test[:1000]).mean()

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=3.4)
plot.curves(
    ax,
    {
        "PCA": (latent_sizes, list(pca_errors.values())),
        "autoencoder": (latent_sizes, list(ae_errors.values())),
    },
    xlabel="code size K",
    ylabel="held-out squared error per image",
    title="Held-out error against the size of the bottleneck",
)
ax.set_xscale("log", base=2)
ax.set_xticks(latent_sizes, latent_sizes)
ax.set_ylim(0, 1.1 * mean_image_error)
for level, label in (
    (mean_image_error, "mean image"),
    (lookup_error, "nearest training image"),
):
    ax.axhline(level, color="grey", linewidth=1, linestyle="--")
    ax.annotate(label, (latent_sizes[-1], level), ha="right", va="bottom")
notebook.show(
    figure,
    alt="Held-out squared error against code size for PCA and for the autoencoder. "
    "The autoencoder is far lower at small codes; at the largest code PCA has "
    "caught up. Dashed lines mark the mean image and a lookup of the nearest "
    "training image.",
)

# %% [markdown]
# | where | what the figure shows |
# | --- | --- |
# | small codes | The curved surface pays. At the same size the autoencoder leaves far less error than PCA. |
# | large codes | PCA catches up: its loss goes to zero as $K \to D$, while a network trained for a fixed budget has an error of its own. |
# | the lookup | With a moderate code the autoencoder beats a memory of the whole training set. It has not memorized; it has learned how digits vary. |

# %% tags=["nbval-check-output"]
small = latent_sizes[:4]
ratios = [ae_errors[size] / pca_errors[size] for size in small]
check(
    "at small codes the autoencoder's held-out error is at most 0.85 of PCA's",
    max(ratios) <= 0.85,
    f"ratio {', '.join(f'{r:.2f}' for r in ratios)} at K = {', '.join(map(str, small))}",
)
largest = latent_sizes[-1]
ratio_at_largest = ae_errors[largest] / pca_errors[largest]
check(
    "at the largest code PCA has caught up: the ratio is at least 1.5 times higher",
    ratio_at_largest > 1.5 * min(ratios),
    f"ratio {ratio_at_largest:.2f} at K = {largest}",
)
check(
    "with a moderate code the autoencoder beats a lookup in the training set",
    ae_errors[latent] < lookup_error,
    f"autoencoder {ae_errors[latent]:.2f} at K = {latent}, lookup {lookup_error:.2f}",
)

# %% [markdown]
# A common rule of thumb sets $K$ to the number of principal components that keep 95 % of the variance. It answers a question
# about *linear* codes. We ask how many numbers the autoencoder needs to reach the same held-out error.

# %%
explained = np.cumsum(pca.explained_variance_ratio_)
rule_of_thumb = int(np.searchsorted(explained, 0.95)) + 1
pca_components = int(np.argmax(pca_error <= ae_errors[latent])) + 1
print(f"95 % of the variance: K = {rule_of_thumb}")
print(f"PCA needs {pca_components} numbers where the autoencoder needs {latent}")

# %% tags=["nbval-check-output"]
check(
    "PCA needs at least 1.4 times as many numbers for the same held-out error",
    pca_components >= 1.4 * latent,
    f"{pca_components} against {latent}",
)

# %% [markdown]
# ### Reconstructions
#
# Below, the slider sets the size of the code. Watch what survives a code of two numbers: the class often, the
# handwriting rarely.

# %%
model = models[latent]
first_of_each = [int((y_test == digit).nonzero()[0]) for digit in range(10)]
shown = x_test[first_of_each]  # (10, C, H, W)


def draw_reconstructions(size):
    figure, (ax,) = plot.subplots(height=1.9)
    rows = {"test image": shown, "rebuilt": models[size](shown)}
    title = f"K = {size}: mean squared error {ae_errors[size]:.2f} per image"
    plot.image_rows(ax, rows, title=title)
    return figure


Explorer(
    draw_reconstructions,
    latent_sizes,
    label="code size K",
    alt="Ten test digits and, below them, what a code of {} numbers keeps of them.",
    start=1,
)

# %% [markdown]
# ### What the codes are good for
#
# The networks never saw a label. Still, digits that look alike should have codes that lie close together. We measure this:
# for each test image, find the training image with the nearest *code* and ask whether it shows the same digit.

# %%


def neighbour_accuracy(train_features, test_features):
    classifier = KNeighborsClassifier(n_neighbors=1).fit(train_features, y_train)
    return classifier.score(test_features, y_test[: len(test_features)])


queries = 2000
pca_train, pca_test = pca.transform(flat_train), pca.transform(flat_test)
z_train, z_test = model.encode(x_train).cpu(), model.encode(x_test).cpu()
accuracies = {
    "pixels": neighbour_accuracy(flat_train, flat_test[:queries]),
    "PCA": neighbour_accuracy(pca_train[:, :latent], pca_test[:queries, :latent]),
    "codes": neighbour_accuracy(z_train, z_test[:queries]),
}
for features, accuracy in accuracies.items():
    print(f"{features:6} neighbour shows the same digit: {100 * accuracy:.1f} %")

# %% tags=["nbval-check-output"]
check(
    "neighbours by code show the same digit within 5 points of neighbours by pixels",
    accuracies["codes"] > accuracies["pixels"] - 0.05,
    f"codes {100 * accuracies['codes']:.1f} %, pixels {100 * accuracies['pixels']:.1f} %",
)

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=3.4)
index = NearestNeighbors(n_neighbors=5).fit(z_train)
nearest = index.kneighbors(z_test[first_of_each], return_distance=False)  # (10, 5)
rows = {"test image": shown}
rows |= {f"neighbour {k + 1}": x_train[nearest[:, k]] for k in range(5)}
plot.image_rows(
    ax, rows, title="Test images and the training images with the nearest codes"
)
notebook.show(
    figure,
    alt="Ten test digits, and below each the five training digits whose codes are "
    "nearest. Nearly all show the same digit in a similar handwriting.",
)

# %% [markdown]
# ### Between two images
#
# Take two test images of different digits and go half the way between them: once in pixels, once in codes. The average of two
# images is two ghosts on top of each other. The decoded average of two codes is one shape, often blurred.
#
# To measure how far either is from a digit, we take the squared distance to the nearest training image. The floor is what a
# real test image scores.

# %%
generator = torch.Generator().manual_seed(run.seed)
first, second = torch.randint(len(x_test), (2, 1000), generator=generator)
different = y_test[first] != y_test[second]
a, b = x_test[first[different]], x_test[second[different]]

half_way = {
    "in pixels": (a + b) / 2,
    "in codes": model.decode((model.encode(a) + model.encode(b)) / 2),
    "real test images": a,
}
distances = {
    how: squared_distance_to_training_data(x).mean() for how, x in half_way.items()
}
for how, distance in distances.items():
    print(f"{how:16} squared distance to the nearest training image: {distance:.2f}")

# %% tags=["hide-input"]
start, end = shown[[2]], shown[[7]]
weights = torch.linspace(0, 1, 10, device=run.device)[:, None]  # (10, 1)
in_pixels = start.flatten(1).lerp(end.flatten(1), weights).reshape(-1, *shape)
in_codes = model.decode(model.encode(start).lerp(model.encode(end), weights))
figure, (ax,) = plot.subplots(height=1.9)
plot.image_rows(
    ax,
    {"in pixels": in_pixels, "in codes": in_codes},
    title="From a two to a seven",
)
notebook.show(
    figure,
    alt="Two rows of ten images leading from a two to a seven. In pixels the two "
    "fades out while the seven fades in; in codes one digit changes its shape into "
    "the other.",
)

# %% tags=["nbval-check-output"]
check(
    "half-way in codes is nearer to real images: at most 0.9 of the distance",
    distances["in codes"] < 0.9 * distances["in pixels"],
    f"{distances['in codes']:.2f} against {distances['in pixels']:.2f}",
)

# %% [markdown]
# Look at the middle of the lower row again: what the decoder makes of some codes is a smudge. The straight line between two
# codes leads away from the codes that the decoder was trained on. We measure how far, in units of the distance from the code
# of a test image to the nearest code of a training image.

# %%
code_memory = NearestNeighbors(n_neighbors=1).fit(z_train)
codes_half_way = ((model.encode(a) + model.encode(b)) / 2).cpu()
away_half_way = code_memory.kneighbors(codes_half_way)[0].mean()
away_test = code_memory.kneighbors(model.encode(a).cpu())[0].mean()

# %% tags=["nbval-check-output"]
check(
    "codes half-way are at least 1.2 times as far from any training code as test codes",
    away_half_way > 1.2 * away_test,
    f"{away_half_way / away_test:.2f} times",
)

# %% [markdown]
# There are holes between the codes. We come back to them below.

# %% [markdown]
# ## What goes wrong
#
# ### Reconstruction error is not strangeness
#
# An autoencoder rebuilds what it was trained on better than what it never saw. So the reconstruction error is often used as an
# **anomaly score**. We test the idea: hide one digit during training, then ask whether its test images get higher errors than
# those of the digits it knows. The figure of merit is the **AUROC**, the probability that a random hidden image scores higher than a
# random known one. A coin reaches 0.5.

# %%
detectors = {
    digit: train_autoencoder(x_train[y_train != digit], latent, run.seed)
    for digit in (0, 1)
}


def auroc(scores, digit):
    return roc_auc_score(y_test == digit, scores)


error_auroc = {}
for digit, detector in detectors.items():
    error_auroc[digit] = auroc(detector.reconstruction_error(x_test).cpu(), digit)
    print(f"digit {digit} hidden: AUROC of the error {error_auroc[digit]:.2f}")

# %% [markdown]
# Zeros are found. Ones are not found as well. On MNIST the score is even worse than a coin: the detector finds an image of a
# one, which it has never seen, *more* ordinary than the digits it was trained on.
#
# The reason lies in the ink. On MNIST a one has about half the ink of the other digits, and an image with little ink leaves
# little to get wrong: even a bad reconstruction of it has a small error. On the 8 x 8 digits of the quick profile all classes
# have about the same ink, and the effect is gone. So the error measures how hard an image is to draw, besides how strange it
# is.

# %%
ink = flat_test.square().sum(1)
ink_of_ones = (ink[y_test == 1].mean() / ink[y_test != 1].mean()).item()
correlation = spearmanr(ink, model.reconstruction_error(x_test).cpu()).statistic
print(f"ink of a one, as a share of the other digits': {ink_of_ones:.2f}")
print(f"rank correlation of ink and reconstruction error: {correlation:.2f}")

# %% tags=["nbval-check-output"]
check(
    "where ones have little ink, their reconstruction error ranks them below a coin",
    ink_of_ones > 0.8 or (error_auroc[1] < 0.5 and correlation > 0.3),
    f"ink {ink_of_ones:.2f}, AUROC {error_auroc[1]:.2f}",
)

# %% [markdown]
# If ink is in the way, compare like with like: divide the error by what the detector makes of *known* images with the same ink.
#
# $$\text{score}(x) = \frac{\| g(f(x)) - x \|^2}{\text{mean error of training images with about as much ink as } x} . \tag{2.10}$$
#
# Beside it stands the distance to the nearest known image, in pixels: a score without any network.

# %%


def same_ink_score(detector, known):
    ink_known = known.flatten(1).square().sum(1, keepdim=True).cpu()  # (N, 1)
    error_known = detector.reconstruction_error(known).cpu()
    neighbours = KNeighborsRegressor(len(known) // 50).fit(ink_known, error_known)
    usual_error = neighbours.predict(ink[:, None])
    return detector.reconstruction_error(x_test).cpu().numpy() / usual_error


same_ink_auroc = {}
for digit, detector in detectors.items():
    known = x_train[y_train != digit]
    same_ink_auroc[digit] = auroc(same_ink_score(detector, known), digit)
    nearest_known = NearestNeighbors(n_neighbors=1).fit(known.flatten(1).cpu()[:10_000])
    by_distance = auroc(nearest_known.kneighbors(flat_test)[0][:, 0], digit)
    print(
        f"digit {digit} hidden: AUROC {error_auroc[digit]:.2f} by the error, "
        f"{same_ink_auroc[digit]:.2f} against the same ink, {by_distance:.2f} by pixels"
    )

# %% tags=["nbval-check-output"]
check(
    "the error finds a hidden zero better than a hidden one",
    error_auroc[0] > error_auroc[1] + 0.04,
    f"AUROC {error_auroc[0]:.2f} and {error_auroc[1]:.2f}",
)
check(
    "where ones have little ink, comparing with the same ink finds them better",
    ink_of_ones > 0.8 or same_ink_auroc[1] > error_auroc[1] + 0.04,
    f"AUROC {error_auroc[1]:.2f} before, {same_ink_auroc[1]:.2f} after",
)

# %% [markdown]
# On MNIST the comparison mends a part of the failure, not the whole: the ones are still close to a coin, and zeros are found a
# little less well. The last column says why. Even the nearest known image, pixel by pixel, hardly tells a hidden one from a known
# digit: a stroke is near to many digits that contain one. A good reconstruction error is a statement about a reconstruction. Whether
# an image is *improbable* is another question, and likelihoods have a weakness for simple images of their own
# {cite}`nalisnick2019deep`; the chapters on flows and on evaluation return to it.
#
# ### An autoencoder is no generator
#
# The decoder turns codes into images. So why not feed it random codes and call it a generative model? Because nothing in the loss (2.1) says *which*
# codes the decoder will be asked about. It was trained on the codes of training images, and these may lie anywhere.
#
# We draw codes in three ways: from a standard normal; from one normal with the mean and covariance of the training codes; and from a
# mixture of normals fitted to the training codes. Each time we decode and ask a classifier to tell the result from real test images. It looks at the five
# nearest neighbours of an image. If its cross-validated accuracy is 0.5, it cannot tell; if it is 1.0, it always can. This is a
# **classifier two-sample test** {cite}`lopezpaz2017revisiting`.

# %%
generator = torch.Generator().manual_seed(run.seed)
half = min(len(x_test) // 2, 2000)
shuffled = x_test[torch.randperm(len(x_test), generator=generator)]
real, other_real = shuffled[:half], shuffled[half : 2 * half]


def density_of_codes(z):
    """A mixture of ten normals with full covariances, fitted to codes (N, K)."""
    density = DensityOfCodes(10, reg_covar=1e-3, random_state=run.seed)
    return density.fit(z[:20_000].double().cpu())


z = model.encode(x_train)
standard = torch.randn(half, latent, generator=generator).to(run.device)
one_normal = z.mean(0) + standard @ torch.linalg.cholesky(torch.cov(z.T)).T
mixture_codes = torch.tensor(density_of_codes(z).sample(half)[0]).to(z)  # (half, K)
samples = {
    "standard normal codes": model.decode(standard),
    "one fitted normal": model.decode(one_normal),
    "fitted mixture": model.decode(mixture_codes),
}


def accuracy_against_real(images):
    return c2st(images.flatten(1), real.flatten(1), neighbours=5).accuracy


two_sample = {how: accuracy_against_real(x) for how, x in samples.items()}
two_sample["real images (the floor)"] = floor = accuracy_against_real(other_real)
for how, accuracy in two_sample.items():
    print(f"{how:24} two-sample accuracy {accuracy:.2f}")

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=3.0)
order = torch.randperm(half, generator=generator)[
    :12
]  # a mixture's samples come sorted by component
plot.image_rows(
    ax,
    {
        "standard normal": samples["standard normal codes"][:12],
        "one normal": samples["one fitted normal"][:12],
        "mixture": samples["fitted mixture"][order],
        "real": real[:12],
    },
    title="Decoded codes, drawn in three ways",
)
notebook.show(
    figure,
    alt="Four rows of twelve images. Decoded standard normal codes are shapeless; "
    "codes from one fitted normal give some digits and some blots; codes from a "
    "fitted mixture give mostly digits; the last row shows real digits.",
)

# %% tags=["nbval-check-output"]
check(
    "standard normal codes are told from real images: accuracy above 0.8",
    two_sample["standard normal codes"] > 0.8,
    f"{two_sample['standard normal codes']:.2f}, real against real {floor:.2f}",
)
check(
    "codes from a fitted mixture are harder to tell: accuracy lower by at least 0.15",
    two_sample["fitted mixture"] < two_sample["standard normal codes"] - 0.15,
    f"{two_sample['fitted mixture']:.2f}",
)

# %% [markdown]
# Fitting a density to the codes afterwards is a real cure, and it has been studied as one {cite}`ghosh2020from`. But it is a second model for what
# the first one left out. The next chapter builds the distribution of the codes into the loss itself. That is the variational autoencoder.

# %% [markdown]
# ## Quiz

# %% tags=["remove-input"] jupyter={"source_hidden": true}
# @title Quiz {display-mode: "form"}
Quiz(
    [
        Question(
            "You train a linear autoencoder with K = 3 until its loss equals PCA's. What do its three codes have to be?",
            [
                Choice(
                    "The three principal components, in order.",
                    "Only the subspace is determined. Any invertible mixture of the codes has the same loss.",
                ),
                Choice(
                    "Some three coordinates in the space that the three principal components span.",
                    "The encoder may rotate, stretch and mix within that space, if the decoder undoes it.",
                    right=True,
                ),
                Choice(
                    "Three uncorrelated numbers.",
                    "PCA's scores are uncorrelated; the loss of an autoencoder does not ask for it.",
                ),
            ],
        ),
        Question(
            "A denoising autoencoder is trained perfectly with noise of standard deviation σ. At a point x̃ it returns x̃ itself. What "
            "does that tell you?",
            [
                Choice(
                    "The training data contains x̃.",
                    "The model answers with a mean over all clean points that x̃ may have come from, not with a memory.",
                ),
                Choice(
                    "The model has learned the identity.",
                    "It may do so at one point without doing so elsewhere.",
                ),
                Choice(
                    "The score of the noisy density is zero there, for example at a peak or a saddle.",
                    "By (2.9) the step r(x̃) − x̃ is σ² times the score.",
                    right=True,
                ),
            ],
        ),
        Question(
            "Your colleague doubles K and reports a lower training error. What do you ask for first?",
            [
                Choice(
                    "The held-out error, next to PCA's at the same K.",
                    "More codes can only help on the training set; held-out error says whether they help.",
                    right=True,
                ),
                Choice(
                    "More epochs.",
                    "The training error already fell; the question is whether it means anything.",
                ),
                Choice(
                    "A standard normal sample, decoded.",
                    "An autoencoder makes no promise about those codes, whatever its K.",
                ),
            ],
        ),
        Question(
            "An autoencoder trained on photographs of cats gives a uniformly grey image a very low reconstruction error. Why?",
            [
                Choice(
                    "Grey images are common among photographs of cats.",
                    "They are not; the error is low for another reason.",
                ),
                Choice(
                    "Simple images are easy to rebuild, whether or not they are probable.",
                    "The error measures how hard an image is to draw at least as much as how strange it is.",
                    right=True,
                ),
                Choice(
                    "The network has collapsed.",
                    "Then the errors of real images would be high, too.",
                ),
            ],
        ),
    ]
)

# %% [markdown]
# ## Exercises
#
# Two to try on this page, each with a check of its own.
#
# 1. **The other failure of a bottleneck.** Set the linear autoencoder's $K$ to 2 instead of 3. Predict its loss from
#    (2.4) before you train it; then let `population_loss` decide.
# 2. **Less noise.** Train the denoiser with $\sigma = 0.1$. Is its relative score error larger or smaller? Explain the
#    answer with (2.9): what happens to an error in $r$ when it is divided by $\sigma^2$?
#
# Six more, from the loss to the exact denoiser, tell you at once whether you are right and earn points:
# [the exercises of this chapter](exercises/02_autoencoders.ipynb).

# %% [markdown]
# ## Summary
#
# - An autoencoder minimizes the squared reconstruction error, summed over dimensions and averaged over examples (2.1).
# - The best linear autoencoder is PCA: its loss is the sum of the discarded eigenvalues (2.4), and it determines a subspace, not axes.
# - A denoising autoencoder learns the posterior mean, and with it the score of the noisy density (2.9).
# - Nonlinear codes beat linear ones where codes are small. Held-out error, not a rule of thumb, says how small they may be.
# - Reconstruction error confuses *simple* with *normal*. Comparing like with like mends a part of it.
# - Nothing in the loss says how codes are distributed, so decoding random codes is not sampling.
#
# ## Further reading
#
# - {cite:t}`baldi1989neural` on the landscape of linear autoencoders; {cite:t}`hinton2006reducing` for the paper that made deep ones work.
# - {cite:t}`vincent2011connection` on denoising and score matching, which leads to diffusion models.
# - {cite:t}`ghosh2020from` on turning a regularized autoencoder into a generator with a density fitted afterwards.
