"""The table of the notation page, read as code: the package's methods are weighted averages."""

import pytest
import torch

import tutorial_lib as tl
from tests.closed_forms import normal, tanh_mlp


def grad(net, z):
    return tl.engine.gradients(net, z, torch.zeros(len(z), dtype=torch.int64))


def test_every_row_of_the_table_is_an_average_of_weighted_gradients():
    # checks eq-average
    net, x, b = tanh_mlp(), normal(2, 6, seed=1), normal(1, 6, seed=2)
    rng = torch.Generator().manual_seed(0)
    noise = [torch.randn(6, generator=rng, dtype=torch.float64) for _ in range(7)]
    noisy = [x + 0.3 * e for e in noise]
    adaptive = [x + torch.minimum(x + 5, 5 - x) / 2.2414027276 * e for e in noise]
    path = [b + k / 7 * (x - b) for k in range(1, 8)]
    rows = {
        "gradient": (tl.gradient(net, x, 0), [x], 1),
        "gradient x input": (tl.gradient_x_input(net, x, 0), [x], x),
        "IG": (tl.integrated_gradients(net, x, 0, baseline=b, steps=7), path, x - b),
        "SmoothGrad": (tl.smoothgrad(net, x, 0, sigma=0.3, samples=7), noisy, 1),
        "SmoothTaylor": (tl.smooth_taylor(net, x, 0, sigma=0.3, roots=7), noisy, "x - z"),
        "AdaptGrad": (tl.adaptgrad(net, x, 0, bounds=(-5.0, 5.0), samples=7), adaptive, 1),
        "smoothed gradient x input": (
            tl.smoothgrad(net, x, 0, sigma=0.3, samples=7, method=tl.gradient_x_input),
            noisy,
            "z",
        ),
    }
    for name, (ours, places, weight) in rows.items():
        weights = {"x - z": lambda z: x - z, "z": lambda z: z}
        weigh = weights.get(weight) if isinstance(weight, str) else lambda z, w=weight: w
        mean = torch.stack([weigh(z) * grad(net, z) for z in places]).mean(0)
        assert torch.allclose(ours, mean, rtol=1e-9), name


@pytest.mark.slow
def test_the_units_of_noise_on_the_notation_page():
    low, high = (float(side[0, 0, 0, 0]) for side in tl.load_model(device="cpu").bounds)
    assert abs((high - low) - 255 / 128) < 1e-6
    assert abs(low + 0.99) < 0.005 and abs(high - 1) < 1e-6
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    lowest = min(-m / s for m, s in zip(mean, std, strict=True))
    usual = max((1 - m) / s for m, s in zip(mean, std, strict=True)) - lowest
    assert abs(usual - 4.76) < 0.005 and abs(0.5 / usual - 0.105) < 5e-4
    assert abs(0.5 / usual * (high - low) - 0.21) < 0.002
