"""How fast the measures are beside simple peers, in one run: medians of ratios over rounds.

python benchmarks/metrics.py
"""

import statistics
import time

import numpy as np
import torch
from scipy.integrate import simpson
from skimage.transform import pyramid_gaussian

import tutorial_lib as tl


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(name: str, ours, theirs, rounds: int = 5) -> None:
    """Print how many times longer `theirs` takes, taking turns."""
    ours()
    ratios = [seconds(theirs) / seconds(ours) for _ in range(rounds)]
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"{name}: {middle:.2f} times (from {low:.2f} to {high:.2f}, {rounds} rounds)")


def slow_windows(heatmap: np.ndarray, size: int = 15, count: int = 30) -> list:
    """The definition as a double loop."""
    h, w = heatmap.shape
    means = {
        (r, c): heatmap[r : r + size, c : c + size].mean()
        for r in range(h - size + 1)
        for c in range(w - size + 1)
    }
    taken = []
    for r, c in sorted(means, key=means.get, reverse=True):
        if all(abs(r - a) >= size or abs(c - b) >= size for a, b in taken):
            taken.append((r, c))
        if len(taken) == count:
            return taken


def slow_autvc(heatmap: np.ndarray) -> float:
    """One map with skimage and scipy."""
    s = np.minimum(np.abs(heatmap), np.percentile(np.abs(heatmap), 99))
    s = (s - s.min()) / (s.max() - s.min())
    levels = [v for v in pyramid_gaussian(s, downscale=1.5) if min(v.shape) >= 30]
    return simpson(
        [(np.abs(np.diff(v, axis=0)).sum() + np.abs(np.diff(v)).sum()) / v.size for v in levels]
    )


def main() -> None:
    maps = torch.randn(16, 224, 224, generator=torch.Generator().manual_seed(0))
    one, many = maps[0].abs().numpy(), maps.numpy()
    compare(
        "windows of a 224 map, a plain double loop takes",
        lambda: tl.metrics.salient_regions(maps[:1]),
        lambda: slow_windows(one),
    )
    compare(
        "AUTVC of 16 maps, skimage one by one takes",
        lambda: tl.metrics.autvc(maps),
        lambda: [slow_autvc(m) for m in many],
    )
    model = tl.load_model("efficientnet_lite0", device="cpu")
    x = model.preprocess(tl.load_image("coffee"))
    own = dict(bounds=model.bounds, count=5, draws=20, batch_size=4)

    def forwards():
        with torch.no_grad():
            model(x)
            for _ in range(5 * 20 // 4):
                model(x.expand(4, -1, -1, -1))

    compare(
        "perturbation curve, its bare forward passes take",
        lambda: tl.metrics.perturbation_curve(model, x, 967, maps[:1], **own),
        forwards,
    )


if __name__ == "__main__":
    main()
