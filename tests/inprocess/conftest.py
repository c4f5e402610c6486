"""What these tests share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def validated_distributions() -> Iterator[None]:
    """PyTorch's compiler switches the validation of distributions off for the rest of the process, and forks of it."""
    kind = torch.distributions.Distribution
    before = kind._validate_args
    yield
    kind.set_default_validate_args(before)
