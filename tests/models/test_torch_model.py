"""Test that batches are halved if they do not fit into GPU memory."""

import pytest
import torch

from jobs.errors import RetryableError
from jobs.models.torch_model import forward_halving


def make_forward(capacity: int, sizes: list[int]):  # type: ignore[no-untyped-def]
    """Return a forward pass that fails for more than ``capacity`` images, and records the batch sizes."""

    def forward(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > capacity:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch * 2

    return forward


def test_a_batch_is_halved_until_it_fits_and_keeps_its_order() -> None:
    sizes: list[int] = []
    batch = torch.arange(13)
    assert torch.equal(forward_halving(make_forward(3, sizes), batch), batch * 2)
    assert max(size for size in sizes if size <= 3) <= 3
    assert sizes[0] == 13


def test_a_single_image_that_does_not_fit_is_retryable() -> None:
    with pytest.raises(RetryableError, match="GPU"):
        forward_halving(make_forward(0, []), torch.arange(4))
