"""Diffusion and flow matching on the toys, against the exact densities, with the floors beside.

    python tests/benchmarks/toys_diffusion.py [--family diffusion] [--data ring8 ...] [--seeds 0 1 2 3 4]

Targets: sliced W2 at most 0.07 on two-clusters-diagonal; C2ST at most 0.53 on two-clusters-flat; on ring8 8 modes and
at least 0.95 of the samples near one. Training takes less than 2 minutes on one core.
"""

from __future__ import annotations

from functools import partial
from itertools import product

import torch
from toys import Judged, Row, command_line, table

from course_lib.data import Draws, toy
from course_lib.losses import VELOCITY, V
from course_lib.models.diffusion import Diffusion
from course_lib.nn import TimeMLP
from course_lib.schedules import Cosine, LinearLogSNR, Straight, power_clock
from course_lib.train import EMA, fit, minimize

FAMILIES = ("diffusion", "flow-matching")

# Broad clusters need all noise levels alike. The ring's modes are 1/100 of its radius: there, most of the work is to be
# done where the noise is small, and the network must change fast.
BROAD = {"steps": 4000, "batch_size": 256, "hidden": (64, 64, 64), "waves": 0}
NARROW = {"steps": 7000, "batch_size": 512, "hidden": (128, 128, 128), "waves": 4}
SETTINGS = {"two-clusters-diagonal": BROAD, "two-clusters-flat": BROAD, "ring8": NARROW}
LR, EMA_DECAY = 4e-3, 0.998


def family(name: str, data_name: str) -> dict[str, object]:
    """Schedule, prediction and clock."""
    narrow = SETTINGS[data_name] is NARROW
    if name == "diffusion":
        schedule = LinearLogSNR(start=11.0, end=-9.0) if narrow else Cosine()
        return {"schedule": schedule, "prediction": V}
    clock = partial(power_clock, exponent=3.0, low=2e-3) if narrow else power_clock
    return {"schedule": Straight(), "prediction": VELOCITY, "clock": clock}


def train(name: str, data_name: str, seed: int) -> Judged:
    """Train on fresh draws of a toy density."""
    torch.manual_seed(seed)
    settings = SETTINGS[data_name]
    network = TimeMLP(2, hidden=settings["hidden"], waves=settings["waves"])
    model = Diffusion(network, (2,), **family(name, data_name))
    ema = EMA(model, decay=EMA_DECAY)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=settings["steps"], pct_start=0.1)
    draws = Draws(toy(data_name).sample, batch_size=settings["batch_size"], seed=seed)
    fit(minimize(model.loss, optimizer, clip=10.0, ema=ema, schedule=schedule), draws, settings["steps"])
    model = ema.model.eval()
    # solving the equation for a likelihood costs many passes: fewer points
    sample, log_prob = partial(model.sample, steps=40), partial(model.log_prob, steps=100)
    return Judged(sample, log_prob, held_out=1000)


if __name__ == "__main__":
    options = command_line(__doc__, family=FAMILIES, data=tuple(SETTINGS)).parse_args()
    rows = [Row(kind, name, partial(train, kind, name)) for name, kind in product(options.data, options.family)]
    table(rows, options.seeds)
