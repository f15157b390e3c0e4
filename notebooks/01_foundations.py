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
# # 1 · Foundations
#
# A generative model is a probability distribution that a computer can learn from examples and draw new examples from. This
# chapter is about what that sentence hides: how to say that a model is close to the data, what can be computed about a model and
# what cannot, in which units a likelihood is given, and why the classical ways to estimate a density stop working on images.
# No neural network is trained here. Every number is measured against an exact one.
#
# **You will be able to**
#
# - say what a generative model answers that a classifier does not,
# - derive maximum likelihood as the minimum of a Kullback-Leibler divergence, and say why entropy is its floor,
# - predict which modes forward KL, reverse KL, JSD and the Wasserstein distance buy when a model is too small,
# - place each family of models by what it can compute, and say why a latent variable makes the likelihood hard,
# - convert nats to bits per dimension, and dequantize integer data before you fit a density,
# - check a change of variables by automatic differentiation and by integration,
# - show by measurement how kernel density estimates and mixtures of normals fail as the dimension grows.
#
# **It builds on** probability, calculus with several variables, and basic PyTorch.
#
# **Time**: about 50 seconds in the quick profile and three minutes in the full profile, both processor time of one core of
# a busy machine.
#
# [Open this chapter in Colab](https://colab.research.google.com/github/example-org/deep-generative-modelling/blob/main/notebooks/01_foundations.ipynb)

# %%
try:
    import google.colab  # noqa: F401

    # %pip install --quiet "course_lib @ git+https://github.com/example-org/deep-generative-modelling"
except ImportError:
    pass  # not on Colab: the library is installed already

# %%
import math

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture as FittedMixture
from sklearn.neighbors import KernelDensity

from course_lib import data, notebook, plot, probability
from course_lib.evaluation import c2st, c2st_network
from course_lib.notebook import check
from course_lib.widgets import Choice, Explorer, Question, Quiz

run = notebook.setup("foundations")

# %% [markdown]
# ## The idea
#
# A **discriminative** model answers a question about an example: which digit is this? It learns $p(y \mid x)$, the
# distribution of a label given an image, and nothing about images as such. Show it television snow and it will still name a digit.
#
# A **generative** model learns how the examples themselves are distributed: $p(x)$, or $p(x, y)$ with labels. That is more work. It
# must know which images exist and how often. In return it answers more questions: it can draw new examples, say how probable a given one is,
# fill in a missing part, and, by Bayes' rule $p(y \mid x) \propto p(x \mid y) \, p(y)$, classify as well. Neither
# kind is better as such. With few labels a generative classifier can come close to its best accuracy first; with many, a discriminative one
# usually ends higher {cite}`ng2001discriminative`.
#
# What generative models are used for, briefly:
#
# - **Augmentation**: more training images for a classifier, for example of rare lesions {cite}`fridadar2018gan`.
# - **Debiasing**: find what is rare in a training set, and sample it more often {cite}`amini2019uncovering`.
# - **Outliers**: mark what a model of healthy tissue cannot explain {cite}`schlegl2017unsupervised`. It can fail badly: see chapter 2.
# - **Synthetic data** in place of private data. Synthetic does not mean private. Models can reproduce training
#   examples {cite}`carlini2023extracting`, and releasing samples often protects outliers no better than older means do
#   {cite}`stadler2022synthetic`.
#
# The families of this course differ in what they let you compute. A model is **explicit** if its density, or a bound on it, can be computed, and
# **implicit** if it can only be sampled {cite}`mohamed2016learning`. Goodfellow's tutorial orders the families in this way
# {cite}`goodfellow2016nips`; here is the tree for those in this book.

# %% tags=["hide-input"]
notebook.drawing(
    "family-tree",
    alt="A tree of model families with three columns: sample, log p of x, code z. Explicit, exactly: kernel density (one step, exact, "
    "no code), mixture of normals (one step, exact, a discrete code: the component), autoregressive (D steps, exact, no code), normalizing "
    "flow (one pass, exact, exact). Explicit, by a bound: VAE (one pass, bound, approximate code), diffusion (many steps, a bound or "
    "an ODE, code by the ODE). Implicit: GAN and WGAN-GP (one pass, none, code by search). Apart: the autoencoder has a code only.",
)

# %% [markdown]
# "Exact" has fine print. A flow's log-density is exact for the flow; whether the flow is the data is another question. The ODE of a diffusion model
# gives an exact density of *that ODE's* samples, up to the error of a numerical solver. And a GAN has a density in principle, when its generator fills the
# space, but no practical way to evaluate it.
#
# **Why exact answers matter here.** A picture of samples cannot show a missing mode, a copied training image, or a wrong
# proportion. So each family in this book first meets a problem whose answer is known, and we report the distance to it. Only then come
# images, where no answer is known, and where we put the value that *real* data scores, the **floor**, beside each figure.

# %% [markdown]
# ## The mathematics
#
# ### Maximum likelihood is the minimum of a divergence
#
# Let $p$ be the distribution of the data and $q_\theta$ that of the model. Given examples $x_1, \dots, x_N$ drawn independently from $p$, **maximum
# likelihood** chooses
#
# $$\hat\theta = \arg\max_\theta \frac1N \sum_{n=1}^N \log q_\theta(x_n) . \tag{1.1}$$
#
# By the law of large numbers the mean tends to $\mathbb E_{x \sim p} \log q_\theta(x)$. Take its negative, the **NLL**, and add and subtract $\log p(x)$:
#
# $$- \mathbb E_p \log q_\theta(x) = \underbrace{\mathbb E_p \log \frac{p(x)}{q_\theta(x)}}_{D_{\mathrm{KL}}(p \, \| \, q_\theta)}
# + \underbrace{\big( - \mathbb E_p \log p(x) \big)}_{H(p)} . \tag{1.2}$$
#
# The second term, the **entropy** of the data, does not depend on the model. So to minimize the NLL is to minimize the **forward KL
# divergence** from data to model. The divergence is never negative: $-\log$ is convex, so Jensen's inequality gives
#
# $$D_{\mathrm{KL}}(p \, \| \, q) = \mathbb E_p \Big[ - \log \frac{q(x)}{p(x)} \Big] \ge - \log \mathbb E_p \frac{q(x)}{p(x)}
# \ge - \log 1 = 0 . \tag{1.3}$$
#
# Two consequences that we use all through the book. The entropy is the floor of the NLL: no model of any size gets below it on held-out
# data, except by luck. And where the entropy is known, **held-out NLL minus entropy is the divergence**, in nats. This is our first oracle.
#
# What does forward KL want? Fit one normal $q = \mathcal N(\mu, \sigma^2)$. Then
#
# $$- \mathbb E_p \log q(x) = \tfrac12 \log 2 \pi \sigma^2 + \frac{\operatorname{Var}_p(x) + (\mathbb E_p x - \mu)^2}{2 \sigma^2} . \tag{1.4}$$
#
# The best $\mu$ is the mean of the data. Setting the derivative in $\sigma^2$ to zero gives the variance of the data. Maximum likelihood
# with a normal matches two moments, whatever shape the data has.
#
# ### Other ways to be close
#
# | name | definition | what it needs |
# | --- | --- | --- |
# | forward KL | $\mathbb E_p [\log p - \log q]$ | samples of $p$, the density $q$ |
# | reverse KL | $\mathbb E_q [\log q - \log p]$ | samples of $q$, *both* densities, $p$ up to a constant |
# | JSD | $\frac12 D_{\mathrm{KL}}(p \,\|\, m) + \frac12 D_{\mathrm{KL}}(q \,\|\, m)$ with $m = \frac12 (p + q)$ | samples of both, and a good discriminator (chapter 5) |
# | $W_1$ | least mean distance that mass must travel to turn $q$ into $p$ | samples of both, and a good critic (chapter 6) |
#
# The KL divergences compare densities *at the same point* and are infinite where one vanishes and the other does not. Forward KL pays without limit where
# there is data and no model; reverse KL where there is model and no data. The **Jensen-Shannon divergence** {cite}`lin1991divergence` is symmetric and at most $\log 2$. The **Wasserstein
# distance** knows how far apart points are, and in one dimension it has a closed form in the distribution functions
# {cite}`villani2009optimal`:
#
# $$W_1(p, q) = \int \big| F_p(x) - F_q(x) \big| \, dx . \tag{1.5}$$
#
# If the model can be equal to the data, all four agree on the best model: $q = p$. They differ when it cannot. It never can.
#
# ### Latent variables, and why the marginal is hard
#
# Many models explain $x$ by something unseen, a **latent variable** $z$: first draw $z \sim p(z)$, then $x \sim p(x \mid z)$. The density of $x$ is
# the **marginal**
#
# $$p(x) = \int p(x \mid z) \, p(z) \, dz . \tag{1.6}$$
#
# It is often said that this cannot be computed because $z$ is continuous. That is not the reason. Take a standard normal $z \in \mathbb R^K$, as continuous as can be, and a
# *linear* decoder with normal noise, $x = W z + b + \sigma \epsilon$. A linear map of a normal vector is normal, so
#
# $$p(x) = \mathcal N(x; \, b, \, W W^\top + \sigma^2 I) , \tag{1.7}$$
#
# exactly {cite}`tipping1999probabilistic`. A discrete $z$ with ten values turns (1.6) into a sum of ten terms: a mixture, again exact. But a discrete $z$ of a hundred
# bits, fed to a network, needs $2^{100}$ terms. The difficulty is the **decoder**: a nonlinear network leaves no closed form, and when $z$ has many dimensions there are too many
# places to look, so that no sum or grid will do. The posterior $p(z \mid x) = p(x \mid z) p(z) / p(x)$ has $p(x)$ in it and is as hard. The
# section *What goes wrong* measures this.
#
# ### Change of variables
#
# Instead of integrating over $z$, make $z$ a function of $x$. Let $f$ be invertible and smooth, from data to latent, $z = f(x)$, and let $z$ have density $p_Z$. Probability moves with the
# points: a small box of volume $dx$ around $x$ becomes one of volume $|\det J_f(x)| \, dx$ around $f(x)$ and holds the same probability, so
#
# $$\log p_X(x) = \log p_Z(f(x)) + \log \big| \det J_f(x) \big| , \qquad J_f = \frac{\partial f}{\partial x} . \tag{1.8}$$
#
# The sign belongs to the direction. With the map from latent to data, $x = g(z)$, the Jacobian is that of $g$ and its log-determinant is *subtracted*. This book always writes $f$, from data to latent.
#
# ### Bits per dimension, and integer data
#
# Log-densities in nats grow with the number of dimensions $D$ and depend on the scale of the data. Divide by $D$, and by $\ln 2$ to get bits. Data with $L$ integer
# levels scaled to $[0, 1]$ has a density $L^D$ times as high as on the original scale; taking that back gives
#
# $$\text{bits/dim} = - \frac{\log q(x)}{D \ln 2} + \log_2 L . \tag{1.9}$$
#
# The uniform density on $[0, 1]^D$ scores $\log_2 L$: 8 bits for 256 levels, which is what storing the pixels takes.
#
# Pixels are integers, and a density on integers makes no sense: it may put a spike of any height on each level. The cure is **dequantization**: add uniform
# noise $u \in [0, 1)^D$ to the integers $k$ {cite}`uria2013rnade`. Then the figure means something. Write $Q(k) = \int_{[0,1)^D} q(k + u) \, du$ for the
# probability that the model gives to the cube of $k$. By Jensen's inequality
#
# $$\mathbb E_u \log q(k + u) \le \log \int q(k + u) \, du = \log Q(k) . \tag{1.10}$$
#
# So the NLL on dequantized data is an upper bound on a true code length, that of the integers under $Q$ {cite}`theis2016note`, and it
# cannot fall below the entropy of the integers.

# %% [markdown]
# ## By hand
#
# A mixture of normals is a sum of weighted densities. In logarithms the sum becomes `logsumexp`, which does not underflow. With the Cholesky factor $L L^\top = \Sigma$,
# the distance $(x - \mu)^\top \Sigma^{-1} (x - \mu)$ is the squared length of $L^{-1}(x - \mu)$, and $\log \det \Sigma = 2 \sum_i \log L_{ii}$.

# %%


def component_log_probs(x, means, factors, weights):
    """log of weight times density, for points x (B, D) and each of M normals: (B, M)."""
    columns = []
    for mean, factor, weight in zip(means, factors, weights, strict=True):
        whitened = torch.linalg.solve_triangular(factor, (x - mean).T, upper=False)
        log_det = factor.diagonal().log().sum()  # half of log det Sigma
        constant = 0.5 * x.shape[1] * math.log(2 * math.pi)
        distance = whitened.square().sum(0)  # (B,)
        columns.append(weight.log() - 0.5 * distance - log_det - constant)
    return torch.stack(columns, dim=1)


def kde_log_prob(squared_distances, bandwidth, dim):
    """A kernel density estimate: one small round normal on each training point.

    From squared distances to N training points, (B, N), to log-densities, (B,).
    """
    log_kernels = -squared_distances / (2 * bandwidth**2)
    log_norm = dim * math.log(bandwidth * math.sqrt(2 * math.pi))
    points = squared_distances.isfinite().sum(1)  # an infinite distance leaves one out
    return log_kernels.logsumexp(1) - points.log() - log_norm


# %% [markdown]
# The first must agree with the library's mixture, the second with scikit-learn's estimate, and the second must be a special case of
# the first: a KDE is a mixture with as many components as training points.

# %%
generator = torch.Generator().manual_seed(run.seed)
D, M = 3, 4
means = 2 * torch.randn(M, D, generator=generator, dtype=torch.float64)
factors = torch.randn(M, D, D, generator=generator, dtype=torch.float64).tril()
factors.diagonal(dim1=1, dim2=2).abs_().add_(0.3)
weights = torch.rand(M, generator=generator, dtype=torch.float64) + 0.1
library = probability.GaussianMixture(means, factors @ factors.mT, weights)

x = library.sample(500)
by_hand = component_log_probs(x, means, factors, library.weights).logsumexp(1)
mixture_gap = (by_hand - library.log_prob(x)).abs().max().item()

centres, bandwidth = library.sample(200), 0.4
kde = kde_log_prob(torch.cdist(x, centres).square(), bandwidth, D)
estimate = KernelDensity(bandwidth=bandwidth).fit(centres.numpy())
kde_gap = np.abs(kde.exp().numpy() - np.exp(estimate.score_samples(x.numpy()))).max()

kernels = bandwidth * torch.eye(D).double().expand(len(centres), D, D)
equal = torch.full((len(centres),), 1 / len(centres), dtype=torch.float64)
as_mixture = component_log_probs(x, centres, kernels, equal).logsumexp(1)
special_case_gap = (kde - as_mixture).abs().max().item()

# %% tags=["nbval-check-output"]
check(
    "the mixture by hand agrees with the library's log_prob",
    mixture_gap < 1e-8,
    f"largest gap {mixture_gap:.0e} nats",
)
check(
    "the kernel density estimate by hand agrees with scikit-learn's",
    kde_gap < 1e-6,
    f"largest gap of the densities {kde_gap:.0e}",
)
check(
    "it is the mixture with one component on each training point",
    special_case_gap < 1e-4,
    f"largest gap {special_case_gap:.0e} nats",
)

# %% [markdown]
# Now (1.2) as an experiment. The data comes from two normals; the model is the one normal of (1.4). On a fine grid an integral is a sum, so entropy and divergence are
# known to many digits. Held-out NLL comes from samples. Their difference should be the divergence.

# %%
grid = torch.linspace(-12, 12, 1201, dtype=torch.float64)


def integrate(values):
    return values.sum(-1) * (grid[1] - grid[0])  # densities vanish at both ends


def log_normal(mu, logvar):
    return -0.5 * (math.log(2 * math.pi) + logvar + (grid - mu) ** 2 / logvar.exp())


def two_normals(distance, weight=0.7, std=0.5):
    """Log-density on the grid of two normals, the left one heavier."""
    logvar = torch.tensor(2 * math.log(std), dtype=torch.float64)
    left = log_normal(-distance / 2, logvar) + math.log(weight)
    right = log_normal(distance / 2, logvar) + math.log(1 - weight)
    return torch.logaddexp(left, right)  # (G,)


log_p = two_normals(distance=4.0)
p = log_p.exp()
mean = integrate(p * grid)
variance = integrate(p * (grid - mean) ** 2)
log_q = log_normal(mean, variance.log())  # the best normal, by (1.4)
entropy = -integrate(p * log_p).item()
divergence = integrate(p * (log_p - log_q)).item()

deviations = []  # of NLL minus entropy from the divergence, in standard errors
for seed in range(5):
    generator = torch.Generator().manual_seed(seed)
    n = 20_000
    sign = 1 - 2 * (torch.rand(n, generator=generator) < 0.7).double()
    x = 2 * sign + 0.5 * torch.randn(n, generator=generator)
    nll = 0.5 * ((2 * math.pi * variance).log() + (x - mean) ** 2 / variance)  # (n,)
    standard_error = nll.std() / math.sqrt(n)
    deviations.append(((nll.mean() - entropy - divergence) / standard_error).item())
print(
    f"entropy {entropy:.4f} nats, forward KL of the best normal {divergence:.4f} nats"
)

# %% tags=["nbval-check-output"]
check(
    "on five of five seeds held-out NLL minus entropy is the KL, within 4 standard errors",
    max(map(abs, deviations)) < 4,
    f"at most {max(map(abs, deviations)):.1f} standard errors",
)

# %% [markdown]
# And the units. One nat is $1 / \ln 2$ bits; a figure converted to bits per dimension and back must return.

# %%
nats = torch.tensor([-1200.0, 0.0, 2500.0])
bits = -nats / (784 * math.log(2)) + math.log2(256)  # (1.9), by hand
bits_gap = (bits - probability.bits_per_dim(nats, dims=784, levels=256)).abs().max()
back = probability.nats_from_bits_per_dim(bits, dims=784, levels=256)
return_gap = (back - nats).abs().max().item()
print(
    f"{nats.tolist()} nats are {[round(b, 2) for b in bits.tolist()]} bits per dimension"
)

# %% tags=["nbval-check-output"]
check(
    "nats to bits per dimension agrees with the library, and returns",
    bits_gap < 1e-5 and return_gap < 0.01,
    f"gaps {bits_gap:.0e} bits and {return_gap:.0e} nats",
)

# %% [markdown]
# > **Common mistake.** Quoting bits/dim of data scaled to $[0, 1]$ without $\log_2 L$. For 8-bit images the figure is 8 too low, often negative, and looks wonderful. A code
# > length cannot be negative: where bits/dim of dequantized data is, look for this.

# %% [markdown]
# ## An oracle: four divergences, one target
#
# The same target, two normals; the same model, one normal, too small for it. We minimize each of the four divergences by gradient descent. All integrals are sums over the grid, so there is no
# sampling noise: what differs is the divergence and nothing else.

# %%


def forward_kl(log_p, log_q):
    return integrate(log_p.exp() * (log_p - log_q))


def reverse_kl(log_p, log_q):
    return forward_kl(log_q, log_p)


def jsd(log_p, log_q):
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * forward_kl(log_p, log_m) + 0.5 * forward_kl(log_q, log_m)


def w1(log_p, log_q):
    step = grid[1] - grid[0]
    cdf_difference = (log_p.exp() - log_q.exp()).cumsum(-1) * step
    return integrate(cdf_difference.abs())


divergences = {"forward KL": forward_kl, "reverse KL": reverse_kl, "JSD": jsd, "W1": w1}
starts = torch.tensor([-3.0, -1.5, 0.0, 1.5, 3.0], dtype=torch.float64)


def descend(divergence, log_p, steps=400):
    """Fit mu and logvar to each of S targets (S, 1, G) from each of five starts."""
    mu = starts.repeat(len(log_p), 1)[..., None].requires_grad_()  # (S, 5, 1)
    logvar = torch.zeros_like(mu).requires_grad_()
    optimizer = torch.optim.Adam([mu, logvar], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        divergence(log_p, log_normal(mu, logvar)).sum().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        values = divergence(log_p, log_normal(mu, logvar))  # (S, 5)
        return mu[..., 0], (logvar[..., 0] / 2).exp(), values


distances = [0.0, 1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0]  # between the two modes
targets = torch.stack([two_normals(d) for d in distances])[:, None]  # (S, 1, G)
found = {name: descend(f, targets) for name, f in divergences.items()}

# %% [markdown]
# For modes 4 apart, this is where the five starts end. The best of them counts as the fit.

# %%
four_apart = distances.index(4.0)


def best_fit(name, which):
    mu, std, values = (part[which] for part in found[name])
    best = values.argmin()
    return mu[best].item(), std[best].item(), values[best].item()


fits = {name: best_fit(name, four_apart) for name in divergences}
for name in divergences:
    mu, std, values = (part[four_apart].tolist() for part in found[name])
    ends = sorted({f"({m:+.1f}, {s:.1f})" for m, s in zip(mu, std, strict=True)})
    print(
        f"{name:10} fit {fits[name][0]:+.2f} ± {fits[name][1]:.2f}, "
        f"value {fits[name][2]:.3f}; ends (mu, sigma): {' '.join(ends)}"
    )

# %% tags=["hide-input"]


def draw_fits(distance):
    which = distances.index(distance)
    figure, axes = plot.subplots(1, 2, height=3.0)
    density = targets[which, 0].exp()
    for ax, names in zip(
        axes, (["forward KL", "W1"], ["reverse KL", "JSD"]), strict=True
    ):
        ax.fill_between(grid, density, color="grey", alpha=0.3, linewidth=0)
        curves = {}
        for name in names:
            mu, std, _ = best_fit(name, which)
            log_q = log_normal(mu, torch.tensor(2 * math.log(std)))
            curves[name] = (grid, log_q.exp())
        plot.curves(ax, curves, xlabel="x", ylabel="density")
        ax.lines[-1].set_linestyle("--")
        ax.set(xlim=(-7, 7), ylim=(0, 0.9))
    axes[0].set_title(f"One normal for two modes, {distance:g} apart")
    return figure


notebook.show(
    draw_fits(4.0),
    alt="The target in grey has a high mode at minus two and a lower one at plus two. Left, the fits by forward KL and by W1 are "
    "broad and cover both modes. Right, the fits by reverse KL and by JSD sit on the high mode and ignore the other.",
)

# %% [markdown]
# | divergence | what it buys | why |
# | --- | --- | --- |
# | forward KL | both modes and the empty middle | Missing data costs without limit; it matches mean and variance (1.4). |
# | W1 | nearly the same, a little narrower and further to the left | It moves mass; a far mode costs by its distance, not by the square of it. |
# | reverse KL | one mode, with its true width | Samples where there is no data cost without limit; missing 30 % of the data costs $\log \frac{1}{0.7} = 0.36$ nats. |
# | JSD | one mode too, at this distance | It is bounded, so neither error is infinitely bad. |
#
# Two of these can be checked by a formula. The forward fit must have the target's moments. The reverse fit on a mode with weight 0.7 has $q = \frac{p}{0.7}$ there, so its divergence must be
# $\log \frac{1}{0.7}$, as far as the modes do not overlap.

# %% tags=["nbval-check-output"]
moment_gap = max(
    abs(fits["forward KL"][0] - mean.item()),
    abs(fits["forward KL"][1] - variance.sqrt().item()),
)
check(
    "forward KL finds the mean and the standard deviation of the target",
    moment_gap < 0.01,
    f"largest gap {moment_gap:.0e}",
)
check(
    "reverse KL finds the heavier mode, at the price of log(1 / 0.7) nats",
    abs(fits["reverse KL"][0] + 2) < 0.05
    and abs(fits["reverse KL"][2] - math.log(1 / 0.7)) < 0.01,
    f"mu {fits['reverse KL'][0]:.2f}, {fits['reverse KL'][2]:.3f} nats",
)
check(
    "W1 and forward KL are at least 3 times as wide as reverse KL and JSD",
    min(fits["forward KL"][1], fits["W1"][1])
    > 3 * max(fits["reverse KL"][1], fits["JSD"][1]),
    f"widths {', '.join(f'{name} {fits[name][1]:.2f}' for name in fits)}",
)

# %% [markdown]
# Each fit should be the best under its own divergence; otherwise the descent has failed. And the starts tell a second story: forward KL and W1 lead every start to the same
# place, reverse KL and JSD have several valleys, and *which mode you get depends on where you began*.

# %%
fitted = torch.stack(
    [log_normal(fits[n][0], torch.tensor(2 * math.log(fits[n][1]))) for n in fits]
)
own_is_best = [
    divergences[name](log_p, fitted).argmin().item() == i
    for i, name in enumerate(divergences)
]
spread_of_ends = {
    name: (found[name][0][four_apart].max() - found[name][0][four_apart].min()).item()
    for name in divergences
}

# %% tags=["nbval-check-output"]
check(
    "each of the four fits is the best of the four under its own divergence",
    all(own_is_best),
)
check(
    "forward KL and W1 lead all five starts to one mean",
    max(spread_of_ends["forward KL"], spread_of_ends["W1"]) < 0.2,
    f"spread of the ends {spread_of_ends['forward KL']:.2f} and {spread_of_ends['W1']:.2f}",
)
check(
    "reverse KL and JSD lead some starts to one mode and some to the other",
    min(spread_of_ends["reverse KL"], spread_of_ends["JSD"]) > 3,
    f"spread of the ends {spread_of_ends['reverse KL']:.2f} and {spread_of_ends['JSD']:.2f}",
)

# %% [markdown]
# Move the modes apart. While they overlap, all four nearly agree. Then reverse KL drops the smaller mode, a little later JSD; forward KL and W1 grow wider without end.

# %%
print("sigma of the best fit for modes apart by")
print(" " * 12 + "".join(f"{distance:7g}" for distance in distances))
widths = {n: [best_fit(n, i)[1] for i in range(len(distances))] for n in divergences}
for name, row in widths.items():
    print(f"{name:12}" + "".join(f"{width:7.2f}" for width in row))

# %% tags=["nbval-check-output"]
close, between, far = (distances.index(d) for d in (1.0, 2.5, 6.0))
check(
    "with the modes 1 apart the four widths differ by less than 5 %",
    max(w[close] for w in widths.values())
    < 1.05 * min(w[close] for w in widths.values()),
    f"{', '.join(f'{w[close]:.2f}' for w in widths.values())}",
)
check(
    "with the modes 2.5 apart reverse KL has dropped one of them, JSD has not",
    2 * widths["reverse KL"][between] < widths["JSD"][between],
    f"widths {widths['reverse KL'][between]:.2f} and {widths['JSD'][between]:.2f}",
)
check(
    "with the modes 6 apart they differ by more than a factor of 4",
    min(widths["forward KL"][far], widths["W1"][far])
    > 4 * max(widths["reverse KL"][far], widths["JSD"][far]),
    f"{', '.join(f'{w[far]:.2f}' for w in widths.values())}",
)

# %%
Explorer(
    draw_fits,
    distances,
    label="distance between the modes",
    form="g",
    alt="Two modes that are {} apart, and the normal that each divergence fits to them.",
    start=distances.index(2.5),
)

# %% [markdown]
# Remember the setting: a model *too small* for its data. The picture is often quoted to say that GANs drop modes because they minimize the JSD. They do minimize it in theory (chapter 5), but
# a network is not one normal, and what a GAN drops has other causes too. The divergences say what a weak model prefers, no more. Minka puts these and others into one family {cite}`minka2005divergence`.

# %% [markdown]
# ## A second oracle: a change of variables
#
# We bend the plane. A **coupling** leaves one coordinate alone and moves the other by an amount that depends on it; it is invertible by construction. Two of them with a turn between make a map
# $f$ from data to latent whose log-determinant we can add up by hand:

# %%


class Bend:
    """An invertible map of the plane from data x to latent z, at random."""

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        self.a, self.b, self.c, self.d = 0.4 + 0.6 * torch.rand(4, generator=generator)

    def forward(self, x):  # (B, 2) -> (B, 2), (B,)
        u, v = x.unbind(1)
        log_scale = self.a * torch.sin(u) + 0.3
        v = v * log_scale.exp() + self.b * torch.cos(2 * u)
        u, v = v, -u  # a quarter turn: determinant one
        second_log_scale = self.c * torch.cos(u) + 0.3
        v = v * second_log_scale.exp() + self.d * u
        return torch.stack([u, v], 1), log_scale + second_log_scale

    def inverse(self, z):  # (B, 2) -> (B, 2): the same steps, backwards
        u, v = z.unbind(1)
        v = (v - self.d * u) * torch.exp(-0.3 - self.c * torch.cos(u))
        u, v = -v, u
        v = (v - self.b * torch.cos(2 * u)) * torch.exp(-0.3 - self.a * torch.sin(u))
        return torch.stack([u, v], 1)


# %% [markdown]
# Three checks, for five random maps. The log-determinant must be that of the Jacobian which automatic differentiation finds. The density (1.8), with a standard normal latent, must integrate to one. And samples,
# drawn by sending normal points back through the inverse, must fall into a region as often as the density says.

# %%
extent = (-14.0, 14.0, -14.0, 14.0)
cells = run.pick(quick=700, full=1400)
plane = plot.grid_points(extent, n=cells).double()
area = (28 / (cells - 1)) ** 2

determinant_gaps, integrals, without_determinant, region_errors = [], [], [], []
for seed in range(5):
    bend = Bend(seed)
    torch.manual_seed(seed)
    x = 2 * torch.randn(200, 2)
    jacobians = torch.func.vmap(
        torch.func.jacrev(lambda point, f=bend: f.forward(point[None])[0][0])
    )(x)  # (B, 2, 2)
    _, log_det = bend.forward(x)
    exact = torch.linalg.slogdet(jacobians).logabsdet
    determinant_gaps.append((log_det - exact).abs().max().item())

    z, log_det = bend.forward(plane)
    log_latent = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
    density = (log_latent + log_det).exp()
    integrals.append(density.sum().item() * area)
    without_determinant.append(log_latent.exp().sum().item() * area)

    samples = bend.inverse(torch.randn(40_000, 2))
    share = (samples[:, 1] > 0.5).double().mean().item()
    mass = density[plane[:, 1] > 0.5].sum().item() * area
    region_errors.append(abs(share - mass))
print(f"with the determinant:    {', '.join(f'{i:.4f}' for i in integrals)}")
print(f"without the determinant: {', '.join(f'{i:.2f}' for i in without_determinant)}")

# %% tags=["nbval-check-output"]
check(
    "on five of five maps the log-determinant is that of the autograd Jacobian",
    max(determinant_gaps) < 1e-4,
    f"largest gap {max(determinant_gaps):.0e}",
)
check(
    "on five of five maps the density integrates to one within 0.005",
    max(abs(i - 1) for i in integrals) < 0.005,
    f"largest gap {max(abs(i - 1) for i in integrals):.0e}",
)
check(
    "on five of five maps it does not without the determinant: off by more than 0.2",
    min(abs(i - 1) for i in without_determinant) > 0.2,
    f"integrals {min(without_determinant):.2f} to {max(without_determinant):.2f}",
)
check(
    "on five of five maps samples fall where the density says, within 0.015",
    max(region_errors) < 0.015,
    f"largest difference of a region's share {max(region_errors):.3f}",
)

# %% tags=["hide-input"]
torch.manual_seed(run.seed)
bend, window = Bend(run.seed), (-4.0, 4.0, -6.0, 6.0)
points = plot.grid_points(window, n=200)
z, log_det = bend.forward(points)
log_latent = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
figure, axes = plot.subplots(1, 3, height=3.2)
plot.points(axes[0], {"x": bend.inverse(torch.randn(3000, 2))}, title="samples", size=2)
plot.contours(
    axes[1], (log_latent + log_det).exp(), extent=window, title="density (1.8)"
)
plot.contours(axes[2], log_latent.exp(), extent=window, title="no determinant")
axes[0].set(xlim=window[:2], ylim=window[2:])
notebook.show(
    figure,
    alt="Three panels: samples of a bent normal distribution; its density by the change of variables, dark where the samples are "
    "dense; and the same without the determinant, which is dark in other places.",
)

# %% [markdown]
# ## Images
#
# The full profile uses MNIST {cite}`lecun1998gradient`, 28 x 28 pixels with 256 levels; the quick profile the digits that come with scikit-learn, 8 x 8 pixels with 17 levels. All figures on this page
# are from the full profile. Images are dequantized, as (1.10) demands.

# %%
name = run.pick(quick="digits", full="mnist")
levels = run.pick(quick=17, full=256)
x_all, y_all = data.images(name)
x_test, y_test = data.images(name, split="test")
shape, D = x_all.shape[1:], x_all[0].numel()
held_out = run.pick(quick=360, full=1000)  # images that judge
chosen_on = run.pick(quick=300, full=1000)  # images that choose settings

generator = torch.Generator().manual_seed(run.seed)
order = torch.randperm(len(x_all), generator=generator)
order = order[: run.pick(quick=len(x_all), full=21_000)]
pixels = probability.dequantize(x_all[order], levels=levels, generator=generator)
pixels, labels = pixels.flatten(1).double(), y_all[order]
x_valid, x_train = pixels[:chosen_on], pixels[chosen_on:]
y_train = labels[chosen_on:]
x_test = probability.dequantize(x_test[:held_out], levels=levels, generator=generator)
x_test, y_test = x_test.flatten(1).double(), y_test[:held_out]
print(
    f"{name}: {len(x_train):,} training, {len(x_valid)} validation, {len(x_test)} test images, D = {D}"
)


def bits_per_dim(log_prob):
    return probability.bits_per_dim(log_prob, dims=D, levels=levels).mean().item()


# %% [markdown]
# **The kernel density estimate** {cite}`rosenblatt1956remarks,parzen1962estimation` has one setting, its bandwidth. Too small, and it believes only in training images; too large, and it is a blur. Validation images choose.

# %%
bandwidths = np.geomspace(0.05, 0.6, 10)


def squared_distances(x):
    return torch.cdist(
        x.float(), x_train.float()
    ).square()  # single precision is enough


to_training = squared_distances(x_valid)
valid_bits = [bits_per_dim(kde_log_prob(to_training, h, D)) for h in bandwidths]
bandwidth = bandwidths[np.argmin(valid_bits)]
bits = {
    "kernel density": bits_per_dim(
        kde_log_prob(squared_distances(x_test), bandwidth, D)
    )
}
print(f"bandwidth {bandwidth:.2f}, the largest grey level being 1")

# %% [markdown]
# **Mixtures of normals.** We group the training images and give each group a normal with the mean and covariance of its images. The groups are all images together; the clusters of k-means (one hard step of
# the EM algorithm {cite}`dempster1977maximum`); or, with labels, the digits. A small group cannot determine a covariance with hundreds of thousands of entries, so each is drawn towards the mean
# covariance of all groups by a share that validation images choose.

# %%


def fit_groups(groups):
    """A normal for each group, with the best of four shrinkages on validation data."""
    kinds = groups.unique()
    weights = torch.stack([(groups == k).double().mean() for k in kinds])
    means = torch.stack([x_train[groups == k].mean(0) for k in kinds])
    covariances = torch.stack(
        [torch.cov(x_train[groups == k].T, correction=0) for k in kinds]
    )
    pooled = torch.einsum("m,mij->ij", weights, covariances)
    best = None
    for share in (0.01, 0.1, 0.3, 0.6) if len(kinds) > 1 else (0.0,):
        drawn = (1 - share) * covariances + share * pooled
        factors = torch.linalg.cholesky(drawn + 1e-8 * torch.eye(D))
        log_prob = component_log_probs(x_valid, means, factors, weights).logsumexp(1)
        if best is None or log_prob.mean() > best[0]:
            best = (log_prob.mean(), (means, factors, weights))
    return best[1]


clusters = run.pick(quick=10, full=20)
kmeans = KMeans(clusters, n_init=1, random_state=run.seed).fit(x_train.float().numpy())
groups = {
    "one normal": torch.zeros(len(x_train)),
    "mixture": torch.tensor(kmeans.labels_),
    "a normal for each digit": y_train,
}
mixtures = {how: fit_groups(g) for how, g in groups.items()}
for how, parameters in mixtures.items():
    bits[how] = bits_per_dim(component_log_probs(x_test, *parameters).logsumexp(1))

# %% [markdown]
# **Independent pixels.** The crudest model of all: a histogram for each pixel, and no connection between any two. On integers its code length is exact, so it needs no dequantization.

# %%


def grey_levels(x):
    return (x * levels).long()  # undo the dequantization


counts = torch.stack([(grey_levels(x_train) == k).sum(0) for k in range(levels)]) + 0.1
histogram = counts / counts.sum(0)  # (L, D)
bits["independent pixels"] = (
    -histogram.gather(0, grey_levels(x_test)).log2().mean().item()
)
bits["uniform"] = math.log2(levels)
for how, value in sorted(bits.items(), key=lambda item: item[1]):
    print(f"{how:24} {value:5.2f} bits per dimension, held out")

# %%
n = min(500, len(x_test) // 2)
torch.manual_seed(run.seed)


def sample_mixture(means, factors, weights):
    which = torch.multinomial(weights, n, replacement=True)
    noise = torch.randn(n, D, dtype=torch.float64)
    return torch.stack(
        [means[k] + factors[k] @ eps for k, eps in zip(which, noise, strict=True)]
    )


origin = torch.randint(len(x_train), (n,))
samples = {
    "kernel density": x_train[origin] + bandwidth * torch.randn(n, D),
    "one normal": sample_mixture(*mixtures["one normal"]),
    "mixture": sample_mixture(*mixtures["mixture"]),
    "independent pixels": (
        torch.multinomial(histogram.T, n, replacement=True).T + torch.rand(n, D)
    )
    / levels,
    "real (the floor)": x_test[:n],
}
reference = x_test[-n:]
two_sample = {}
for how, x in samples.items():
    x = x.clamp(0, 1)
    generator = torch.Generator().manual_seed(run.seed)
    by_network = c2st_network(
        x.float(), reference.float(), steps=200, folds=3, generator=generator
    ).accuracy
    by_neighbours = c2st(x, reference, neighbours=5, generator=generator).accuracy
    two_sample[how] = by_network, by_neighbours
    print(
        f"{how:20} told from real: by a network {by_network:.2f}, by neighbours {by_neighbours:.2f}"
    )

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=3.6)
rows = {how: x[:12].reshape(-1, *shape).clamp(0, 1) for how, x in samples.items()}
plot.image_rows(ax, rows, title="Samples of densities without a network")
notebook.show(
    figure,
    alt="Five rows of twelve images. Kernel density: readable digits under grey noise. One normal: shapeless clouds. Mixture: rough, "
    "ragged digits. Independent pixels: speckles. Last, real digits.",
)

# %% [markdown]
# Three things to read from this.
#
# - Every normal beats the kernel density estimate by far, although its samples are the most readable. They are readable because each *is* a training image, under noise as wide as the bandwidth. The measurement below shows it.
# - The best bits per dimension belong to the model with the worst samples. Most pixels of a digit are exactly white. A histogram can say so; a normal cannot, and pays for it in
#   each of them. Likelihood and the look of samples are different things {cite}`theis2016note`. One figure is never enough.
# - All are told from real images by a network; the floor is what it makes of real images against real ones. The nearest-neighbour test is not reliable here: noise lifts all distances, and a noisy image's nearest neighbours
#   are real ones. That a test does not see a difference is no proof that there is none.

# %%
nearest = squared_distances(samples["kernel density"]).argmin(1)
share_of_copies = (nearest == origin).double().mean().item()
floor = two_sample["real (the floor)"][0]
told = min(two_sample[how][0] for how in ("kernel density", "independent pixels"))

# %% tags=["nbval-check-output"]
check(
    "a mixture beats one normal, and one normal beats the kernel density, in held-out bits",
    bits["mixture"] < bits["one normal"] - 0.1 < bits["kernel density"] - 0.2,
    f"{bits['mixture']:.2f}, {bits['one normal']:.2f} and {bits['kernel density']:.2f} bits/dim",
)
check(
    "independent pixels have fewer bits still, though their samples are speckles",
    bits["independent pixels"] < bits["mixture"] - 0.1,
    f"{bits['independent pixels']:.2f} bits/dim",
)
check(
    "at least 95 % of the kernel density's samples are noisy copies of one training image",
    share_of_copies > 0.95,
    f"{100 * share_of_copies:.1f} %",
)
check(
    "a network tells noisy copies and speckles from real images far better than real from real",
    told > floor + 0.1,
    f"at least {told:.2f}, floor {floor:.2f}",
)

# %% [markdown]
# ### Generative against discriminative
#
# The normals for each digit make a classifier, by Bayes' rule. Logistic regression is its discriminative counterpart. Both name digits. But ask them about something that is no digit, television snow:

# %%
classifier = LogisticRegression(max_iter=1000, tol=1e-2)
classifier.fit(x_train[:2000], y_train[:2000])
log_joint = component_log_probs(x_test, *mixtures["a normal for each digit"])
generative_accuracy = (log_joint.argmax(1) == y_test).double().mean().item()
discriminative_accuracy = classifier.score(x_test, y_test)

snow = torch.rand(len(x_test), D, dtype=torch.float64)
confidence = classifier.predict_proba(snow).max(axis=1).mean()
log_p_snow = component_log_probs(snow, *mixtures["a normal for each digit"]).logsumexp(
    1
)
log_p_test = log_joint.logsumexp(1)
print(
    f"accuracy: generative {generative_accuracy:.3f}, discriminative {discriminative_accuracy:.3f}"
)

# %% tags=["nbval-check-output"]
check(
    "both name at least 60 % of the test digits, where chance names 10 %",
    min(generative_accuracy, discriminative_accuracy) > 0.6,
    f"generative {100 * generative_accuracy:.1f} %, discriminative {100 * discriminative_accuracy:.1f} %",
)
check(
    "the discriminative model names a digit in snow with a mean confidence above 0.4",
    confidence > 0.4,
    f"{confidence:.2f}",
)
check(
    "the generative model finds every image of snow less probable than any test image",
    log_p_snow.max() < log_p_test.min(),
    f"at most {bits_per_dim(log_p_test.min()):.1f} bits/dim for a digit, at least {bits_per_dim(log_p_snow.max()):.1f} for snow",
)

# %% [markdown]
# The classifier is not broken. It was never asked how probable its input is. Do not conclude that a likelihood is a reliable alarm: snow is the easy case, and chapter 2 has met a hard one.

# %% [markdown]
# ## What goes wrong
#
# ### The curse of dimension, against an exact entropy
#
# On images nobody knows the entropy. So build data where it is known in any dimension: $D$ independent coordinates, each from two normals at $\pm 1$ with standard deviation 0.4. The entropy is
# $D$ times that of one coordinate, and there are $2^D$ modes, as when many features of an image combine freely. We fit a kernel density estimate (bandwidth by leave-one-out likelihood) and a mixture of normals by EM (number of components by validation),
# and report held-out NLL minus entropy: the divergence, which is zero for a perfect model.

# %%
one_coordinate = two_normals(distance=2.0, weight=0.5, std=0.4)
entropy_of_one = -integrate(one_coordinate.exp() * one_coordinate).item()
one_normal_gap = 0.5 * math.log(2 * math.pi * math.e * 1.16) - entropy_of_one
kernel_widths = np.geomspace(0.08, 1.3, 10)


def draw(n, dim, generator):
    signs = 2.0 * torch.randint(2, (n, dim), generator=generator) - 1
    return signs + 0.4 * torch.randn(n, dim, generator=generator)


def exact_log_prob(x):
    log_two = torch.logaddexp(-(((x - 1) / 0.4) ** 2) / 2, -(((x + 1) / 0.4) ** 2) / 2)
    return (log_two - math.log(0.8 * math.sqrt(2 * math.pi))).sum(1)


def kde_divergence(train, test):
    """Mean of log p - log q over test points: the divergence in nats."""
    between = torch.cdist(train, train).square().fill_diagonal_(math.inf)
    dim = train.shape[1]
    scores = [kde_log_prob(between, h, dim).mean() for h in kernel_widths]
    h = kernel_widths[np.argmax(scores)]
    log_q = kde_log_prob(torch.cdist(test, train).square(), h, dim)
    return (exact_log_prob(test) - log_q).mean().item()


def mixture_divergence(train, valid, test, seed):
    candidates = [
        FittedMixture(m, reg_covar=1e-3, random_state=seed).fit(train.double())
        for m in components
    ]
    best = max(candidates, key=lambda mixture: mixture.score(valid.double()))
    log_q = torch.tensor(best.score_samples(test.double()))
    return (exact_log_prob(test) - log_q).mean().item(), best.n_components


dims = run.pick(quick=[1, 2, 4, 8, 16], full=[1, 2, 4, 8, 16, 32])
components = run.pick(quick=[1, 4, 16], full=[1, 2, 4, 8, 16])
gaps = {"kernel density": [], "mixture of normals": [], "one density a coordinate": []}
chosen = []
for seed in range(5):
    rows = {method: [] for method in gaps}
    chosen.append([])
    for dim in dims:
        generator = torch.Generator().manual_seed(seed)
        train, valid, test = (draw(n, dim, generator) for n in (1000, 500, 1000))
        rows["kernel density"].append(kde_divergence(train, test) / dim)
        gap, m = mixture_divergence(train, valid, test, seed)
        rows["mixture of normals"].append(gap / dim)
        chosen[-1].append(m)
        # one coordinate stands for all: they are alike
        single = kde_divergence(train[:, :1], test[:, :1])
        rows["one density a coordinate"].append(single)
    for method, row in rows.items():
        gaps[method].append(row)
for dim, counts_chosen in zip(dims, zip(*chosen, strict=True), strict=True):
    print(f"D = {dim:2}: {2**dim:,} modes, components chosen {counts_chosen}")

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=3.3)
plot.curves(
    ax,
    {method: (dims, np.array(rows)) for method, rows in gaps.items()},
    xlabel="dimension D",
    ylabel="divergence per dimension, nats",
    title="1,000 training points: held-out NLL minus entropy, five seeds",
)
ax.axhline(one_normal_gap, color="black", linewidth=1, linestyle="--")
ax.annotate("one normal, exactly", (dims[0], one_normal_gap), va="bottom")
ax.set_xscale("log", base=2)
ax.set_xticks(dims, dims)
notebook.show(
    figure,
    alt="Divergence per dimension against dimension. Kernel density and mixture start near zero and rise; in 16 dimensions the kernel "
    "density is above the dashed line of a single normal and the mixture close to it. One density for each coordinate stays near zero.",
)

# %% [markdown]
# Both are nearly perfect on the line and in the plane. As the dimension grows, the kernel density becomes worse than *one normal that knows nothing of the modes*, and the mixture retreats to it: its validation data allow fewer
# and fewer components, because no component gets enough points. Dividing by $D$ flatters them; in total nats the loss is $D$ times as large.
#
# The third curve is the cure. It uses the same kernels and the same points, but *knows that the coordinates are independent*, and fits one density to each. Its divergence per dimension does not grow at all. What beats the dimension is not more data. It is structure.

# %%
at = {dim: i for i, dim in enumerate(dims)}
kernel, mixed, single = (np.array(rows) for rows in gaps.values())  # (seeds, dims)

# %% tags=["nbval-check-output"]
check(
    "on five of five seeds both are within 0.06 nats per dimension of the truth for D = 1 and 2",
    max(kernel[:, :2].max(), mixed[:, :2].max()) < 0.06,
    f"at most {max(kernel[:, :2].max(), mixed[:, :2].max()):.3f}",
)
check(
    "on five of five seeds the kernel density in 16 dimensions is worse than one normal",
    kernel[:, at[16]].min() > one_normal_gap + 0.02,
    f"at least {kernel[:, at[16]].min():.2f} nats per dimension, one normal {one_normal_gap:.2f}",
)
check(
    "on five of five seeds the mixture in 16 dimensions keeps less than 15 % of its gain over one normal",
    mixed[:, at[16]].min() > 0.85 * one_normal_gap,
    f"at least {mixed[:, at[16]].min():.2f} nats per dimension",
)
check(
    "on five of five seeds one density a coordinate stays within 0.06 at every D",
    single.max() < 0.06,
    f"at most {single.max():.3f}",
)

# %% [markdown]
# How much would more data help? Theory says that the error of a kernel density estimate falls like $N^{-4/(4 + D)}$ {cite}`silverman1986density`: ten times as much data cuts it to 16 % in one dimension, and to 46 % in eight, at best.

# %%
few, many = 200, 2000
remaining = {}
for dim in (1, 8):
    shares = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(100 + seed)
        train, test = draw(many, dim, generator), draw(4000, dim, generator)
        shares.append([kde_divergence(train[:n], test) for n in (few, many)])
    before, after = np.array(shares).T
    remaining[dim] = after.mean() / before.mean()
    print(
        f"D = {dim}: {before.mean():.3f} nats with {few} points, {after.mean():.3f} with {many}; "
        f"{100 * remaining[dim]:.0f} % remain"
    )

# %% tags=["nbval-check-output"]
check(
    "ten times the data leaves less than 40 % of the divergence for D = 1, more than 45 % for D = 8",
    remaining[1] < 0.4 and remaining[8] > 0.45,
    f"{100 * remaining[1]:.0f} % and {100 * remaining[8]:.0f} %, means of five seeds",
)

# %% [markdown]
# Images have structure of another kind: neighbouring pixels depend on each other, strokes are smooth, a few causes explain many pixels. Each family in this book is a way to put such structure into a density, with
# a network that learns the rest.
#
# ### A likelihood without a limit
#
# What happens without dequantization? Take the grey levels of single pixels from the images above, scaled to $[0, 1]$, and a mixture with a narrow normal on each level. Then narrow it.

# %%
grey = grey_levels(x_train)[:, D // 2 + shape[-1] // 2]  # one pixel near the middle
grey_test = grey_levels(x_test)[:, D // 2 + shape[-1] // 2]
counts = torch.bincount(grey, minlength=levels) + 0.1
probabilities = (counts / counts.sum()).double()
shares = torch.bincount(grey_test).double() / len(grey_test)
shortest = torch.special.entr(shares).sum().item() / math.log(2)  # bits, for any code

widths = np.array([1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])  # in units of one level
positions = (torch.arange(levels) + 0.5) / levels
noise = torch.Generator().manual_seed(run.seed)
spread_out = (grey_test + torch.rand(len(grey_test), generator=noise)) / levels


def spikes_bits(x, width):
    width = width / levels
    squared = (x[:, None].double() - positions) ** 2 / width**2  # (N, L)
    log_spikes = probabilities.log() - squared / 2 - math.log(width)
    log_prob = log_spikes.logsumexp(1) - 0.5 * math.log(2 * math.pi)
    return probability.bits_per_dim(log_prob, dims=1, levels=levels).mean().item()


raw = [spikes_bits(positions[grey_test], w) for w in widths]
candidates = np.geomspace(0.05, 3, 30)  # the best that spikes can do on spread-out data
dequantized = min(spikes_bits(spread_out, w) for w in candidates)
for width, value in zip(widths, raw, strict=True):
    print(f"spikes of width {width:.0e} of a level: {value:7.2f} bits on raw levels")
print(
    f"best width on dequantized levels: {dequantized:.2f} bits; shortest code of the levels: {shortest:.2f} bits"
)

# %% tags=["nbval-check-output"]
falls = -np.diff(raw)
check(
    "without dequantization each tenfold narrowing gains log2(10) = 3.32 bits, without end",
    np.abs(falls - math.log2(10)).max() < 0.01 and raw[-1] < 0,
    f"down to {raw[-1]:.1f} bits, below zero",
)
check(
    "with dequantization the best width stays above the shortest code of the levels",
    dequantized > shortest,
    f"{dequantized:.2f} against {shortest:.2f} bits",
)

# %% [markdown]
# The raw figures are held out and still worthless: the gain goes to whoever chooses the narrower spike. No number of bits below zero can store a pixel. With noise spread over each level, (1.10) holds, and the game is over.
#
# ### The marginal of a latent variable
#
# By (1.6) the marginal is a mean, $p(x) = \mathbb E_{z \sim p(z)} \, p(x \mid z)$. Why not draw many $z$ and average? For a linear decoder (1.7) gives the exact answer to compare with.

# %%
dim_x, noise_std, draws = 32, 0.5, run.pick(quick=2000, full=10_000)


def marginal_errors(latent, seed):
    """Mean error of log p(x), in nats, by z from the prior and from the posterior."""
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randn(dim_x, latent, generator=generator).double()
    z = torch.randn(20, latent, generator=generator).double()
    x = z @ decoder.T + noise_std * torch.randn(20, dim_x, generator=generator)
    covariance = decoder @ decoder.T + noise_std**2 * torch.eye(dim_x)
    exact = probability.gaussian(torch.zeros(dim_x).double(), covariance).log_prob(x)

    def log_decoder(z):  # (20, S, K) -> (20, S): log p(x | z)
        squared = (x[:, None] - z @ decoder.T).square().sum(-1)
        return -squared / (2 * noise_std**2) - dim_x / 2 * math.log(
            2 * math.pi * noise_std**2
        )

    def log_standard(eps):
        return -eps.square().sum(-1) / 2 - latent / 2 * math.log(2 * math.pi)

    eps = torch.randn(20, draws, latent, generator=generator).double()
    from_prior = log_decoder(eps).logsumexp(1) - math.log(draws)

    # the exact posterior p(z | x) is normal, because the decoder is linear
    precision = torch.eye(latent) + decoder.T @ decoder / noise_std**2
    factor = torch.linalg.cholesky(torch.linalg.inv(precision))
    centre = x @ decoder @ torch.linalg.inv(precision) / noise_std**2  # (20, K)
    z = centre[:, None] + eps[:, :10] @ factor.T  # ten draws
    log_posterior = log_standard(eps[:, :10]) - factor.diagonal().log().sum()
    ratios = log_decoder(z) + log_standard(z) - log_posterior
    from_posterior = ratios.logsumexp(1) - math.log(10)
    return [(e - exact).mean().item() for e in (from_prior, from_posterior)]


latents = [1, 2, 4, 8, 16]
errors = np.array([[marginal_errors(k, seed) for k in latents] for seed in range(5)])
prior_error, posterior_error = errors[..., 0], errors[..., 1]  # (5, len(latents))

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=3.0)
plot.curves(
    ax,
    {
        f"{draws:,} draws of z from the prior": (latents, prior_error),
        "10 draws from the posterior": (latents, posterior_error),
    },
    xlabel="latent dimensions K",
    ylabel="error of log p(x), nats",
    title="Estimating a marginal whose value is known",
)
ax.set_xscale("log", base=2)
ax.set_xticks(latents, latents)
notebook.show(
    figure,
    alt="Error of the estimated log p of x against the number of latent dimensions. With draws from the prior it is near zero for one and "
    "two dimensions and falls hundreds of nats below zero for sixteen. With ten draws from the posterior it is zero throughout.",
)

# %% tags=["nbval-check-output"]
check(
    "on five of five seeds the prior's draws find log p(x) within 1 nat for K = 1",
    np.abs(prior_error[:, 0]).max() < 1,
    f"largest error {np.abs(prior_error[:, 0]).max():.2f} nats",
)
check(
    "on five of five seeds they miss it by more than 20 nats for K = 16, always too low",
    prior_error[:, -1].max() < -20,
    f"errors {prior_error[:, -1].min():.0f} to {prior_error[:, -1].max():.0f} nats",
)
check(
    "on five of five seeds ten draws from the exact posterior find it for every K",
    np.abs(posterior_error).max() < 1e-6,
    f"largest error {np.abs(posterior_error).max():.0e} nats",
)

# %% [markdown]
# The latent variable is continuous throughout, and $K = 1$ is easy. What fails is the search: in many dimensions almost no $z$ from the prior explains the given $x$, so the mean consists of rare events that were not drawn. The estimate of the *logarithm* is
# then too low, by Jensen's inequality. And the cure is visible: look where the posterior is. With the exact posterior even a single draw gives the exact answer. With a nonlinear decoder nobody has it, and
# a network that approximates it is the encoder of a variational autoencoder, in chapter 3.

# %% [markdown]
# ## Quiz

# %% tags=["remove-input"] jupyter={"source_hidden": true}
# @title Quiz {display-mode: "form"}
Quiz(
    [
        Question(
            "A held-out NLL is 0.2 nats below the exact entropy of the data, with a standard error of 0.01. What has happened?",
            [
                Choice(
                    "The model is better than the truth.",
                    "No model is: NLL minus entropy is a KL divergence, and that is never negative.",
                ),
                Choice(
                    "Something is wrong: the density does not integrate to one, or the test data was seen in training.",
                    "By (1.2) and (1.3) the NLL on fresh data cannot lie twenty standard errors below the entropy.",
                    right=True,
                ),
                Choice(
                    "The model has too many parameters.",
                    "On held-out data too many parameters make the NLL higher, not lower than the floor.",
                ),
            ],
        ),
        Question(
            "One normal is fitted to two modes that are far apart. Half of its samples fall between them, where there is no data. Which objective was it?",
            [
                Choice(
                    "Forward KL, or W1.",
                    "Missing a mode costs forward KL without limit, and costs W1 the whole distance; samples in the middle cost less.",
                    right=True,
                ),
                Choice(
                    "Reverse KL.",
                    "Samples where there is no data are what it punishes most. It would sit on one mode.",
                ),
                Choice(
                    "JSD.",
                    "At a large distance it prefers one mode: bounded cost for the missing one, no samples in the middle.",
                ),
            ],
        ),
        Question(
            "Why can the marginal of a VAE not be computed, while that of a linear-Gaussian model can?",
            [
                Choice(
                    "Because z is continuous in the VAE.", "It is continuous in both."
                ),
                Choice(
                    "Because its decoder is a nonlinear network of many latent dimensions: no closed form, and no grid that is fine enough.",
                    "With a linear decoder the integral is a normal density, (1.7).",
                    right=True,
                ),
                Choice(
                    "Because its prior is normal.",
                    "So is the linear model's, and there it is what makes the integral easy.",
                ),
            ],
        ),
        Question(
            "A paper reports -1.3 bits/dim on 8-bit images. What do you suspect first?",
            [
                Choice("An excellent model.", "A code length cannot be negative."),
                Choice(
                    "The term log2(256) is missing, or the pixels were not dequantized.",
                    "The first lowers the figure by 8; without the second it has no lower limit.",
                    right=True,
                ),
                Choice(
                    "Too few test images.",
                    "That makes the figure uncertain, but hardly negative.",
                ),
            ],
        ),
        Question(
            "You have a kernel density estimate in 8 dimensions and ten times as many points. What do you expect?",
            [
                Choice(
                    "A tenth of the divergence.",
                    "Not even in one dimension: the rate there is N to the power of -0.8.",
                ),
                Choice(
                    "About half of the divergence.",
                    "The rate is N to the power of -4/12 at best: 46 % remain.",
                    right=True,
                ),
                Choice("No change.", "It does improve, but slowly."),
            ],
        ),
    ]
)

# %% [markdown]
# ## Exercises
#
# Three to try on this page, each with a check of its own.
#
# 1. **Another weight.** Set the weight of the left mode to 0.9 in `two_normals`. Predict the reverse KL of the best fit and the mean of the forward fit before you run it.
# 2. **The wrong sign.** Subtract the log-determinant in `Bend.forward`'s density instead of adding it. Which of the checks fail, and which does not notice?
# 3. **One spike too many.** Fit a mixture to the raw grey levels with `reg_covar` of 1e-2, 1e-4 and 1e-6. Predict by how much the NLL changes each time.
#
# Six more, from bits per dimension to a density from the data alone, tell you at once whether you are right and earn points:
# [the exercises of this chapter](exercises/01_foundations.ipynb).

# %% [markdown]
# ## Summary
#
# - A generative model is a distribution over examples; a discriminative one answers one question about them and cannot say whether the question makes sense.
# - Maximum likelihood minimizes the forward KL divergence, and NLL minus entropy *is* that divergence (1.2). The entropy is the floor.
# - A model that is too small must choose. Forward KL and W1 cover; reverse KL and JSD select, and which mode they select depends on the start.
# - Explicit models give a density, exactly or by a bound; implicit ones only samples. The marginal of a latent variable is hard because of the decoder and the dimension, not because $z$ is continuous.
# - Bits per dimension need the scale of the data and dequantized integers; without either the figure means nothing.
# - A change of variables adds the log-determinant, from data to latent (1.8). Check it by autograd and by integration.
# - Kernel densities and mixtures are excellent in few dimensions. In many, structure helps, and more data does not.
#
# ## Further reading
#
# - {cite:t}`bishop2006pattern`, chapters 1, 2 and 9, on divergences, density estimation and mixtures.
# - {cite:t}`theis2016note` on why likelihood, samples and usefulness are three different things.
# - {cite:t}`goodfellow2016nips` for the tree of models, with GANs at its centre.
