r"""One training loop for every family.

The *loop* (:func:`fit`) is boring: it fetches batch k, calls the step, stores what the step reports, calls the hooks.
The *step* owns what a family is about: its losses, optimizers, gradient clipping and weight averaging.

- :func:`minimize` makes the step of everything with one loss: autoencoder, VAE, autoregressive model, flow, diffusion.
- :func:`alternate` makes the step of two players: GAN and WGAN-GP.

*Hooks* only observe. They run on a copy of the random state, so adding one never changes what is learned.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

__all__ = [
    "EMA",
    "Checkpoint",
    "CheckpointError",
    "History",
    "NonFiniteError",
    "Progress",
    "Ramp",
    "alternate",
    "attended",
    "every",
    "fit",
    "minimize",
    "mixed_precision",
]

Batch = Any  # a tensor, or a tuple of tensors such as (x, c)
Step = Callable[[Batch], Mapping[str, Tensor]]
Hook = Callable[[int, "History"], None]


class Indexable(Protocol):
    """Endless batches: ``batches[k]`` is batch k, whatever was asked for before."""

    def __getitem__(self, k: int) -> Batch: ...


class NonFiniteError(FloatingPointError):
    """A loss became NaN or infinite; the message names the loss and the step."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, read, or does not belong to what is being trained."""


_WHAT_TO_LOOK_FOR = (
    "training stopped. Look for a learning rate that is too high, a division by zero, or the log or root of zero."
)


# ------------------------------------------------------------------------------------------------------- the loop


class History:
    r"""What the steps reported: one series of scalars per name.

    The values stay on the device until a series is read, so recording never makes the GPU wait. Every step reports the
    same names, so that value k of each series belongs to step k.

    Example:
        >>> history = History()
        >>> history.append({"loss": torch.tensor(2.0)})
        >>> history.append({"loss": torch.tensor(1.0)})
        >>> history["loss"], len(history)
        (tensor([2., 1.]), 2)
    """

    def __init__(self) -> None:
        self._series: dict[str, list[Tensor]] = {}
        self._steps = 0
        self._checked = 0
        self._restored = 0  # the values before this step come from a checkpoint, and lie on the CPU

    def __len__(self) -> int:
        """Number of steps recorded."""
        return self._steps

    def __iter__(self) -> Iterator[str]:
        """Names of the series."""
        return iter(self._series)

    def __getitem__(self, name: str) -> Tensor:
        """One series, on the CPU, shape (steps,)."""
        if name not in self._series:
            raise KeyError(f"no series {name!r}; there are {', '.join(sorted(self._series)) or 'none yet'}")
        values = self._series[name]
        parts = (values[: self._restored], values[self._restored :])
        return torch.cat([torch.stack(part).cpu() for part in parts if part])

    def append(self, logs: Mapping[str, Tensor]) -> None:
        """Record what one step reported; :class:`ValueError` if the names are not those of the steps before."""
        if self._steps and logs.keys() != self._series.keys():
            raise ValueError(
                f"a step reported {sorted(logs)}, the steps before it {sorted(self)}: names must not change"
            )
        for name, value in logs.items():
            self._series.setdefault(name, []).append(value.detach())
        self._steps += 1

    def require_finite(self) -> None:
        """Raise :class:`NonFiniteError` when a value recorded since the last call is NaN or infinite."""
        if self._checked == self._steps:
            return
        bad = []
        for name, values in self._series.items():
            finite = torch.stack(values[self._checked :]).isfinite()  # (recent steps, ...)
            bad += [(self._checked + int(index[0]), name) for index in (~finite).nonzero()[:1]]
        if bad:
            step, name = min(bad)
            raise NonFiniteError(f"{name} is {self._series[name][step].tolist()} at step {step}: {_WHAT_TO_LOOK_FOR}")
        self._checked = self._steps

    def state_dict(self) -> dict[str, Any]:
        """The number of steps and the series as tensors, for a checkpoint."""
        return {"steps": self._steps, "series": {name: self[name] for name in self}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the series of :meth:`state_dict`."""
        self._series = {name: list(values.unbind()) for name, values in state["series"].items()}
        self._steps = self._checked = self._restored = state["steps"]


def fit(
    step: Step, batches: Indexable, steps: int, *, history: History | None = None, hooks: Iterable[Hook] = ()
) -> History:
    r"""Run ``step`` on batch after batch.

    Args:
        step: Does one update and returns named scalars, as made by :func:`minimize` or :func:`alternate`.
        batches: Endless batches; batch k is ``batches[k]``.
        steps: Total number of steps, counted from the very beginning of training.
        history: What earlier steps reported, from :meth:`Checkpoint.restore`; training goes on after them.
        hooks: Called as ``hook(k, history)`` after step k, under a copy of the random state.

    Returns:
        The history of all steps.

    Raises:
        NonFiniteError: If a reported value is NaN or infinite; the message names the step.

    Example:
        >>> from course_lib.data import Batches
        >>> model = nn.Linear(1, 1)
        >>> x = torch.linspace(-1, 1, 64)[:, None]
        >>> step = minimize(lambda x: ((model(x) - 3 * x) ** 2).mean(), torch.optim.Adam(model.parameters(), lr=0.1))
        >>> history = fit(step, Batches(x, batch_size=32), 300)
        >>> bool(history["loss"][-1] < 1e-3)
        True
    """
    history = History() if history is None else history
    hooks = list(hooks)
    check_every = 50  # looking at a value makes a GPU wait, so look at 50 at a time
    with Progress(steps, done=len(history)) as progress:
        for k in range(len(history), steps):
            history.append(step(batches[k]))
            if (k + 1) % check_every == 0 or k + 1 == steps:
                history.require_finite()
            progress.advance(history)
            for hook in hooks:  # a copy for each: what one hook draws must not enter what a Checkpoint after it saves
                with _forked_random_state():
                    hook(k, history)
    return history


def every(n: int, hook: Hook) -> Hook:
    r"""Call ``hook`` after every n-th step only.

    Args:
        n: Number of steps between calls.
        hook: The hook to call.

    Returns:
        A hook.

    Raises:
        ValueError: If ``n`` is less than 1.

    Example:
        >>> seen = []
        >>> hook = every(2, lambda k, history: seen.append(k))
        >>> for k in range(5):
        ...     hook(k, History())
        >>> seen
        [1, 3]
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")

    def sometimes(k: int, history: History) -> None:
        if (k + 1) % n == 0:
            hook(k, history)

    return sometimes


@contextmanager
def _forked_random_state() -> Iterator[None]:
    cpu, cuda = torch.get_rng_state(), _cuda_random_states()
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def _cuda_random_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []


# ------------------------------------------------------------------------------------------------------ the steps


def minimize(
    loss: Callable[..., Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    clip: float | None = None,
    ema: EMA | None = None,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> Step:
    r"""Make the step of a model with one loss: compute it, backpropagate, update.

    Args:
        loss: Maps a batch to a scalar; a tuple batch is passed as several arguments.
        optimizer: Holds the parameters to update.
        clip: Largest Euclidean norm of the gradient of all parameters together; no clipping when omitted.
        ema: Running average to update after the parameters.
        schedule: Learning-rate schedule to advance after each step.

    Returns:
        A step that reports ``loss``, and ``grad_norm`` (before clipping) when ``clip`` is given.

    Example:
        >>> w = torch.tensor(1.0, requires_grad=True)
        >>> step = minimize(lambda x: (w * x).square().mean(), torch.optim.SGD([w], lr=0.1))
        >>> step(torch.ones(4))["loss"].item(), round(w.item(), 3)  # the gradient is 2 w = 2
        (1.0, 0.8)
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step(batch: Batch) -> dict[str, Tensor]:
        value = _call(loss, batch)
        logs = {"loss": value}
        optimizer.zero_grad()
        value.backward()
        if clip is not None:
            logs["grad_norm"] = nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        if ema is not None:
            ema.update()
        if schedule is not None:
            schedule.step()
        return logs

    return step


def mixed_precision(loss: Callable[..., Tensor], device: torch.device | str) -> Callable[..., Tensor]:
    r"""Let a loss multiply its matrices in bfloat16 on a GPU that can, and leave it alone elsewhere.

    Parameters, their gradients and the optimizer stay in single precision. bfloat16 has the range of single precision,
    so nothing needs to be scaled, but only 8 bits of precision: do not measure a likelihood with it.

    Args:
        loss: Maps a batch to a scalar.
        device: Where the model is. On a CPU the loss is returned as it is: bfloat16 is slower there.

    Returns:
        A loss of the same arguments, in single precision.

    Reference:
        Kalamkar et al., *A Study of BFLOAT16 for Deep Learning Training* (2019).

    Example:
        >>> loss = nn.Linear(2, 1)
        >>> mixed_precision(loss, "cpu") is loss
        True
    """
    device = torch.device(device)
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return _in_bfloat16(loss, device.type)
    return loss


def _in_bfloat16(loss: Callable[..., Tensor], device_type: str) -> Callable[..., Tensor]:
    def cast(*batch: Any) -> Tensor:
        with torch.autocast(device_type, dtype=torch.bfloat16):
            return loss(*batch).float()

    return cast


def alternate(
    critic_loss: Callable[..., Tensor],
    generator_loss: Callable[..., Tensor],
    *,
    critic_optimizer: torch.optim.Optimizer,
    generator_optimizer: torch.optim.Optimizer,
    n_critic: int = 1,
    after_critic: Callable[[], None] | None = None,
    ema: EMA | None = None,
    schedules: Iterable[torch.optim.lr_scheduler.LRScheduler] = (),
) -> Step:
    r"""Make the step of two players: ``n_critic`` updates of the critic, each on fresh data, then one of the generator.

    Args:
        critic_loss: Maps real data to the loss of the critic (or discriminator). It draws the fake data itself and
            must detach it, so that this update leaves the generator alone.
        generator_loss: Maps real data to the loss of the generator. Only the size of the data and its labels matter.
        critic_optimizer: Holds the parameters of the critic.
        generator_optimizer: Holds the parameters of the generator.
        n_critic: Critic updates per generator update. The batch is cut into this many parts, one for each.
        after_critic: Called after each critic update; weight clipping goes here.
        ema: Running average of the generator, updated after it.
        schedules: Learning-rate schedules of either player, to advance after each step.

    Returns:
        A step that reports ``critic`` and ``generator``, the two losses; the critic's is that of its last update.

    Raises:
        ValueError: If ``n_critic`` is less than 1, or a batch cannot be cut into that many parts of equal size.

    Reference:
        Goodfellow et al., *Generative Adversarial Nets* (2014), Algorithm 1; Gulrajani et al., *Improved Training of
        Wasserstein GANs* (2017), Algorithm 1 (fresh real data for every critic update).

    Example:
        >>> c, g = (torch.tensor(1.0, requires_grad=True) for _ in range(2))
        >>> step = alternate(
        ...     lambda x: (c * (x.mean() - g.detach())) ** 2,
        ...     lambda x: (g - x.mean()) ** 2,
        ...     critic_optimizer=torch.optim.SGD([c], lr=0.1),
        ...     generator_optimizer=torch.optim.SGD([g], lr=0.5),
        ... )
        >>> sorted(step(torch.zeros(4))), g.item()
        (['critic', 'generator'], 0.0)
    """
    if n_critic < 1:
        raise ValueError(f"n_critic must be at least 1, got {n_critic}")
    schedules = list(schedules)
    critic, generator = (
        [p for group in optimizer.param_groups for p in group["params"]]
        for optimizer in (critic_optimizer, generator_optimizer)
    )

    def step(batch: Batch) -> dict[str, Tensor]:
        for part in _parts(batch, n_critic):
            critic_value = _call(critic_loss, part)
            critic_optimizer.zero_grad()
            critic_value.backward(inputs=critic)
            critic_optimizer.step()
            if after_critic is not None:
                after_critic()
        generator_value = _call(generator_loss, part)
        generator_optimizer.zero_grad()
        generator_value.backward(inputs=generator)  # spares the gradient in the critic's parameters
        generator_optimizer.step()
        if ema is not None:
            ema.update()
        for schedule in schedules:
            schedule.step()
        return {"critic": critic_value, "generator": generator_value}

    return step


def _call(loss: Callable[..., Tensor], batch: Batch) -> Tensor:
    return loss(*batch) if isinstance(batch, tuple) else loss(batch)


def _parts(batch: Batch, n: int) -> Iterable[Batch]:
    if n == 1:
        return [batch]
    tensors = batch if isinstance(batch, tuple) else (batch,)
    if len(tensors[0]) % n:
        raise ValueError(f"a batch of {len(tensors[0])} cannot be cut into {n} equal parts, one per critic update")
    return zip(*(t.chunk(n) for t in tensors), strict=True)


class Ramp:
    r"""A weight that grows from 0 to its final value in equal steps, then stays; each call is one step.

    .. math:: w_k = w \min(1, k / n), \qquad k = 0, 1, 2, \dots

    Args:
        steps: Number of steps n until the final value.
        final: The final value w.

    Raises:
        ValueError: If ``steps`` is less than 1.

    Reference:
        Bowman et al., *Generating Sentences from a Continuous Space* (2016), section 3.1, for the weight of a VAE's
        divergence.

    Example:
        >>> beta = Ramp(2, final=4.0)  # in a loss: lambda x: model.loss(x, beta=beta())
        >>> beta(), beta(), beta(), beta()
        (0.0, 2.0, 4.0, 4.0)
    """

    def __init__(self, steps: int, *, final: float = 1.0) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.steps, self.final, self._done = steps, final, 0

    def __call__(self) -> float:
        """The weight of this step."""
        weight = self.final * min(1.0, self._done / self.steps)
        self._done += 1
        return weight

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"done": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._done = state["done"]


class EMA:
    r"""An exponential moving average of a model's parameters.

    .. math:: \bar\theta \leftarrow d\, \bar\theta + (1 - d)\, \theta

    The average starts at the model's current parameters. Buffers are copied, not averaged.

    Args:
        model: The model that is being trained.
        decay: The factor d in [0, 1). The average remembers about 1/(1 - d) steps.

    Raises:
        ValueError: If ``decay`` lies outside [0, 1).

    Reference:
        Polyak and Juditsky, *Acceleration of Stochastic Approximation by Averaging* (1992), for the idea.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> ema = EMA(model, decay=0.9)
        >>> before = model.weight.item()
        >>> _ = model.weight.data.add_(1.0)
        >>> ema.update()
        >>> round(ema.model.weight.item() - before, 4)
        0.1
    """

    def __init__(self, model: nn.Module, *, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self._source = model
        self._average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._average.n_averaged.fill_(1)  # the first update averages too, instead of copying

    @property
    def model(self) -> nn.Module:
        """The model with averaged parameters."""
        return self._average.module

    def update(self) -> None:
        """Take the model's current parameters into the average."""
        self._average.update_parameters(self._source)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return self._average.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the average of :meth:`state_dict`."""
        self._average.load_state_dict(state)


# ------------------------------------------------------------------------------------------------------ the hooks


class Checkpoint:
    r"""A hook that saves everything needed to resume training to the bit.

    A file holds the history, the random states of CPU and GPU, and the ``state_dict`` of every named part. It is
    written beside its final place and then renamed, so an interruption leaves the previous file whole. NaN and infinity
    are never written: a gradient can ruin the parameters one step before any loss shows it.

    Args:
        path: The file.
        every: Number of steps between saves.
        parts: Everything that changes during training, by name: models, optimizers, schedules, averages.

    Raises:
        ValueError: If ``every`` is less than 1.

    Example:
        >>> import tempfile
        >>> from course_lib.data import Batches
        >>> def run(path, steps):
        ...     model = nn.Linear(1, 1)
        ...     optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        ...     checkpoint = Checkpoint(path, every=5, model=model, optimizer=optimizer)
        ...     step = minimize(lambda x: model(x).square().mean(), optimizer)
        ...     batches = Batches(torch.ones(8, 1), batch_size=4)
        ...     return fit(step, batches, steps, history=checkpoint.restore(), hooks=[checkpoint])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = run(Path(folder) / "run.pt", steps=5)  # stopped after 5 of 10 steps ...
        ...     len(run(Path(folder) / "run.pt", steps=10))  # ... and gone on with
        10
    """

    def __init__(self, path: str | Path, *, every: int, **parts: Any) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.path, self.every, self.parts = Path(path), every, parts

    def __call__(self, k: int, history: History) -> None:
        """Save after step k if it is due; :class:`NonFiniteError` instead of saving NaN or infinity."""
        if (k + 1) % self.every == 0:
            history.require_finite()
            parts = {name: part.state_dict() for name, part in self.parts.items()}
            for name, state in parts.items():
                if not all(tensor.isfinite().all() for tensor in _tensors(state)):
                    raise NonFiniteError(f"{name} holds NaN or infinity after step {k}: {_WHAT_TO_LOOK_FOR}")
            random = {"cpu": torch.get_rng_state(), "cuda": _cuda_random_states()}
            self._write({"history": history.state_dict(), "random": random, "parts": parts})

    def restore(self) -> History:
        """Load the file into the parts, set the random states, and return the history (empty without a file)."""
        history = History()
        if not self.path.exists():
            return history
        try:
            state = _load_whole(self.path)
            history.load_state_dict(state["history"])
        except _NOT_WHOLE as error:
            reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
            raise CheckpointError(
                f"{self.path} is not a whole checkpoint ({reason}); delete it to start afresh, or name another file"
            ) from error
        saved = state["parts"]
        if set(saved) != set(self.parts):
            raise CheckpointError(f"{self.path} holds {sorted(saved)}, but this training has {sorted(self.parts)}")
        for name, part in self.parts.items():
            try:
                part.load_state_dict(saved[name])
            except (RuntimeError, ValueError, KeyError) as error:
                reason = str(error).splitlines()[-1].strip()
                raise CheckpointError(f"{name} in {self.path} does not fit what is being trained: {reason}") from error
        torch.set_rng_state(state["random"]["cpu"])
        if state["random"]["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["random"]["cuda"])
        return history

    def _write(self, state: dict[str, Any]) -> None:
        partial = self.path.with_name(self.path.name + ".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, partial)
            os.replace(partial, self.path)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                partial.unlink()
            raise CheckpointError(f"cannot write the checkpoint {self.path}: {str(error).splitlines()[0]}") from error


_NOT_WHOLE = (
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    BadZipFile,
    ZlibError,
    UnpicklingError,
)


def _load_whole(path: Path) -> dict[str, Any]:
    with ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:  # PyTorch does not compare the checksums
            raise ValueError(f"{damaged} in it is damaged")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or set(state) != {"history", "random", "parts"}:
        found = f"a dictionary of {sorted(map(str, state))}" if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"it holds {found}, not of history, parts and random")
    return state


def _tensors(state: Any) -> Iterator[Tensor]:
    """Every tensor in nested dictionaries and lists."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping | list | tuple):
        for value in state.values() if isinstance(state, Mapping) else state:
            yield from _tensors(value)


def attended() -> bool:
    """Whether somebody may be watching: not in continuous integration, not in a test, not when output goes to a file.

    Returns:
        False when one of the environment variables ``COURSE_UNATTENDED``, ``CI`` or ``PYTEST_VERSION`` is set, or when
        there is neither a terminal nor a notebook.

    Example:
        >>> attended()  # this example runs as a test
        False
    """
    if any(os.environ.get(name) for name in ("COURSE_UNATTENDED", "CI", "PYTEST_VERSION")):
        return False
    return "ipykernel" in sys.modules or sys.stderr.isatty()


class Progress:
    r"""A progress bar that appears after two seconds, and never when nobody watches.

    Args:
        steps: Total number of steps.
        done: Steps that were done before.
        label: Name of what is going on.

    Example:
        >>> with Progress(3) as progress:
        ...     for _ in range(3):
        ...         progress.advance()
    """

    def __init__(self, steps: int, *, done: int = 0, label: str = "training") -> None:
        self._bar = tqdm(
            total=steps, initial=done, desc=label, unit="step", delay=2, disable=not attended(), file=sys.stderr
        )
        self._shown = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def advance(self, history: History | None = None) -> None:
        """Count one step; show the latest values once a second at most, since reading them makes a GPU wait."""
        if self._bar.disable:
            return
        self._bar.update()
        if history is not None and time.monotonic() - self._shown > 1:
            self._shown = time.monotonic()
            self._bar.set_postfix({name: f"{history._series[name][-1].mean().item():.3g}" for name in history})
