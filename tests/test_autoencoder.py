"""The linear autoencoder against PCA, the denoiser against the exact posterior mean."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from torch import nn

from course_lib import probability
from course_lib.data import Batches, Draws
from course_lib.models.autoencoder import Autoencoder, DenoisingAutoencoder, linear_autoencoder
from course_lib.nn import MLP, ConvDecoder, ConvEncoder, conv_networks, dense_networks
from course_lib.train import Checkpoint, fit, minimize


def correlated_data(seed, n=4000, dim=12):
    g = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(dim, dim, generator=g)).Q
    scales = torch.tensor([3.0, 2.0, 1.5] + [0.5] * (dim - 3))
    return torch.randn(n, dim, generator=g) * scales @ axes.T + torch.randn(dim, generator=g)


@pytest.mark.parametrize("seed", range(5))
def test_linear_autoencoder_reaches_pca(seed):
    # measured over five seeds: at most 0.003 % above PCA on held-out data, at most 0.014 degrees
    x = correlated_data(seed)
    train, held_out = x[:3000], x[3000:]
    torch.manual_seed(seed)
    model = linear_autoencoder(dim=12, latent=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=1500)
    fit(minimize(model.loss, optimizer, schedule=schedule), Batches(train, batch_size=500, seed=seed), 1500)
    pca = PCA(3).fit(train)
    best = np.square(pca.inverse_transform(pca.transform(held_out)) - held_out.numpy()).sum(1).mean()
    with torch.no_grad():
        reached = model.reconstruction_error(held_out).mean().item()
    angle = np.degrees(subspace_angles(model.decoder.weight.detach().numpy(), pca.components_.T).max())
    assert reached < 1.01 * best
    assert angle < 1


@pytest.mark.parametrize("seed", range(5))
def test_denoiser_learns_the_posterior_mean_and_the_score(seed):
    # measured over five seeds: 0.4 % to 0.8 % above the best possible error; score within 0.050 to 0.065
    p = probability.two_clusters(center=(2.0, 1.0), std=0.5)
    torch.manual_seed(seed)
    model = DenoisingAutoencoder(MLP(2, 32, hidden=[64]), MLP(32, 2, hidden=[64]), sigma=0.7)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=800)
    fit(minimize(model.loss, optimizer, schedule=schedule), Draws(p.sample, batch_size=256, seed=seed), 800)
    x = p.sample(20_000)
    noisy = x + 0.7 * torch.randn_like(x)
    with torch.no_grad():
        error = (model(noisy) - x).square().sum(1).mean()
        score = model.score(noisy)
    best = (p.posterior_mean(noisy, alpha_t=1.0, sigma_t=0.7) - x).square().sum(1).mean()
    exact = p.noised(1.0, 0.7).score(noisy)
    assert best < error < 1.02 * best
    assert (score - exact).square().mean().sqrt() < 0.15 * exact.square().mean().sqrt()


def test_loss_sums_over_dimensions_and_averages_over_the_batch():
    model = Autoencoder(nn.Identity(), nn.Identity())
    model.decode = lambda z: z + torch.tensor([1.0, 2.0, 3.0])
    assert model.loss(torch.randn(50, 3)).item() == pytest.approx(1 + 4 + 9, rel=1e-5)
    assert model.reconstruction_error(torch.randn(50, 3)).shape == (50,)


def test_the_denoiser_compares_with_clean_data_and_draws_new_noise():
    model = DenoisingAutoencoder(nn.Identity(), nn.Identity(), sigma=0.3)
    x = torch.randn(200_000, 2)
    assert model.loss(x).item() == pytest.approx(2 * 0.3**2, rel=0.02)
    assert model.loss(x) != model.loss(x)
    zero = DenoisingAutoencoder(nn.Identity(), nn.Identity(), sigma=0.3)
    zero.decode = lambda z: torch.zeros_like(z)
    assert zero.loss(x).item() == pytest.approx(x.square().sum(1).mean().item(), rel=1e-5)
    torch.testing.assert_close(zero.score(x), -x / 0.09)


def test_encode_then_decode_is_forward():
    torch.manual_seed(0)
    model = Autoencoder(nn.Linear(5, 2), nn.Linear(2, 5))
    x = torch.randn(7, 5)
    torch.testing.assert_close(model(x), model.decode(model.encode(x)))
    assert model.encode(x).shape == (7, 2)
    assert not hasattr(model, "sample") and not hasattr(model, "log_prob")


@pytest.mark.parametrize("networks", [dense_networks, conv_networks])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 8, 12)])
def test_networks_fit_images_of_several_sizes_and_use_every_pixel(networks, shape):
    encoder, decoder = networks(shape, 5)
    x = torch.randn(3, *shape, requires_grad=True)
    z = encoder(x)
    x_hat = decoder(z)
    assert z.shape == (3, 5) and x_hat.shape == x.shape
    (gradient,) = torch.autograd.grad(x_hat[0].square().sum(), x)
    assert (gradient[0] != 0).float().mean() > 0.95
    assert (gradient[1:] == 0).all()  # no example sees another


def test_a_network_without_hidden_layers_is_linear():
    net = MLP(3, 2, hidden=[])
    a, b = torch.randn(2, 4, 3)
    torch.testing.assert_close(net(a + b) - net(torch.zeros(4, 3)), net(a) + net(b) - 2 * net(torch.zeros(4, 3)))
    deep = MLP(3, 2, hidden=[4, 5])
    assert [m.weight.shape for m in deep if isinstance(m, nn.Linear)] == [(4, 3), (5, 4), (2, 5)]
    assert not isinstance(deep[-1], nn.SiLU)


def test_the_dense_decoder_mirrors_the_encoder():
    encoder, decoder = dense_networks((1, 8, 8), 3, hidden=[40, 20])
    sizes = [[tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Linear)] for net in (encoder, decoder)]
    assert sizes == [[(40, 64), (20, 40), (3, 20)], [(20, 3), (40, 20), (64, 40)]]


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    def run(path, steps):
        torch.manual_seed(0)
        model = DenoisingAutoencoder(*dense_networks((1, 8, 8), 3, hidden=[16]), sigma=0.2)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        checkpoint = Checkpoint(path, every=7, model=model, optimizer=optimizer)
        batches = Batches(torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), batch_size=16)
        fit(minimize(model.loss, optimizer), batches, steps, history=checkpoint.restore(), hooks=[checkpoint])
        return model.state_dict()

    run(tmp_path / "a.pt", 17)
    torch.randn(3)
    resumed, straight = run(tmp_path / "a.pt", 30), run(tmp_path / "b.pt", 30)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear_autoencoder(dim=3, latent=3), "1 <= latent < dim, got latent 3 and dim 3"),
        (lambda: linear_autoencoder(dim=3, latent=0), "got latent 0"),
        (lambda: DenoisingAutoencoder(nn.Identity(), nn.Identity(), sigma=0.0), "sigma must be positive, got 0.0"),
        (lambda: Autoencoder(nn.Linear(5, 2), nn.Linear(2, 1)).loss(torch.zeros(4, 5)), r"\(4, 1\), the data \(4, 5\)"),
        (lambda: ConvEncoder((1, 30, 28), 2), r"multiples of 4, got an image of shape \(1, 30, 28\)"),
        (lambda: ConvDecoder(2, (1, 28, 27)), "multiples of 4"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
