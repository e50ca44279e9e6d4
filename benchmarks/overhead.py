"""What a call costs beside its gradients, on a small MLP: milliseconds, medians over 200 calls.

    python benchmarks/overhead.py

The model check (`tl.skip_model_check`) is asked once for a network and shape, so it is not in these
numbers; the last lines say what it costs where it is: on the MLP in milliseconds, and on
EfficientNet-Lite0 beside a SmoothGrad of 50 samples.

Bare: one forward and backward pass over the same number of points, all at once, with their noise.
For NoiseGrad and FusionGrad, whose networks differ, a pass for each of 10 noisy networks.
"""

import statistics
import time
from functools import partial

import torch
from torch import nn

import tutorial_lib as tl
from tutorial_lib.checks import examine

METHODS = {  # name: (method, its keywords, points a map)
    "gradient": (tl.gradient, {}, 1),
    "integrated gradients": (tl.integrated_gradients, {}, 50),
    "smoothgrad": (tl.smoothgrad, dict(sigma=0.1), 50),
    "smooth_taylor": (tl.smooth_taylor, {}, 150),
    "adaptgrad": (tl.adaptgrad, dict(bounds=(-9.0, 9.0)), 50),
    "noisegrad": (tl.noisegrad, {}, 10),
    "fusiongrad": (tl.fusiongrad, dict(sigma=0.1), 100),
}


def milliseconds(*calls, rounds: int = 200) -> list[float]:
    """The median time of each call; they take turns, so that the machine is the same to all."""
    times = [[] for _ in calls]
    for _ in range(rounds + 5):  # the first rounds warm up
        for call, own in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            own.append(time.perf_counter() - start)
    return [1e3 * statistics.median(own[5:]) for own in times]


def bare(network, x, points, networks):
    for seed in range(networks):
        noisy = tl.noise.reweighted(network, sigma=0.2, seed=seed) if networks > 1 else network
        z = (x + 0.1 * torch.randn(points // networks, *x.shape[1:])).requires_grad_()
        torch.autograd.grad(noisy(z)[:, 0].sum(), z)[0].mean(0)


def main() -> None:
    net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 3)).eval().requires_grad_(False)
    x = torch.randn(1, 10)
    for name, (method, own, points) in METHODS.items():
        networks = 10 if "weight_samples" in method.__kwdefaults__ else 1
        calls = partial(method, net, x, 0, **own), partial(bare, net, x, points, networks)
        ours, floor = milliseconds(*calls)
        print(f"{name:22}{ours:6.2f} ms, bare {floor:5.2f} ms: {ours - floor:5.2f} ms more")
    (check,) = milliseconds(lambda: examine(lambda z: net(z), x))
    print(f"model check           {check:6.2f} ms")
    model = tl.load_model("efficientnet_lite0", device="cpu")
    x = model.preprocess(tl.load_image("coffee"))
    smooth = partial(tl.smoothgrad, model, x, 967, sigma=0.2, samples=50)
    check, whole = milliseconds(lambda: examine(lambda z: model(z), x), smooth, rounds=5)
    print(f"model check of EfficientNet-Lite0: {check / whole:.1%} of SmoothGrad with 50 samples")


if __name__ == "__main__":
    main()
