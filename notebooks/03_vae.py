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
# # 3 · Variational autoencoders
#
# The last chapter ended with a decoder that could not be sampled, because nothing had told the codes where to lie. Here the
# distribution of the codes is part of the model from the start. That gives a generator, a likelihood, and a new difficulty:
# the likelihood is an integral that nobody can compute. This chapter replaces it by a bound, trains the bound, and measures
# how much the replacement costs, on a model where the integral *is* known.
#
# **You will be able to**
#
# - derive the evidence lower bound in two ways, and say what the gap is,
# - write it by hand with every sum in its place, and check both of its terms,
# - explain why one gradient estimator works and another is too noisy, with the variances measured,
# - say which distribution a squared error stands for, and what the wrong one costs,
# - recognise posterior collapse in a table of divergences, provoke it, and cure it in two ways,
# - report a test likelihood that can be compared with a published one.
#
# **It builds on** chapter 2, the normal distribution, and the Kullback-Leibler divergence.
#
# **Time**: about 40 seconds in the quick profile and 8 minutes in the full profile, both measured on one CPU core.
#
# [Open this chapter in Colab](https://colab.research.google.com/github/example-org/deep-generative-modelling/blob/main/notebooks/03_vae.ipynb)

# %%
try:
    import google.colab  # noqa: F401

    # %pip install --quiet "course_lib @ git+https://github.com/example-org/deep-generative-modelling"
except ImportError:
    pass  # not on Colab: the library is installed already

# %%
import math
from itertools import pairwise

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from course_lib import data, losses, notebook, plot, probability
from course_lib.data import Batches, Draws
from course_lib.evaluation import c2st, c2st_network
from course_lib.models.vae import VAE, LinearVAE, make_vae
from course_lib.nn import (
    BernoulliPixels,
    GaussianPixels,
    MaskedMLP,
    dense_networks,
)
from course_lib.notebook import check
from course_lib.probability import reparameterize
from course_lib.stacking import stack, unstack
from course_lib.train import Ramp, fit, minimize
from course_lib.widgets import Choice, Explorer, Question, Quiz

run = notebook.setup("vae")

# %% [markdown]
# ## The idea
#
# Tell a story of how an image comes about. First somebody decides *what* to draw: which digit, how slanted, how thick. These
# decisions are a short vector $z$, the **code**, drawn from a simple distribution that we fix in advance, the **prior**
# $p(z) = \mathcal N(0, I)$. Then the image is drawn: a **decoder** network turns $z$ into the parameters of a distribution
# $p(x \mid z)$ over images, and $x$ is drawn from it. To generate, run the story.
#
# To learn, we have to run it backwards. We see only images. Which codes may have produced this one? A second network, the
# **encoder**, answers with a distribution $q(z \mid x)$: not one code, as in chapter 2, but a small cloud of them.

# %% tags=["hide-input"]
notebook.drawing(
    "vae",
    alt="A code z is drawn from the standard normal prior. A decoder turns it into "
    "a distribution p of x given z, from which the data x is drawn with noise. "
    "Below, dashed, an encoder leads back from x to q of z given x: which codes "
    "may have made x?",
)

# %% [markdown]
# The clouds are what repairs the autoencoder. They cannot shrink to points, and they cannot wander off: both cost something,
# as we are about to see. So together they come to cover the region where the prior puts its codes, and a code drawn from the
# prior is one that the decoder has been trained on.

# %% [markdown]
# ## The mathematics
#
# **The integral.** The model's density at an image is a mean over all codes,
#
# $$p(x) = \int p(x \mid z) \, p(z) \, dz . \tag{3.1}$$
#
# Training should raise $\log p(x)$ of the data. But $p(x \mid z)$ contains a neural network, and the integral of a neural network
# times a normal density has no formula. (Not because $z$ is continuous: with a *linear* decoder the integral is easy, and we
# shall use that.) Drawing codes from the prior does not help either: hardly any of them has anything to do with the $x$ at hand.
#
# **The bound, first way: an identity.** Take any density $q(z \mid x)$. Since $p(x) = p(x, z) / p(z \mid x)$ for every $z$,
#
# $$\log p(x) = \mathbb E_{q} \left[\log \frac{p(x, z)}{q(z \mid x)}\right]
# + \mathbb E_{q} \left[\log \frac{q(z \mid x)}{p(z \mid x)}\right] . \tag{3.2}$$
#
# The last term is $\mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x)) \ge 0$. So the first one, the **evidence lower bound** or **ELBO**, lies below
# $\log p(x)$, and the gap is exactly the divergence of our cloud from the true posterior:
#
# $$\log p(x) - \mathrm{ELBO}(x) = \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x)) . \tag{3.3}$$
#
# **The bound, second way: Jensen.** Write (3.1) as a mean under $q$, and use that the logarithm of a mean is at least the
# mean of the logarithm:
#
# $$\log p(x) = \log \mathbb E_{q} \left[\frac{p(x, z)}{q(z \mid x)}\right]
# \ge \mathbb E_{q} \left[\log \frac{p(x, z)}{q(z \mid x)}\right] = \mathrm{ELBO}(x) . \tag{3.4}$$
#
# The second way shows how to tighten the bound. Average $k$ such ratios *inside* the logarithm: the mean fluctuates less, and
# Jensen's inequality costs less. This is the **importance-weighted bound** {cite}`burda2016importance`
#
# $$\mathrm{IWAE}_k(x) = \mathbb E_{z_1, \dots, z_k \sim q} \log \frac1k \sum_{j=1}^k \frac{p(x, z_j)}{q(z_j \mid x)},
# \qquad \mathrm{ELBO} = \mathrm{IWAE}_1 \le \mathrm{IWAE}_k \le \log p(x) . \tag{3.5}$$
#
# **The two terms.** With $p(x, z) = p(x \mid z) \, p(z)$ the ELBO splits:
#
# $$\mathrm{ELBO}(x) = \underbrace{\mathbb E_{q} \log p(x \mid z)}_{\text{how well codes of } x \text{ explain } x}
# - \underbrace{\mathrm{KL}(q(z \mid x) \,\|\, p(z))}_{\text{how much } x \text{ moves the code}} . \tag{3.6}$$
#
# The second term is the price of a code, in nats. It grows when the cloud shrinks and when it moves away from the origin.
# For $q = \mathcal N(\mu, \operatorname{diag} \sigma^2)$, everything in $\mathbb E_q [\log q(z) - \log p(z)]$ is the mean of a square:
# $\mathbb E (z_k - \mu_k)^2 / \sigma_k^2 = 1$ and $\mathbb E z_k^2 = \mu_k^2 + \sigma_k^2$. So {cite}`kingma2014auto`
#
# $$\mathrm{KL} = \sum_{k=1}^K \tfrac12 \left(\mu_k^2 + \sigma_k^2 - \log \sigma_k^2 - 1\right) . \tag{3.7}$$
#
# **The gradient.** The first term of (3.6) is a mean over $q$, and $q$ itself depends on the parameters. Draw the randomness
# *first* and move it afterwards:
#
# $$z = \mu + \sigma \epsilon, \quad \epsilon \sim \mathcal N(0, I) \qquad \Rightarrow \qquad
# \nabla \, \mathbb E_{q} [h(z)] = \mathbb E_{\epsilon} \left[\nabla h(\mu + \sigma \epsilon)\right] . \tag{3.8}$$
#
# Now the distribution of $\epsilon$ depends on nothing, and the gradient may move inside. This is the **reparameterization**
# of the draw. The older way differentiates the density instead,
# $\nabla \, \mathbb E_q[h(z)] = \mathbb E_q[h(z) \, \nabla \log q(z)]$, the **score-function estimator**. Both have the right mean. We measure below how
# much they scatter.
#
# **The likelihood.** $p(x \mid z)$ is a choice, and it decides what the first term is:
#
# - **Black-and-white pixels**: each is a Bernoulli variable, and the decoder gives its logit. $\log p(x \mid z)$ is minus the binary
#   cross-entropy, *summed* over pixels.
# - **Real numbers**: a normal with mean $g(z)$ and one standard deviation $\sigma_x$ for all dimensions.
#
# The second choice gives
#
# $$\log p(x \mid z) = -\frac{\| x - g(z) \|^2}{2 \sigma_x^2} - \frac D2 \log 2 \pi \sigma_x^2 . \tag{3.9}$$
#
# A squared error is (3.9) with some $\sigma_x$. Whoever writes down only the squared error has chosen one without knowing. It is better to
# *learn* it {cite}`rybkin2021simple`: for given reconstructions, the best $\sigma_x$ is their root mean squared error.

# %% [markdown]
# ## By hand
#
# The ELBO of black-and-white data, with two linear networks. Every sum is over dimensions; nothing is averaged yet.

# %%
D, K = 20, 3
torch.manual_seed(run.seed)
encoder, decoder = nn.Linear(D, 2 * K), nn.Linear(K, D)
x = torch.rand(128, D).round()


def elbo_by_hand(x):
    mu, logvar = encoder(x).chunk(2, dim=1)  # (B, K) each: log sigma^2, not log sigma
    z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)  # (3.8)
    logits = decoder(z)  # (B, D)
    log_likelihood = (x * logits - nn.functional.softplus(logits)).sum(1)  # (B,)
    kl = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1)  # (3.7), (B,)
    return log_likelihood - kl


# %% [markdown]
# The library's `VAE` is these lines, with the likelihood as a part of its own. From the same draw it must give the same
# numbers, one for each example.

# %%
model = VAE(encoder, decoder, BernoulliPixels(), latent=K)
torch.manual_seed(1)
by_hand = elbo_by_hand(x)
torch.manual_seed(1)
by_library = model.elbo(x)
largest_difference = (by_hand - by_library).abs().max().item()

# %% [markdown]
# And the formula (3.7) must be the mean that it claims to be. We draw a million codes for one example and average
# $\log q(z \mid x) - \log p(z)$.

# %%
mu, logvar = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[-1.0, 0.5, -3.0]])
z = reparameterize(mu.expand(1_000_000, 3), logvar)
zero = torch.zeros(3)
log_ratios = probability.normal_log_prob(z, mu, logvar) - probability.normal_log_prob(
    z, zero, zero
)
closed_form = losses.kl_to_standard_normal(mu, logvar).sum().item()
standard_error = (log_ratios.std() / len(z) ** 0.5).item()
print(f"closed form {closed_form:.4f}, by drawing {log_ratios.mean():.4f} nats")

# %% tags=["nbval-check-output"]
check(
    "the ELBO by hand is the library's, example by example",
    largest_difference < 1e-4,
)
check(
    "the divergence's formula is its Monte Carlo mean, within 5 standard errors",
    abs(log_ratios.mean().item() - closed_form) < 5 * standard_error,
    f"{closed_form:.3f} nats",
)

# %% [markdown]
# ### Two gradients with the same mean
#
# Take $h(z) = -\tfrac12 \|z\|^2$ and $q = \mathcal N(\mu, I)$ in $K$ dimensions. Then $\mathbb E_q [h] = -\tfrac12(\|\mu\|^2 + K)$, and the gradient with
# respect to $\mu$ is $-\mu$. Both estimators should give it; we compare their scatter as $K$ grows.

# %%


def estimates(dims, n=20_000):
    """n estimates of the first component of the gradient, by each estimator."""
    mu = torch.full((dims,), 0.5)
    eps = torch.randn(n, dims)
    z = mu + eps
    h = -0.5 * z.square().sum(1)
    reparameterized = -z[:, 0]  # the gradient of h(mu + eps)
    score_function = h * eps[:, 0]  # h times the gradient of log q, which is z - mu
    with_baseline = (h - h.mean()) * eps[:, 0]  # the same mean, less scatter
    return {
        "reparameterized": reparameterized,
        "score function": score_function,
        "score function, mean of h taken off": with_baseline,
    }


dimensions = [1, 2, 4, 8, 16, 32, 64]
torch.manual_seed(run.seed)
gradients = {dims: estimates(dims) for dims in dimensions}
variances = {
    name: [gradients[dims][name].var().item() for dims in dimensions]
    for name in gradients[1]
}
off = max(
    abs(g.mean().item() + 0.5) / (g.std().item() / len(g) ** 0.5)
    for by_name in gradients.values()
    for g in by_name.values()
)

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=3.2)
plot.curves(
    ax,
    {name: (dimensions, values) for name, values in variances.items()},
    xlabel="dimensions of the code K",
    ylabel="variance of one estimate",
    title="The same gradient, estimated in three ways",
)
ax.set_xscale("log", base=2)
ax.set_yscale("log")
notebook.show(
    figure,
    alt="Variance of one gradient estimate against the number of dimensions, both "
    "axes logarithmic. The reparameterized estimate stays at one; the score "
    "function's grows with the square of the dimension, with a baseline linearly.",
)

# %% tags=["nbval-check-output"]
check(
    "all three have the right mean, within 5 standard errors",
    off < 5,
    f"at most {off:.1f}",
)
check(
    "with 64 dimensions the score function needs over 500 draws for one of the other",
    variances["score function"][-1] > 500 * variances["reparameterized"][-1],
    f"variance {variances['score function'][-1]:.0f} against "
    f"{variances['reparameterized'][-1]:.2f}",
)

# %% [markdown]
# A baseline helps, and still the scatter grows with $K$. The score function only learns *that* a draw was good, one number for all
# dimensions. The reparameterized gradient learns in which direction it would have been better. Its price: $h$ must be differentiable, so
# codes that are discrete need other means.

# %% [markdown]
# ## An oracle: when everything is linear
#
# With a linear decoder, $x = W z + b + \sigma_x \epsilon$ is a normal vector, and (3.1) is known:
#
# $$p(x) = \mathcal N\!\left(x;\, b,\, W W^\top + \sigma_x^2 I\right) . \tag{3.10}$$
#
# This model is called **probabilistic PCA** {cite}`tipping1999probabilistic`. Its true posterior is normal with a mean that is linear in $x$ and a covariance
# that is the same for every $x$, so a linear encoder can be exact. At the optimum there is no gap left {cite}`lucas2019dont`: the ELBO must
# *equal* the likelihood. And if the data comes from such a model, the likelihood must reach minus the data's entropy.
#
# We draw data in ten dimensions with two large directions, and train on five seeds. The five models are so small that starting an operation costs more than
# its arithmetic, so we `stack` them: each linear layer multiplies five matrices at once. Nothing is shared. Every model has its own start and its own rows of the batch.

# %%
D, K = 10, 2
generator = torch.Generator().manual_seed(run.seed)
axes = torch.linalg.qr(torch.randn(D, D, generator=generator)).Q
spread = torch.tensor([3.0, 2.0] + [0.5] * (D - K))
truth = probability.gaussian(
    torch.randn(D, generator=generator), axes @ torch.diag(spread**2) @ axes.T
)
held_out = truth.sample(5000)
best = truth.log_prob(held_out).mean().item()


def linear_vae(seed):
    torch.manual_seed(seed)
    return LinearVAE(D, K)


together = stack([linear_vae(seed) for seed in range(5)])
optimizer = torch.optim.Adam(together.parameters(), lr=0.03, fused=True)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=1500)
early_models = []


def loss(x):
    # the mean over all rows: each of the five models has a fifth of it
    return 5 * together.loss(x)


def remember(k, history):
    if k == 50:
        early_models.extend(unstack(together, s) for s in range(5))


fit(
    minimize(loss, optimizer, schedule=schedule),
    Draws(truth.sample, batch_size=5 * 256, seed=run.seed),
    steps=1500,
    hooks=[remember],
)
linear_models = [unstack(together, s).requires_grad_(False) for s in range(5)]

# %% [markdown]
# First the bounds. We go back to a model that has only begun to train, whose clouds are not yet the true posteriors, and compute the ELBO,
# the importance-weighted bounds, and the exact likelihood (3.10) on held-out data.

# %%
early = early_models[0].requires_grad_(False)
some = held_out[:1000]
draws = [1, 3, 10, 30, 100, 300]
bounds = [
    np.mean([early.log_prob_iw(some, k).mean().item() for _ in range(300 // k)])
    for k in draws
]
elbo = np.mean([early.elbo(some).mean().item() for _ in range(300)])
exact = early.log_prob(some).mean().item()

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=3.2)
plot.curves(
    ax,
    {"importance-weighted bound": (draws, bounds)},
    xlabel="draws k",
    ylabel="nats",
    title="Bounds below the exact likelihood",
)
ax.set_xscale("log")
ax.axhline(exact, color="black", linewidth=1.2, label="exact log p(x)")
ax.axhline(
    elbo, color=plot.COLORS["orange"], linewidth=1.2, linestyle="--", label="ELBO"
)
ax.legend()
notebook.show(
    figure,
    alt="The importance-weighted bound against the number of draws, on a log scale. "
    "It starts at the dashed line of the ELBO and rises to the black line of the "
    "exact log-likelihood, without crossing it.",
)

# %% tags=["nbval-check-output"]
check(
    "with one draw, the importance-weighted bound is the ELBO",
    abs(bounds[0] - elbo) < 0.05,
    f"{bounds[0]:.3f} and {elbo:.3f} nats",
)
check(
    "the bound rises with every step in k",
    all(a < b + 0.005 for a, b in pairwise(bounds)),
)
check(
    "it stays below the exact value and ends within 0.1 nats of it",
    max(bounds) < exact + 0.02 and exact - bounds[-1] < 0.1,
    f"{bounds[-1]:.3f} and {exact:.3f} nats",
)
check(
    "the ELBO of the half-trained model lies at least 0.2 nats below",
    exact - elbo > 0.2,
    f"{exact - elbo:.2f} nats",
)

# %% [markdown]
# Now the five trained models. Two distances should vanish: from the ELBO to the model's own likelihood, which is the encoder's
# fault, and from there to the truth, which is the decoder's.

# %%
exact_values = [model.log_prob(held_out).mean().item() for model in linear_models]
elbo_values = [
    np.mean([model.elbo(held_out).mean().item() for _ in range(20)])
    for model in linear_models
]
gaps = [a - b for a, b in zip(exact_values, elbo_values, strict=True)]
misses = [best - a for a in exact_values]
for seed in range(5):
    print(
        f"seed {seed}: ELBO {elbo_values[seed]:.3f}, exact {exact_values[seed]:.3f}, "
        f"truth {best:.3f} nats"
    )

# %% tags=["nbval-check-output"]
check(
    "on five of five seeds the ELBO is within 0.05 nats of the exact likelihood",
    max(gaps) < 0.05,
    f"at most {max(gaps):.3f}",
)
check(
    "on five of five seeds the likelihood is within 0.05 nats of the truth's",
    max(misses) < 0.05,
    f"at most {max(misses):.3f}",
)

# %% [markdown]
# ### The decoder's mean is not a sample
#
# A trained VAE is often sampled by decoding a code and showing the mean $g(z)$. That leaves out the last line of the story: $x$ is drawn
# from $p(x \mid z)$, *around* the mean. On two clusters in the plane the difference is easy to measure. A classifier by nearest
# neighbours tries to tell the model's samples from real ones (chapter 2); 0.5 means that it cannot.

# %%
clusters = data.toy("two-clusters-diagonal")


def train_toy(seed, steps=1500):
    torch.manual_seed(seed)
    model = make_vae(dense_networks, (2,), 2, GaussianPixels(), hidden=[64, 64])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    batches = Draws(clusters.sample, batch_size=256, seed=seed)
    fit(minimize(model.loss, optimizer, schedule=schedule), batches, steps)
    return model.requires_grad_(False)


toy_model = train_toy(run.seed)
real, other_real = clusters.sample(4000), clusters.sample(4000)
with_noise = toy_model.sample(4000)
means_only = toy_model.decode(torch.randn(4000, 2))
told_apart = {
    "means only": c2st(real, means_only).accuracy,
    "samples": c2st(real, with_noise).accuracy,
    "real against real": c2st(real, other_real).accuracy,
}

# %% tags=["hide-input"]
figure, panels = plot.subplots(1, 3, height=2.7)
for ax, (title, points) in zip(
    panels,
    {"real": real, "samples": with_noise, "means only": means_only}.items(),
    strict=True,
):
    plot.points(ax, {"": points[:1500]}, title=title, size=3)
    ax.set(xlim=(-6, 6), ylim=(-6, 6))
    if ax.get_legend():
        ax.get_legend().remove()
notebook.show(
    figure,
    alt="Three scatter plots. Real data: two round clusters on the diagonal. "
    "Samples of the model: nearly the same. Decoded means alone: all on "
    "a thin line through both clusters.",
)

# %% tags=["nbval-check-output"]
check(
    "leaving the noise out is seen: accuracy higher by at least 0.02",
    told_apart["means only"] > told_apart["samples"] + 0.02,
    f"{told_apart['means only']:.3f} against {told_apart['samples']:.3f}, "
    f"real against real {told_apart['real against real']:.3f}",
)
check(
    "with the noise the model is close: accuracy below 0.6",
    told_apart["samples"] < 0.6,
)

# %% [markdown]
# ## Images
#
# Now handwritten digits, in black and white. A grey value $g$ between 0 and 1 becomes a coin that shows white with probability $g$, and the
# coins of the *training* images are tossed anew for every batch. The test images are tossed once and stay. This matters for the figures: a
# likelihood of binary images, of images binarized once, or of grey images are three different things. The literature that we compare
# with uses the first {cite}`burda2016importance`.

# %%
name = run.pick(quick="digits", full="mnist")
steps = run.pick(quick=1200, full=10_000)
hidden = run.pick(quick=[128], full=[400])
latent = run.pick(quick=8, full=40)  # K
lr = run.pick(quick=2e-3, full=6e-3)

x_train, y_train = data.images(name).to(run.device)
grey_test, y_test = data.images(name, split="test").to(run.device)
torch.manual_seed(run.seed)
x_test = grey_test.bernoulli()  # tossed once
shape = x_train.shape[1:]
D = math.prod(shape)


def train(model, *inputs, steps=steps, beta=1.0):
    """Train on coins tossed anew for every batch."""
    model = model.to(run.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)

    def loss(x, *c):  # labels c, if there are any
        return model.loss(x.bernoulli(), *c, beta=beta)

    fit(
        minimize(loss, optimizer, schedule=schedule, clip=100.0),
        Batches(*inputs, batch_size=128, seed=run.seed),
        steps,
    )
    return model.eval().requires_grad_(False)


def new_vae(latent):
    torch.manual_seed(run.seed)
    return make_vae(dense_networks, shape, latent, BernoulliPixels(), hidden=hidden)


# %%
model = train(new_vae(latent), x_train)

# %% [markdown]
# What has it learned? The ELBO on the test images, the tighter importance-weighted bound, and beside them two baselines without any code: all
# images independent coins with the training images' mean brightness, and a mixture of such coins, one for each digit.

# %%
importance_draws = run.pick(quick=50, full=100)
elbo_test = np.mean([model.elbo(x_test).mean().item() for _ in range(5)])
iwae_test = model.log_prob_iw(x_test, importance_draws).mean().item()


def coins(brightness):
    """Log-probability of the test images, independent pixels, (N,)."""
    logits = brightness.clamp(1e-3, 1 - 1e-3).logit().expand_as(x_test)
    return BernoulliPixels().log_prob(x_test, logits)


one_coin = coins(x_train.mean(0)).mean().item()
by_digit = torch.stack(
    [coins(x_train[y_train == digit].mean(0)) for digit in range(10)]
)
ten_coins = (by_digit.logsumexp(0) - math.log(10)).mean().item()
print(f"independent coins                 {one_coin:8.2f} nats")
print(f"ten sets of coins, one per digit  {ten_coins:8.2f} nats")
print(f"VAE, ELBO                         {elbo_test:8.2f} nats")
print(f"VAE, bound with {importance_draws:3d} draws        {iwae_test:8.2f} nats")

# %% tags=["nbval-check-output"]
check(
    "the ELBO beats independent coins by at least 2 nats",
    elbo_test > one_coin + 2,
    f"{elbo_test:.2f} against {one_coin:.2f} nats",
)
check(
    "the importance-weighted bound lies above the ELBO by at least 0.1 nats",
    iwae_test > elbo_test + 0.1,
    f"{iwae_test:.2f} against {elbo_test:.2f} nats",
)

# %% [markdown]
# **How good is that?** On MNIST, tossed anew for every batch as here, {cite:t}`burda2016importance` report a VAE with one layer of 50 codes at
# $-86.76$ nats (their bound with 5,000 draws; two layers of 200 units in each network; 3,280 passes over the data). Ours has one layer of 400 units and 40 codes,
# sees the data about 20 times, in a few minutes on one core, and is judged with 100 draws, which gives a looser bound. A few nats are the price of that. The comparison holds for the full profile only;
# the 8 x 8 digits of the quick profile have other numbers.

# %% tags=["nbval-check-output"]
check(
    "the bound beats ten sets of coins; on MNIST it is within 7 nats of the published",
    iwae_test > ten_coins + 0.2 and (name != "mnist" or 86.76 < -iwae_test < 93.76),
    f"{iwae_test:.2f} nats, coins {ten_coins:.2f}",
)

# %% [markdown]
# ### Samples
#
# The top row shows the probabilities that the decoder gives for codes from the prior; the middle row tosses the coins, which makes a sample; the last
# shows test images.

# %%
torch.manual_seed(run.seed)
z = torch.randn(1000, latent, device=run.device)
probabilities = model.decode(z)
samples = probabilities.bernoulli()

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=2.4)
plot.image_rows(
    ax,
    {
        "probabilities": probabilities[:12],
        "samples": samples[:12],
        "test images": x_test[:12],
    },
    title="Digits from the prior",
)
notebook.show(
    figure,
    alt="Three rows of twelve images: smooth probabilities of sampled digits, the "
    "same with coins tossed for every pixel, and binarized test images.",
)

# %% [markdown]
# How real are they? As in chapter 2, with the accuracy between two halves of the real images beside it as the floor. Two classifiers are asked this
# time, nearest neighbours and a small network, and one more sampler is judged: the independent coins, which no reader would take for digits.

# %%
half = min(len(x_train) // 2, 1000)
shuffled = x_train[torch.randperm(len(x_train), device=run.device)]
real = shuffled[: 2 * half].bernoulli().flatten(1)
coin_images = x_train.mean(0).expand(half, *shape).bernoulli().flatten(1)
candidates = {
    "real images": real[half:],
    "VAE": model.sample(half).flatten(1),
    "independent coins": coin_images,
}
by_neighbours, by_network = {}, {}
for who, images in candidates.items():
    by_neighbours[who] = c2st(real[:half], images, neighbours=5).accuracy
    by_network[who] = c2st_network(real[:half], images, steps=150).accuracy
    print(
        f"{who:18} neighbours {by_neighbours[who]:.2f}, network {by_network[who]:.2f}"
    )

# %% tags=["nbval-check-output"]
check(
    "to a network, samples are harder to tell from real images than coins: by 0.02",
    by_network["VAE"] < by_network["independent coins"] - 0.02,
    f"accuracy {by_network['VAE']:.2f} against {by_network['independent coins']:.2f}, "
    f"real against real {by_network['real images']:.2f}",
)

# %% [markdown]
# On MNIST, look at the neighbours' verdict on the coins: they cannot tell them from digits at all. An image of coins lies at a middling distance from everything, so its
# nearest neighbours, and those of the digits, are mostly digits, and everything is called real. An accuracy of 0.5 says that *this* classifier sees nothing, not that there is
# nothing to see. The chapter on evaluation comes back to this.

# %% [markdown]
# ### Directions in code space
#
# A code is a description, so changing the description should change the image in a predictable way. Take an attribute that can be measured: the
# amount of ink. The mean code of images with much ink, minus the mean code of images with little, is a direction. Move the codes of test images along it,
# either way, and measure the ink again.

# %%
ink = x_train.flatten(1).sum(1)
bold, thin = x_train[ink > ink.quantile(0.7)], x_train[ink < ink.quantile(0.3)]


def mean_code(x):
    return model.encode(x.bernoulli())[0].mean(0)


direction = mean_code(bold[:5000]) - mean_code(thin[:5000])
far = run.pick(quick=2.5, full=1.5)  # standard deviations of the prior
direction = far * direction / direction.norm()
codes = model.encode(x_test[:500])[0]
changed = {step: model.decode(codes + step * direction) for step in (-1, 0, 1)}
mean_ink = {step: p.flatten(1).sum(1).mean().item() for step, p in changed.items()}
print({step: round(value, 1) for step, value in mean_ink.items()})

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=2.4)
plot.image_rows(
    ax,
    {
        "less ink": changed[-1][:12],
        "as it was": changed[0][:12],
        "more ink": changed[1][:12],
    },
    title="One direction of the code: ink",
)
notebook.show(
    figure,
    alt="Three rows of the same twelve digits: thin strokes, strokes as they were, and bold strokes.",
)

# %% tags=["nbval-check-output"]
check(
    "along the direction the ink grows by at least 8 % from end to end",
    mean_ink[1] > 1.08 * mean_ink[-1],
    f"{mean_ink[-1]:.1f}, {mean_ink[0]:.1f}, {mean_ink[1]:.1f} white pixels",
)

# %% [markdown]
# ### A digit to order
#
# Give both networks the label as well, and the model becomes $p(x \mid c)$: the **conditional VAE** {cite}`sohn2015learning`. The code no longer has to say *which* digit it is,
# only how it is drawn. The label, one-hot, is appended to the pixels for the encoder and to the code for the decoder; nothing else changes. We ask for digits and let a nearest-neighbour classifier, trained on real grey images, read the decoder's means.

# %%
torch.manual_seed(run.seed)
conditional = train(
    make_vae(
        dense_networks, (D,), latent, BernoulliPixels(), hidden=hidden, classes=10
    ),
    x_train.flatten(1),
    y_train,
    steps=run.pick(quick=500, full=6000),
)
reader = KNeighborsClassifier(3).fit(
    x_train[:10_000].flatten(1).cpu(), y_train[:10_000].cpu()
)
wanted = torch.arange(10, device=run.device).repeat(40)
z = torch.randn(len(wanted), latent, device=run.device)
written = conditional.decode(z, wanted)  # (N, D)
correct = reader.score(written.cpu(), wanted.cpu())
real_correct = reader.score(grey_test[:1000].flatten(1).cpu(), y_test[:1000].cpu())

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=2.4)
tiles = written.view(-1, 10, *shape[1:])  # one row of 0 to 9 after the other
plot.image_rows(
    ax,
    {f"draw {i + 1}": tiles[i] for i in range(3)},
    title="Digits to order: the decoder's means, one label a column",
)
notebook.show(
    figure,
    alt="Three rows of the digits 0 to 9 in order, each row drawn differently.",
)

# %% tags=["nbval-check-output"]
check(
    "at least 70 % of the digits written to order are read as ordered; chance is 10 %",
    correct > 0.7,
    f"{100 * correct:.0f} %, real test images {100 * real_correct:.0f} %",
)

# %% [markdown]
# ## What goes wrong
#
# ### A mean where a sum belongs
#
# Much tutorial code averages the reconstruction error over pixels and the divergence over codes, with `mean()` in both places. It looks harmless. Call the two sums $R$
# and $\mathrm{KL}$. The averaged loss is
#
# $$\frac{R}{D} + \frac{\mathrm{KL}}{K} = \frac1D \left(R + \frac DK \, \mathrm{KL}\right), \tag{3.11}$$
#
# the loss of a **$\beta$-VAE** {cite}`higgins2017beta` with $\beta = D / K$: an accident of two shapes. It is no bound on anything, and the price of a code has been
# multiplied. First the identity, then its consequence.

# %%
toy = new_vae(latent)
batch = x_train[:64].bernoulli()
torch.manual_seed(1)
log_likelihood, kl = toy.terms(batch)  # (B,), (B, K)
averaged_loss = -(log_likelihood / D).mean() + kl.mean()
torch.manual_seed(1)
beta_loss = toy.loss(batch, beta=D / latent)
identity_error = abs(averaged_loss.item() * D / beta_loss.item() - 1)

averaged = train(
    new_vae(latent), x_train, steps=run.pick(quick=400, full=1500), beta=D / latent
)


def divergences(model):
    """Mean divergence of each code on the test images, largest first, (K,)."""
    return model.terms(x_test)[1].mean(0).sort(descending=True).values.cpu()


def active(kl):
    """Codes that carry at least 0.05 nats."""
    return int((kl > 0.05).sum())


kl_sum, kl_averaged = divergences(model), divergences(averaged)
print(f"sums:  KL {kl_sum.sum():6.2f} nats, {active(kl_sum)} of {latent} codes in use")
print(
    f"means: KL {kl_averaged.sum():6.2f} nats, {active(kl_averaged)} of {latent} codes in use, "
    f"beta = {D / latent:.1f}"
)

# %% tags=["nbval-check-output"]
check(
    "averaging both terms is a beta-VAE with beta = D / K, to rounding",
    identity_error < 1e-4,
)
check(
    "with the averaged loss at most a quarter of the information is left",
    kl_averaged.sum() < 0.25 * kl_sum.sum(),
    f"{kl_averaged.sum():.2f} of {kl_sum.sum():.2f} nats",
)

# %% [markdown]
# ### The price of a code: rate and distortion
#
# So let us choose $\beta$ on purpose. The divergence is a **rate**: the nats that the code says about an image, on average. The reconstruction
# term is a **distortion**: the nats that are still needed to write the image down once the code is known. {cite:t}`alemi2018fixing` read the VAE this way. $\beta$ sets the price of rate.
#
# The models of a sweep are stacked, as the linear ones were. They start from the same weights and see the same images with the same coins; only the price differs, and the draws of the codes.

# %%


def train_at_prices(betas, latent, steps):
    """One VAE for each price, by price."""
    together = stack([new_vae(latent) for _ in betas]).to(run.device)
    optimizer = torch.optim.Adam(together.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    price = torch.tensor(betas, device=run.device).repeat_interleave(128)  # (S B,)

    def loss(x):
        x = x.bernoulli().repeat(len(betas), 1, 1, 1)  # (S B, 1, H, W)
        log_likelihood, kl = together.terms(x)  # (S B,), (S B, K)
        return len(betas) * (price * kl.sum(1) - log_likelihood).mean()

    batches = Batches(x_train, batch_size=128, seed=run.seed)
    fit(minimize(loss, optimizer, schedule=schedule), batches, steps)
    models = [unstack(together, s).requires_grad_(False) for s in range(len(betas))]
    return dict(zip(betas, models, strict=True))


betas = [0.1, 0.3, 1.0, 3.0, 10.0]
sweep = train_at_prices(betas, latent, steps=run.pick(quick=1000, full=1500))
rate, distortion, sharpness = {}, {}, {}


def edges(x):
    """Mean absolute step between neighbouring pixels."""
    return (x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean()).item()


for beta, swept in sweep.items():
    log_likelihood, kl = swept.terms(x_test)
    rate[beta], distortion[beta] = (
        kl.sum(1).mean().item(),
        -log_likelihood.mean().item(),
    )
    sharpness[beta] = edges(swept(x_test)) / edges(grey_test)
    print(
        f"beta {beta:4}: rate {rate[beta]:6.2f}, distortion {distortion[beta]:6.2f}, "
        f"sum {rate[beta] + distortion[beta]:6.2f} nats; edges {sharpness[beta]:.2f}"
    )

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=3.4)
plot.curves(
    ax,
    {
        "trained with beta": (
            [rate[b] for b in betas],
            [distortion[b] for b in betas],
        )
    },
    xlabel="rate: KL, nats per image",
    ylabel="distortion, nats per image",
    title="What a nat of code buys",
)
for beta in betas:
    ax.annotate(
        f"β = {beta:g}",
        (rate[beta], distortion[beta]),
        xytext=(6, 4),
        textcoords="offset points",
    )
ax.plot([rate[b] for b in betas], [distortion[b] for b in betas], "o", color="black")
total = rate[1.0] + distortion[1.0]
line = np.array([min(rate.values()), max(rate.values())])
ax.plot(line, total - line, "--", color="black", linewidth=1, label="same sum as β = 1")
ax.set_ylim(0.9 * min(distortion.values()), 1.05 * max(distortion.values()))
ax.legend()
notebook.show(
    figure,
    alt="Distortion against rate for five values of beta. A falling, convex curve "
    "from little rate and much distortion at beta 10 to much rate and little "
    "distortion at beta 0.1. It touches a dashed line of constant sum at beta 1.",
)

# %% tags=["nbval-check-output"]
check(
    "a higher price buys less rate and leaves more distortion, all along the sweep",
    all(
        rate[a] > rate[b] and distortion[a] < distortion[b] for a, b in pairwise(betas)
    ),
)
check(
    "the bound, minus rate minus distortion, is best at beta = 1",
    min(betas, key=lambda b: rate[b] + distortion[b]) == 1.0,
)

# %% [markdown]
# The dashed line joins all points with the same ELBO. Its slope is $-1$: at $\beta = 1$ one nat of rate saves one nat of distortion, and that is the only point
# at which the loss is the bound. Left of it, codes are too dear; right of it, they are bought at a loss.
#
# **Blur.** The last column printed above compares the edges in the reconstructions with those in the grey images. It falls with the rate. That is all there
# is to the blur of a VAE: the decoder's mean averages over everything that the code leaves open. Less code, more left open. It is no property of the squared error, and
# a sharper picture of the *mean* is not a better model. Blur belongs to the mean; a sample, with its coins tossed, is not blurred but noisy.

# %% tags=["nbval-check-output"]
check(
    "edges fade as the rate falls, all along the sweep",
    all(sharpness[a] > sharpness[b] for a, b in pairwise(betas)),
    ", ".join(f"{sharpness[b]:.2f}" for b in betas),
)

# %% [markdown]
# ### Posterior collapse, predicted exactly
#
# Set the price too high and codes go out of use one by one: $q(z_k \mid x) = p(z_k)$, the divergence of that dimension is zero, and the decoder does not listen to it. This is **posterior
# collapse**. In the linear model it can be predicted. With $\sigma_x$ fixed, the best $W$ of (3.10) keeps exactly those principal directions whose variance $\lambda_i$ exceeds
# $\sigma_x^2$ {cite}`tipping1999probabilistic`; a direction below the noise is not worth its price. Nothing about this is a failure of the optimizer or of the bound {cite}`lucas2019dont`.

# %%
spread = torch.tensor([4.0, 2.6, 1.7, 1.1, 0.7, 0.4])
sigmas = [0.25, 0.53, 0.88, 1.37, 2.1, 3.2, 5.0]


def linear_vae_with(sigma):
    torch.manual_seed(run.seed)
    linear = LinearVAE(6, 6, sigma=sigma)
    linear.likelihood.requires_grad_(False)  # a sigma that somebody chose
    return linear


together = stack([linear_vae_with(sigma) for sigma in sigmas])  # seven models as one
optimizer = torch.optim.Adam(together.parameters(), lr=0.03, fused=True)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=800)
batches = Batches(spread * torch.randn(10_000, 6), batch_size=256, seed=run.seed)


def loss(x):
    return len(sigmas) * together.loss(x.repeat(len(sigmas), 1))


fit(minimize(loss, optimizer, schedule=schedule), batches, 800)
x = spread * torch.randn(5000, 6)
in_use = [active(unstack(together, s).terms(x)[1].mean(0)) for s in range(len(sigmas))]
predicted = [int((spread > sigma).sum()) for sigma in sigmas]
print("sigma    ", *sigmas, sep="\t")
print("predicted", *predicted, sep="\t")
print("in use   ", *in_use, sep="\t")

# %% tags=["nbval-check-output"]
check(
    "the number of codes in use is the predicted one for every sigma",
    in_use == predicted,
)

# %% [markdown]
# So the first question about a collapsed model is whether collapse is the *answer*. With a Gaussian likelihood and a $\sigma_x$ that is too large, it is; learn $\sigma_x$.
#
# ### Posterior collapse as a trap
#
# There is another kind. A strong decoder, one that sees the values drawn so far besides the code, can explain much without any
# code. {cite:t}`bowman2016generating` met this with sentences: the next word is guessed from the words before, and the code goes
# silent. Early in training the code is noise; the decoder learns to do without it; the encoder, who pays for every nat, learns to say nothing.
#
# A problem with an exact answer shows it bare. The data are random walks of ten steps: each value is the one before plus a standard
# normal step. A decoder that sees the value before needs no code at all. A code can *also* say where the walk goes. Both ways can reach
# exactly the same likelihood, so nothing but the path of training decides. (The mask that lets $x_i$ see $x_1, \dots, x_{i-1}$ only is the subject of the next chapter.)

# %%


class StrongDecoder(nn.Module):
    """A linear function of the code, plus one of the values that come before."""

    def __init__(self, from_code):
        super().__init__()
        self.from_code = from_code
        self.from_past = MaskedMLP(10, 1, hidden=[])

    def forward(self, z, x):
        return self.from_code(z) + self.from_past(x)[:, :, 0]


class FirstOnly(nn.Module):
    """A network that is shown two things and looks at the first: a weak decoder."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, first, _):
        return self.network(first)


walk = torch.tril(torch.ones(10, 10))  # x = walk @ eps: the sum of the steps so far
walks = probability.gaussian(torch.zeros(10), walk @ walk.T)
seen, unseen = walks.sample(20_000), walks.sample(5000)


def train_on_walks(decoder, *, beta=lambda: 1.0, free_bits=0.0, steps=1000):
    torch.manual_seed(run.seed)
    linear = LinearVAE(10, 4)
    parts = FirstOnly(linear.encoder), decoder(linear.decoder), GaussianPixels()
    model = VAE(*parts, latent=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=steps)

    def loss(x):  # the second x is what the decoder may look at
        return model.loss(x, x, beta=beta(), free_bits=free_bits)

    step = minimize(loss, optimizer, schedule=schedule)
    fit(step, Batches(seen, batch_size=256, seed=run.seed), steps)
    return model.requires_grad_(False)


# %% [markdown]
# Two cures. **Annealing** lets the price $\beta$ grow from 0 to 1 during the first half of training, so that codes are learned before they must
# be paid for {cite}`bowman2016generating`. **Free bits** charge nothing for the first $\lambda$ nats of every code, so that going silent gains
# nothing {cite}`kingma2016improved`.

# %%
on_walks = {
    "weak decoder": train_on_walks(FirstOnly),
    "strong decoder": train_on_walks(StrongDecoder),
    "strong, annealed": train_on_walks(StrongDecoder, beta=Ramp(500)),
    "strong, free bits": train_on_walks(StrongDecoder, free_bits=0.75),
}
kl_by_code, bound = {}, {}
for how, walker in on_walks.items():
    kl = walker.terms(unseen, unseen)[1].mean(0)  # (K,)
    kl_by_code[how] = kl.sort(descending=True).values
    bounds = [walker.elbo(unseen, unseen).mean().item() for _ in range(10)]
    bound[how] = np.mean(bounds)
    print(f"{how:18} KL {kl.sum():.2f} nats, ELBO {bound[how]:.3f}")
entropy_line = walks.log_prob(unseen).mean().item()
print(f"{'the truth':18}               {entropy_line:.3f}")

# %% tags=["hide-input"]
figure, (ax,) = plot.subplots(height=3.0)
for i, (how, kl) in enumerate(kl_by_code.items()):
    ax.bar(
        np.arange(4) + 0.2 * (i - 1.5),
        kl,
        width=0.18,
        color=list(plot.COLORS.values())[i],
        label=how,
    )
ax.set(
    xticks=range(4),
    xticklabels=["1st code", "2nd", "3rd", "4th"],
    ylabel="KL of the code, nats",
    title="Collapse, seen code by code",
)
ax.legend()
notebook.show(
    figure,
    alt="Bars of the divergence of four codes, sorted, for four models. With the "
    "weak decoder they carry up to two nats; with the strong decoder each is below "
    "one; with annealing and with free bits all four are near one again.",
)

# %% tags=["nbval-check-output"]
strong_kl = kl_by_code["strong decoder"].sum()
check(
    "the strong decoder makes its codes say at most half as much as the weak one's",
    strong_kl < 0.5 * kl_by_code["weak decoder"].sum(),
    f"{strong_kl:.2f} of {kl_by_code['weak decoder'].sum():.2f} nats",
)
check(
    "annealing makes them say at least 1.5 times as much again",
    kl_by_code["strong, annealed"].sum() > 1.5 * strong_kl,
    f"{kl_by_code['strong, annealed'].sum():.2f} nats",
)
check(
    "so do free bits",
    kl_by_code["strong, free bits"].sum() > 1.5 * strong_kl,
    f"{kl_by_code['strong, free bits'].sum():.2f} nats",
)
check(
    "and all three strong models reach the likelihood of the truth, within 0.05 nats",
    all(abs(bound[how] - entropy_line) < 0.05 for how in list(bound)[1:]),
)

# %% [markdown]
# The last line is the lesson. With a strong decoder the silent code and the talking code have *the same* likelihood, to the second decimal. A likelihood does not reward a
# useful code. Whoever wants codes must ask for them, by a weaker decoder or by one of the cures; whoever wants a density need not mind.
#
# > **Common mistake.** "Posterior collapse makes the VAE a deterministic autoencoder." It is the other way round. A deterministic autoencoder is the limit of a price that goes to zero;
# > collapse is the limit of a price that is too high. Nor does a larger $K$ help: more codes go unused.
#
# ### Holes in the prior
#
# Chapter 2's autoencoder failed because its codes did not fill a known region. Has that been repaired? Average the clouds of all images: the result, the **aggregate posterior**
# $q(z) = \mathbb E_x \, q(z \mid x)$, should be the prior. The two-sample test decides: can it tell codes of real images from draws of the prior?

# %%


def codes_against_prior(model):
    """Accuracy with which codes of test images are told from draws of the prior."""
    codes = reparameterize(*model.encode(x_test[:1000]))
    return c2st_network(torch.randn_like(codes), codes, steps=150)


holes = {beta: codes_against_prior(sweep[beta]) for beta in (0.1, 1.0, 10.0)}
for beta, test in holes.items():
    print(
        f"beta {beta:4}: accuracy {test.accuracy:.3f} ({test.low:.3f} to {test.high:.3f})"
    )

# %% tags=["nbval-check-output"]
check(
    "at a tenth of the price the codes of images are told from the prior: holes",
    holes[0.1].low > 0.5 and holes[0.1].accuracy > holes[10.0].accuracy + 0.03,
    f"accuracy {holes[0.1].accuracy:.2f} at 0.1, {holes[1.0].accuracy:.2f} at 1, "
    f"{holes[10.0].accuracy:.2f} at 10",
)

# %% [markdown]
# The price $\beta$ is what holds the codes to the prior. Cheap codes leave holes, as in chapter 2, where they cost nothing. Where the prior has codes and no image does, the decoder improvises; those are the shapes between two digits among the samples above.
# It is *not* the forward divergence that forgets modes: maximum likelihood punishes a missing mode without bound. It is the mismatch between $q(z)$ and $p(z)$, and a better prior mends it {cite}`tomczak2018vae`.
#
# ### A discrete code *(to read)*
#
# The **VQ-VAE** {cite}`oord2017neural` replaces the cloud by a lookup. The encoder's output is rounded to the nearest of $M$ vectors in a learned table. Rounding has no gradient, so the decoder's gradient is copied straight through to
# the encoder; two more terms pull the table to the encoder's outputs and the outputs to the table. With a uniform prior the KL is a constant, $\log M$ for each position, so nothing can collapse for its sake; but
# table entries can die instead. The prior over the discrete codes is learned afterwards, by a model of the next chapter's kind.

# %% [markdown]
# ## Explore
#
# Two codes only, so that the whole code space can be drawn. Each picture decodes a grid of quantiles of the prior. Move the slider: what does the price of a code do to the map?

# %%
grid_betas = [0.1, 1.0, 4.0, 16.0]
flat_models = train_at_prices(grid_betas, 2, steps=run.pick(quick=400, full=3000))
n = 10
quantiles = torch.distributions.Normal(0, 1).icdf((torch.arange(n) + 0.5) / n)
grid = torch.cartesian_prod(-quantiles, quantiles).flip(1).to(run.device)  # (n * n, 2)


def draw_map(beta):
    figure, (ax,) = plot.subplots(width=4.2, height=4.2)
    tiles = flat_models[beta].decode(grid)[:, 0].view(n, n, *shape[1:])
    plot.image_rows(ax, {" " * i: row for i, row in enumerate(tiles)})
    ax.set_yticks([])
    kl = flat_models[beta].terms(x_test)[1].sum(1).mean()
    ax.set_title(f"β = {beta:g}: KL {kl:.1f} nats")
    return figure


Explorer(
    draw_map,
    grid_betas,
    label="price of a code, β",
    alt="A ten by ten map of decoded digits over a code of two numbers, trained with beta {}.",
    start=1,
)

# %% [markdown]
# ## Quiz

# %% tags=["remove-input"] jupyter={"source_hidden": true}
# @title Quiz {display-mode: "form"}
Quiz(
    [
        Question(
            "The ELBO of your VAE rises by 3 nats on test data. What do you know about its likelihood?",
            [
                Choice(
                    "It rose by 3 nats.",
                    "The gap (3.3) may have changed as well; the bound can rise because the encoder got better.",
                ),
                Choice(
                    "It rose by at least 3 nats.",
                    "A bound that rises may only have come closer to a likelihood that stands still.",
                ),
                Choice(
                    "It is at least as large as the new ELBO, and nothing more.",
                    "The importance-weighted bound with many draws would say more.",
                    right=True,
                ),
            ],
        ),
        Question(
            "A colleague writes `loss = F.mse_loss(x_hat, x) + kl.mean()` with D = 784 pixels and K = 20 codes. What is wrong?",
            [
                Choice(
                    "Nothing; a constant factor only changes the learning rate.",
                    "A common factor would. Here the two terms get different factors, 1/D and 1/K.",
                ),
                Choice(
                    "The price of a code is D / K times that of a Gaussian with σ² = ½: codes will collapse.",
                    "σ² = β D / (2 K) is implied, by the shapes alone.",
                    right=True,
                ),
                Choice(
                    "Squared error is not a likelihood.",
                    "It is one, up to a constant: a normal with a fixed variance.",
                ),
            ],
        ),
        Question(
            "Half of your 40 codes have a KL of 0.00 nats on test data. What do you do first?",
            [
                Choice(
                    "Increase K to 80.",
                    "The model has unused codes already.",
                ),
                Choice(
                    "Ask whether the data needs more: compare the ELBO with that of a smaller K, and with annealing.",
                    "Unused codes cost nothing. If nothing improves the bound, they were not needed.",
                    right=True,
                ),
                Choice(
                    "Lower β until all are in use.",
                    "That buys rate at a loss: the objective is no longer the bound.",
                ),
            ],
        ),
        Question(
            "Why not use the score-function gradient, which needs no differentiable decoder?",
            [
                Choice(
                    "It is biased.",
                    "Both estimators have the right mean; you measured it.",
                ),
                Choice(
                    "Its variance grows with the number of codes, so it needs far more draws.",
                    "With 64 dimensions the variance was over 500 times as large, even for a simple function.",
                    right=True,
                ),
                Choice(
                    "It cannot be computed by automatic differentiation.",
                    "It can: differentiate log q(z) times a constant.",
                ),
            ],
        ),
    ]
)

# %% [markdown]
# ## Exercises
#
# Two to try on this page.
#
# 1. **A bound that is too good.** Change `log_prob_iw` so that it draws the codes from the prior instead of $q$. Predict how many draws it needs on the linear oracle to come within 0.1 nats; then measure.
# 2. **A discrete code.** Replace the cloud by a table of 64 vectors for each of four positions (the VQ-VAE above), and compare the reconstruction error with a VAE whose KL is near $4 \log 64 \approx 16.6$ nats.
#
# Six more, from the divergence to the importance-weighted bound, tell you at once whether you are right and earn points:
# [the exercises of this chapter](exercises/03_vae.ipynb).

# %% [markdown]
# ## Summary
#
# - A VAE is a latent-variable model; its likelihood is an integral (3.1), hard because the decoder is a network.
# - The ELBO is a lower bound; the gap is the divergence of the encoder's cloud from the true posterior (3.3). In the linear model both are known, and the gap closes.
# - Sums over dimensions, one mean over the batch. A mean in both terms is a hidden $\beta = D / K$.
# - The reparameterized gradient works because it knows a direction; its variance does not grow with the number of codes.
# - $\beta$ is the price of rate. The loss is a bound at $\beta = 1$ only.
# - Collapse is the right answer when a code is not worth its price, and a trap when a strong decoder learns too fast. Divergences per code show it; annealing and free bits cure the trap.
# - The decoder's mean is not a sample.
#
# ## Further reading
#
# - {cite:t}`kingma2014auto` and {cite:t}`rezende2014stochastic`, who introduced the model in the same year.
# - {cite:t}`burda2016importance` on tighter bounds; {cite:t}`lucas2019dont` on what the linear case says about collapse.
# - {cite:t}`alemi2018fixing` on rate and distortion; {cite:t}`tomczak2018vae` on better priors.
