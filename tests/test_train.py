"""The loop: resumed to the bit, stopped by NaN, watched without being changed."""

import os
import random
import re
import zipfile

import pytest
import torch
from torch import nn

from course_lib import data, train
from course_lib.train import EMA, Checkpoint, CheckpointError, History, NonFiniteError, fit, minimize


class Interrupted(Exception):
    pass


def small_training(path=None, *, every=5, stop_before=None, seed=0):
    """A training with everything that has a state: dropout, momentum, a schedule, clipping, an average."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.3), nn.Tanh(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    ema = EMA(model, decay=0.9)

    def loss(x):
        return (model(x + 0.1 * torch.randn_like(x)) - x).square().sum(1).mean()

    def interrupt(k, history):
        if k + 1 == stop_before:
            raise Interrupted

    hooks = [interrupt]
    history = None
    if path:
        checkpoint = Checkpoint(path, every=every, model=model, optimizer=optimizer, schedule=schedule, ema=ema)
        history, hooks = checkpoint.restore(), [checkpoint, interrupt]
    step = minimize(loss, optimizer, clip=1.0, ema=ema, schedule=schedule)
    batches = data.Draws(data.toy("ring8").sample, batch_size=16)
    history = fit(step, batches, 40, history=history, hooks=hooks)
    return model, ema, history


@pytest.mark.parametrize("seed", range(3))
def test_interrupted_at_a_random_step_and_resumed_equals_uninterrupted_to_the_bit(tmp_path, seed):
    stop = random.Random(seed).randint(6, 39)
    model, ema, history = small_training(tmp_path / "none.pt", every=1000)
    with pytest.raises(Interrupted):
        small_training(tmp_path / "run.pt", stop_before=stop)
    torch.manual_seed(12345)
    again, ema_again, history_again = small_training(tmp_path / "run.pt", seed=99)
    assert len(history_again) == 40
    for name in ("loss", "grad_norm"):
        assert torch.equal(history[name], history_again[name])
    for a, b in ((model, again), (ema.model, ema_again.model)):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_a_finished_training_is_not_run_again(tmp_path):
    _, _, history = small_training(tmp_path / "run.pt")
    _, _, again = small_training(tmp_path / "run.pt", seed=99)
    assert torch.equal(history["loss"], again["loss"])


def test_hooks_do_not_change_what_is_learned():
    def curious(k, history):
        torch.randn(1000)

    def trained(hooks):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        step = minimize(lambda x: model(x).square().mean(), torch.optim.SGD(model.parameters(), lr=0.1))
        fit(step, data.Batches(torch.randn(32, 2), batch_size=8), 20, hooks=hooks)
        return model[0].weight

    assert torch.equal(trained([]), trained([curious]))


@pytest.mark.parametrize("step_of_nan", [0, 3, 49, 50, 119])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_training_and_names_the_step(step_of_nan, value):
    w = torch.tensor(1.0, requires_grad=True)
    seen = []

    def loss(x):
        seen.append(None)
        return w * (value if len(seen) - 1 == step_of_nan else 1.0)

    step = minimize(loss, torch.optim.SGD([w], lr=0.0))
    with pytest.raises(NonFiniteError, match=rf"loss is (nan|inf) at step {step_of_nan}: "):
        fit(step, data.Batches(torch.zeros(4), batch_size=2), 120)
    assert len(seen) <= step_of_nan + 50


def test_the_step_of_a_nan_is_counted_from_the_beginning_after_resuming(tmp_path):
    w = torch.tensor(1.0, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.0)
    part = nn.ParameterList([w])
    batches = data.Batches(torch.zeros(4), batch_size=2)
    checkpoint = Checkpoint(tmp_path / "run.pt", every=10, w=part)
    fit(minimize(lambda x: w * 1, optimizer), batches, 20, hooks=[checkpoint])
    with pytest.raises(NonFiniteError, match="step 20"):
        fit(minimize(lambda x: w * float("nan"), optimizer), batches, 40, history=checkpoint.restore())


def test_no_checkpoint_holds_nan(tmp_path):
    w = torch.tensor(1.0, requires_grad=True)
    step = minimize(lambda x: w * float("nan"), torch.optim.SGD([w], lr=0.1))
    checkpoint = Checkpoint(tmp_path / "run.pt", every=1, w=nn.ParameterList([w]))
    with pytest.raises(NonFiniteError, match="step 0"):
        fit(step, data.Batches(torch.zeros(4), batch_size=2), 3, hooks=[checkpoint])
    assert list(tmp_path.iterdir()) == []


def ruined(value):
    part = nn.Linear(2, 1)
    part.weight.data[0, 1] = value
    return part


def ruined_optimizer(value):
    """Adam, whose first moment holds the value; the parameters themselves stay finite."""
    w = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.0)
    w.grad = torch.tensor([0.0, value])
    optimizer.step()
    with torch.no_grad():
        w.zero_()
    return optimizer


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("make", [ruined, ruined_optimizer])
def test_no_checkpoint_holds_ruined_weights_though_every_loss_was_finite(tmp_path, make, value):
    checkpoint = Checkpoint(tmp_path / "run.pt", every=1, whole=nn.Linear(1, 1), judge=nn.Linear(1, 1))
    history = History()
    history.append({"loss": torch.tensor(1.0)})
    checkpoint(0, history)
    before = (tmp_path / "run.pt").read_bytes()
    checkpoint.parts["judge"] = make(value)
    with pytest.raises(NonFiniteError, match=r"judge holds NaN or infinity after step 6.*learning rate"):
        checkpoint(6, history)
    assert (tmp_path / "run.pt").read_bytes() == before and os.listdir(tmp_path) == ["run.pt"]


def test_what_one_hook_draws_does_not_enter_what_the_next_one_saves(tmp_path):
    def run(name, *others):
        torch.manual_seed(0)
        w = nn.Linear(1, 1)
        step = minimize(lambda x: (w(x) * torch.randn(())).mean(), torch.optim.SGD(w.parameters(), lr=0.1))
        hooks = [*others, Checkpoint(tmp_path / name, every=3, w=w)]
        fit(step, data.Batches(torch.ones(4, 1), batch_size=2), 3, hooks=hooks)
        return torch.load(tmp_path / name, weights_only=True)["random"]["cpu"]

    assert torch.equal(run("plain.pt"), run("curious.pt", lambda k, history: torch.randn(100)))


def test_an_interrupted_write_leaves_the_previous_checkpoint_whole(tmp_path, monkeypatch):
    model = nn.Linear(1, 1)
    checkpoint = Checkpoint(tmp_path / "run.pt", every=1, model=model)
    history = History()
    checkpoint(0, history)
    before = (tmp_path / "run.pt").read_bytes()

    def full_disk(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint(1, history)
    assert (tmp_path / "run.pt").read_bytes() == before
    assert os.listdir(tmp_path) == ["run.pt"]


def test_a_checkpoint_appears_in_one_stroke(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    checkpoint = Checkpoint(path, every=1, model=nn.Linear(1, 1))
    checkpoint(0, History())
    assert os.listdir(tmp_path) == ["run.pt"]
    before = path.read_bytes()

    def interrupted(source, target):
        raise OSError(4, "Interrupted system call")

    monkeypatch.setattr(os, "replace", interrupted)
    checkpoint.parts["model"].weight.data.fill_(7.0)
    with pytest.raises(CheckpointError, match="Interrupted"):
        checkpoint(1, History())
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["run.pt"]


def test_a_damaged_byte_is_noticed_wherever_it_is(tmp_path):
    path = tmp_path / "run.pt"
    model = nn.Linear(50, 50)
    Checkpoint(path, every=1, model=model)(0, History())
    whole = path.read_bytes()
    weights = whole.index(model.weight.detach().numpy().tobytes())
    generator = random.Random(0)
    for place in [weights + 4321, *generator.sample(range(len(whole)), 60)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        again = nn.Linear(50, 50)
        checkpoint = Checkpoint(path, every=1, model=again)
        try:
            checkpoint.restore()
        except CheckpointError as error:
            assert str(path) in str(error) and "delete it" in str(error)
            assert not torch.equal(again.weight, model.weight)
        else:  # a byte that carries nothing, such as padding or a date
            assert place != weights + 4321 and torch.equal(again.weight, model.weight)


def foreign_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "Dear reader")


def broken_foreign_zip(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("letter.txt", "Dear reader, " * 50)
    whole = path.read_bytes()
    start = whole.index(b"letter.txt") + len("letter.txt")
    path.write_bytes(whole[:start] + bytes(8) + whole[start + 8 :])


def unfinished(path):
    torch.save({"history": {"steps": 3}, "parts": {}, "random": {}}, path)


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (foreign_zip, "RuntimeError"),
        (broken_foreign_zip, "error: Error -3 while decompressing"),
        (
            lambda path: torch.save(nn.Linear(1, 1).state_dict(), path),
            r"holds a dictionary of \['bias', 'weight'\], not",
        ),
        (lambda path: torch.save([1, 2], path), "holds list, not of history, parts and random"),
        (lambda path: torch.save(torch.zeros(3), path), "holds Tensor, not"),
        (lambda path: torch.save({"loss": [1.0]}, path, _use_new_zipfile_serialization=False), "not a zip file"),
        (lambda path: torch.save(print, path), "Unpickling"),
        (unfinished, "KeyError: 'series'"),
    ],
)
def test_a_file_of_another_program_is_no_checkpoint(tmp_path, write, found):
    path = tmp_path / "run.pt"
    write(path)
    model = nn.Linear(1, 1)
    before = model.weight.item()
    message = rf"run.pt is not a whole checkpoint \(.*{found}.*delete it .* another file"
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(path, every=1, model=model).restore()
    assert model.weight.item() == before and path.exists()


def test_bad_checkpoints_are_named(tmp_path):
    path = tmp_path / "run.pt"
    Checkpoint(path, every=1, model=nn.Linear(1, 1))(0, History())
    with pytest.raises(CheckpointError, match=r"holds \['model'\], but this training has \['critic', 'model'\]"):
        Checkpoint(path, every=1, model=nn.Linear(1, 1), critic=nn.Linear(1, 1)).restore()
    with pytest.raises(CheckpointError, match="does not fit"):
        Checkpoint(path, every=1, model=nn.Linear(2, 1)).restore()
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"not a checkpoint at all"):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match="delete it to start afresh"):
            Checkpoint(path, every=1, model=nn.Linear(1, 1)).restore()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write"):
        Checkpoint(tmp_path / "file" / "run.pt", every=1, model=nn.Linear(1, 1))(0, History())


def test_ema_follows_its_closed_form():
    model = nn.Linear(3, 1)
    values = [model.weight.detach().clone()]
    ema = EMA(model, decay=0.8)
    for _ in range(6):
        model.weight.data.normal_()
        ema.update()
        values.append(model.weight.detach().clone())
    n = len(values) - 1
    expected = 0.8**n * values[0] + sum(0.2 * 0.8 ** (n - i) * v for i, v in enumerate(values) if i)
    torch.testing.assert_close(ema.model.weight, expected)
    assert not torch.equal(ema.model.weight, model.weight)


def test_minimize_updates_the_average_after_the_parameters():
    w = nn.Linear(1, 1, bias=False)
    w.weight.data.zero_()
    ema = EMA(w, decay=0.5)
    step = minimize(lambda x: w.weight.sum(), torch.optim.SGD(w.parameters(), lr=1.0), ema=ema)
    step(torch.zeros(1))  # the weight goes from 0 to -1, the average half of the way
    assert (w.weight.item(), ema.model.weight.item()) == (-1.0, -0.5)


def test_ema_copies_buffers():
    model = nn.BatchNorm1d(2)
    ema = EMA(model, decay=0.99)
    model(torch.randn(64, 2) + 5)
    ema.update()
    torch.testing.assert_close(ema.model.running_mean, model.running_mean)


def test_clipping_bounds_the_step_and_reports_the_norm_before_it():
    w = torch.zeros(2, requires_grad=True)
    step = minimize(lambda x: (w * torch.tensor([3.0, 4.0])).sum(), torch.optim.SGD([w], lr=1.0), clip=1.0)
    assert step(torch.zeros(1))["grad_norm"].item() == pytest.approx(5)
    torch.testing.assert_close(w.detach(), torch.tensor([-0.6, -0.8]), rtol=1e-4, atol=1e-4)


def test_the_schedule_advances_once_a_step():
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=1.0)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    step = minimize(lambda x: w.sum(), optimizer, schedule=schedule)
    for _ in range(3):
        step(torch.zeros(1))
    assert w.item() == pytest.approx(-(1 + 0.5 + 0.25))


def test_gradients_do_not_pile_up_from_step_to_step():
    w = torch.zeros(1, requires_grad=True)
    step = minimize(lambda x: w.sum(), torch.optim.SGD([w], lr=1.0))
    for _ in range(5):
        step(torch.zeros(1))
    assert w.item() == -5


def test_tuple_batches_become_arguments():
    w = torch.ones(1, requires_grad=True)
    step = minimize(lambda x, c: (w * x * c).sum(), torch.optim.SGD([w], lr=0.0))
    history = fit(step, data.Batches(torch.full((4,), 2.0), torch.full((4,), 3.0), batch_size=2), 3)
    assert history["loss"].tolist() == [12.0] * 3


def test_alternate_trains_the_critic_n_times_on_fresh_data_and_each_player_only_itself():
    critic, generator = (torch.tensor(0.0, requires_grad=True) for _ in range(2))
    seen = []

    def critic_loss(x):
        seen.append(x.tolist())
        return critic + 0 * generator.detach()

    def generator_loss(x):
        seen.append(x.tolist())
        return generator + critic.detach() * 0

    clipped = []
    step = train.alternate(
        critic_loss,
        generator_loss,
        critic_optimizer=torch.optim.SGD([critic], lr=1.0),
        generator_optimizer=torch.optim.SGD([generator], lr=1.0),
        n_critic=3,
        after_critic=lambda: clipped.append(None),
    )
    logs = step(torch.arange(6.0))
    assert seen == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [4.0, 5.0]]  # the generator's batch is that of the last update
    assert (critic.item(), generator.item(), len(clipped)) == (-3.0, -1.0, 3)
    assert logs["critic"].item() == -2.0
    with pytest.raises(ValueError, match="batch of 5 cannot be cut into 3"):
        step(torch.arange(5.0))


def test_a_generator_step_leaves_no_gradient_in_the_critics_next_step():
    critic, generator = (torch.tensor(1.0, requires_grad=True) for _ in range(2))
    step = train.alternate(
        lambda x: 0 * critic,
        lambda x: critic * generator,  # flows back into the critic, whose optimizer must not use it
        critic_optimizer=torch.optim.SGD([critic], lr=1.0),
        generator_optimizer=torch.optim.SGD([generator], lr=0.1),
    )
    for _ in range(3):
        step(torch.zeros(2))
    assert critic.item() == 1.0


@pytest.mark.parametrize("later", [{}, {"loss": 1.0, "grad_norm": 2.0}, {"los": 1.0}])
def test_the_names_of_the_series_stay_those_of_the_first_step(later):
    history = History()
    history.append({"loss": torch.tensor(0.0)})
    said = re.escape(f"a step reported {sorted(later)}, the steps before it ['loss']: names must not change")
    with pytest.raises(ValueError, match=said):
        history.append({name: torch.tensor(value) for name, value in later.items()})
    assert len(history) == len(history["loss"]) == 1
    with pytest.raises(ValueError, match="names must not change"):
        fit(lambda x: {f"loss {x.item()}": x}, torch.arange(3.0), 3)


def test_the_first_of_several_bad_values_is_named_whatever_the_order_of_the_names():
    def step(x):
        bad = torch.tensor(float("nan"))
        return {"first": bad if x == 7 else x, "second": bad if x == 4 else x}

    with pytest.raises(NonFiniteError, match="second is nan at step 4"):
        fit(step, torch.arange(10.0), 10)


def test_alternate_averages_the_generator_after_its_update_and_starts_each_gradient_afresh():
    critic, generator = (nn.Linear(1, 1, bias=False) for _ in range(2))
    generator.weight.data.zero_()
    ema = EMA(generator, decay=0.5)
    step = train.alternate(
        lambda x: critic.weight.sum(),
        lambda x: generator.weight.sum(),
        critic_optimizer=torch.optim.SGD(critic.parameters(), lr=1.0),
        generator_optimizer=torch.optim.SGD(generator.parameters(), lr=1.0),
        ema=ema,
    )
    step(torch.zeros(1))  # the weight goes from 0 to -1, the average half of the way
    assert (generator.weight.item(), ema.model.weight.item()) == (-1.0, -0.5)
    step(torch.zeros(1))
    assert (generator.weight.item(), ema.model.weight.item()) == (-2.0, -1.25)


def test_a_critics_loss_that_forgot_to_detach_costs_the_generator_no_gradient():
    critic, generator = (torch.tensor(1.0, requires_grad=True) for _ in range(2))
    seen = []
    step = train.alternate(
        lambda x: critic * generator,
        lambda x: 3 * generator,
        critic_optimizer=torch.optim.SGD([critic], lr=0.1),
        generator_optimizer=torch.optim.SGD([generator], lr=0.1),
        after_critic=lambda: seen.append(generator.grad if generator.grad is None else generator.grad.item()),
    )
    step(torch.zeros(1))
    step(torch.zeros(1))
    assert seen == [None, 3.0]  # at the second update, what the generator's own loss has left


def test_unknown_series_are_named():
    history = History()
    history.append({"loss": torch.tensor(1.0)})
    with pytest.raises(KeyError, match="no series 'los'; there are loss"):
        history["los"]


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        EMA(nn.Linear(1, 1), decay=1.0)
    with pytest.raises(ValueError, match="every must be at least 1"):
        Checkpoint("x", every=0)
    with pytest.raises(ValueError, match="n must be at least 1"):
        train.every(0, print)
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(ValueError, match="n_critic must be at least 1, got 0"):
        train.alternate(torch.sum, torch.sum, critic_optimizer=sgd, generator_optimizer=sgd, n_critic=0)


class Terminal:
    """A stand-in for standard error."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


@pytest.mark.parametrize("variable", ["COURSE_UNATTENDED", "CI", "PYTEST_VERSION"])
def test_progress_is_silent_when_nobody_watches(monkeypatch, variable):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    for name in ("COURSE_UNATTENDED", "CI", "PYTEST_VERSION"):
        monkeypatch.delenv(name, raising=False)
    assert train.attended()
    monkeypatch.setenv(variable, "1")
    assert not train.attended()
    with train.Progress(3) as progress:
        progress._bar.refresh()
        progress.advance()
    assert screen.text == ""


def test_progress_shows_the_steps_and_the_loss(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(train, "attended", lambda: True)
    history = History()
    history.append({"loss": torch.tensor(0.25)})
    with train.Progress(10, label="flow") as progress:
        progress._shown -= 5
        progress.advance(history)
        progress._bar.refresh()
    assert "flow" in screen.text and "1/10" in screen.text and "loss=0.25" in screen.text


def test_mixed_precision_multiplies_in_bfloat16_and_keeps_parameters_in_single_precision():
    torch.manual_seed(0)
    model, x = nn.Linear(64, 64), torch.randn(32, 64)
    seen = []

    def loss(x):
        y = model(x)
        seen.append(y.dtype)
        return y.square().mean()

    exact = torch.autograd.grad(loss(x), model.weight)[0]
    value = train._in_bfloat16(loss, "cpu")(x)
    (gradient,) = torch.autograd.grad(value, model.weight)
    assert seen == [torch.float32, torch.bfloat16] and value.dtype == gradient.dtype == torch.float32
    error = (gradient - exact).norm() / exact.norm()
    assert 1e-5 < error < 0.02  # 8 bits of precision, and no more than 8
    assert train.mixed_precision(loss, torch.device("cpu")) is loss
