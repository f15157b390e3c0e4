"""What every test shares: a fixed seed, and one thread, since tests run side by side."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
