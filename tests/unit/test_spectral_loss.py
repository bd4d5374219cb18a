"""The loss that an adversarial decoder is trained against."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from pipeline.evaluation.robustness.spectral_loss import spectral_loss  # noqa: E402 - only where torch is installed


@pytest.fixture
def photos() -> Any:
    smooth = torch.nn.functional.interpolate(
        torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)), size=(96, 128), mode="bilinear"
    )
    return smooth + 0.02 * torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))


def test_equal_images_cost_nothing(photos: Any) -> None:
    assert float(spectral_loss(photos, photos)) == pytest.approx(0.0, abs=1e-6)


def test_a_grid_of_16_px_and_a_blur_cost(photos: Any) -> None:
    grid = photos + 0.1 * torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(2)).repeat(1, 1, 6, 8)
    blurred = torch.nn.functional.avg_pool2d(photos, 3, stride=1, padding=1)
    assert float(spectral_loss(grid, photos)) > 0.1
    assert float(spectral_loss(blurred, photos)) > 0.1


def test_gradients_lead_back_to_the_photographs_spectrum(photos: Any) -> None:
    grid = 0.1 * torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(2)).repeat(1, 1, 6, 8)
    decoded = (photos + grid).requires_grad_()
    optimizer = torch.optim.Adam([decoded], lr=0.003)
    first = float(spectral_loss(decoded, photos).detach())
    for _ in range(40):
        optimizer.zero_grad()
        loss = spectral_loss(decoded, photos)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.7 * first


def test_shapes_must_agree(photos: Any) -> None:
    with pytest.raises(ValueError, match="expected two"):
        spectral_loss(photos, photos[:, :, :64])
