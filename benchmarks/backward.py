"""What changed backward rules cost beside gradients, in one run: medians of ratios over rounds.

python benchmarks/backward.py
"""

import statistics
import time

import captum.attr as peer
import torch
import torchvision

import tutorial_lib as tl


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def table(title: str, calls: dict, rounds: int = 5) -> None:
    """Print each call's time in units of the first one's, taking turns."""
    for call in calls.values():
        call()
    times = [{name: seconds(call) for name, call in calls.items()} for _ in range(rounds)]
    print(title)
    for name in calls:
        ratios = [row[name] / next(iter(row.values())) for row in times]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        print(f"  {name:28}{middle:6.2f} gradients (from {low:.2f} to {high:.2f})")


def main() -> None:
    rng = torch.Generator().manual_seed(0)
    lite = tl.load_model("efficientnet_lite0", device="cpu")
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18().eval().requires_grad_(False)
    for name, model, count in (("EfficientNet-Lite0", lite, 16), ("resnet18", resnet, 16)):
        x = torch.randn(count, 3, 224, 224, generator=rng) / 2
        own = torch.randn(count, 3, 224, 224, generator=rng) / 4

        def map_of(method, model=model, x=x, **keywords):
            return lambda: method(model, x, 7, **keywords)

        calls = {
            "gradient": map_of(tl.gradient),
            "rescale": map_of(tl.deeplift),
            "rescale, own baselines": map_of(tl.deeplift, baseline=own),
            "reveal_cancel": map_of(tl.deeplift, rule="reveal_cancel"),
            "reveal_cancel, own baselines": map_of(tl.deeplift, rule="reveal_cancel", baseline=own),
            "lrp, epsilon": map_of(tl.lrp),
            "lrp, composite": map_of(tl.lrp, rule="composite"),
            "guided backprop": map_of(tl.guided_backprop),
            "captum's gradient": lambda m=model, x=x: peer.Saliency(m).attribute(x, 7, abs=False),
        }
        table(f"{name}, {count} pictures, batch size as chosen", calls)


if __name__ == "__main__":
    main()
