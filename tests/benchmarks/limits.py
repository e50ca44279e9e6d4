"""What a gradient must cost on this machine, what it does cost, and where the time goes.

    python tests/benchmarks/limits.py                                    printed
    python tests/benchmarks/limits.py --out book/results/limits.csv      and stored

Two limits of the machine are measured: `arithmetic`, the rate of a large matrix product in the
precision asked for (GFLOP/s), and `memory`, what a copy of a large tensor reads and writes (GB/s).
Then SmoothGrad with 50 samples of the prepared network, as it comes and under PyTorch's profiler.
A row for each `kind` of operation, all numbers for one gradient: `work` (GFLOP) and `moved` (MB,
if each operation fetches what it reads and stores what it makes), counted layer by layer; `least`,
the time that the slower of the two takes, by the machine's limits; and `time` as profiled (ms; on
a GPU that of the kernels). The kind "all" has the time without the profiler, so what it exceeds the
sum of the others by is spent outside of operations. Times are medians over the rounds.
"""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rates import SIGMA, append, machine, networks, seconds  # beside this file
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

import tutorial_lib as tl
from tutorial_lib.precision import PRECISIONS, applied

FIELDS = ["device", "machine", "precision", "model", "kind", "time", "low", "high", "arithmetic"]
FIELDS += ["memory", "work", "moved", "least", "rounds"]
SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices
BYTES = {"cpu": 2**28, "cuda": 2**31}
ROWS = {"cpu": 8, "cuda": 50}  # of a pass, which share the reading of the weights
SAMPLES, WARM, TRIES = 50, 4, 4
POINTWISE, LARGER = "1 x 1 convolutions", "larger convolutions"
SLOPES, NORMS, DENSE = "activations", "batch norms", "linear layers"
NOISE, REST, ALL = "noise", "rest", "all"
KINDS = POINTWISE, LARGER, SLOPES, NORMS, DENSE, NOISE, REST
ACTIVATIONS = nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardtanh


def limits(device: str) -> tuple[float, float]:
    """The largest rates of arithmetic (GFLOP/s) and of memory (GB/s)."""
    side, last = SIDE[device], dict(memory_format=torch.channels_last)
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    x = torch.randn(side // 256, 1024, 32, 32, device=device).contiguous(**last)
    kernel = torch.randn(1024, 1024, 1, 1, device=device).contiguous(**last)
    source = torch.ones(BYTES[device] // 4, device=device)
    copy = torch.empty_like(source)

    def rate(amount: float, call: Callable, *given: Tensor) -> float:
        least = min(seconds(partial(call, *given), device) for _ in range(TRIES))
        return amount / least / 1e9

    with torch.no_grad():
        product = rate(2 * side**3, torch.mm, a, b)
        convolution = rate(2 * x.numel() * 1024, nn.functional.conv2d, x, kernel)
    return max(product, convolution), rate(2 * BYTES[device], copy.copy_, source)


def kind_of(layer: nn.Module) -> str | None:
    """The kind of a layer; None for one that is not counted."""
    if isinstance(layer, nn.Conv2d):
        return POINTWISE if layer.kernel_size == (1, 1) else LARGER
    if isinstance(layer, nn.Linear):
        return DENSE
    if isinstance(layer, nn.BatchNorm2d):
        return NORMS
    return SLOPES if isinstance(layer, ACTIVATIONS) else None


def needed(network: nn.Module, x: Tensor, rows: int, peak: list[float]) -> dict[str, tuple]:
    """kind: (GFLOP, MB, least ms) a gradient, where `rows` go into a pass."""
    found = defaultdict(lambda: [0.0, 0.0, 0.0])

    def count(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        kind, made = kind_of(layer), output.numel()
        if kind == SLOPES:  # the slope alone, as a convolution can clip what it makes
            flops, moved = made, 4 * 3 * made
        elif kind == NORMS:
            flops, moved = 3 * made, 4 * 4 * made
        else:  # forward and back
            flops = 2 * 2 * made * layer.weight[0].numel()
            moved = 2 * 4 * (inputs[0].numel() + made + layer.weight.numel() / rows)
        least = max(flops / peak[0], moved / peak[1]) / 1e6
        for i, value in enumerate((flops / 1e9, moved / 1e6, least)):
            found[kind][i] += value

    hooks = [m.register_forward_hook(count) for m in network.modules() if kind_of(m)]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return found


def kind_of_event(event: FunctionEvent) -> str:
    """The kind of an operation that the profiler saw."""
    name, shapes = event.name, event.input_shapes
    if name.startswith(("aten::", "mkldnn::")) and "conv" in name and "reorder" not in name:
        kernel = shapes[2] if "backward" in name else shapes[1]
        return POINTWISE if kernel[2:] == [1, 1] else LARGER
    if any(part in name for part in ("hardtanh", "threshold", "clamp", "relu", "silu")):
        return SLOPES
    if "batch_norm" in name:
        return NORMS
    if name in ("aten::addmm", "aten::mm"):
        return DENSE
    return NOISE if name == "aten::normal_" else REST


def profiled(call: Callable, device: str) -> dict[str, float]:
    """kind: ms of a call. Of operations alike the median counts, as a few wait for the system."""
    units = {ProfilerActivity.CPU, getattr(ProfilerActivity, device.upper())}
    with profile(activities=list(units), record_shapes=True) as seen:
        seconds(call, device)
    alike, spent = defaultdict(list), defaultdict(float)
    for event in seen.events():
        if event.device_type != DeviceType.CPU:  # a kernel: it counts as its operation's
            continue
        own = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        alike[event.name, str(event.input_shapes), kind_of_event(event)].append(own / 1e3)
    for (_, _, kind), times in alike.items():
        spent[kind] += statistics.median(times) * len(times)
    return spent


def measure(model: str, device: str, rounds: int) -> list[dict]:
    """The rows of a network."""
    _, fast, x = networks(model, device)
    with torch.no_grad():
        target = int(fast(x).argmax())
    call = partial(tl.smoothgrad, fast, x, target, sigma=SIGMA, samples=SAMPLES)
    for _ in range(WARM):  # passes of all sizes are tried
        call()
    whole, parts, peaks = [], [], []
    for _ in range(rounds):
        call()  # the limits have left memory in disorder
        whole.append(1e3 * seconds(call, device))
        parts.append(profiled(call, device))
        with applied(torch.device(device)):
            peaks.append(limits(device))
    peak = [max(rates) for rates in zip(*peaks, strict=True)]
    times = {kind: [part[kind] for part in parts] for kind in KINDS} | {ALL: whole}
    need = needed(fast, x, ROWS[device], peak)
    need[ALL] = [sum(values) for values in zip(*need.values(), strict=True)]
    return [row(kind, peak, need.get(kind), own) for kind, own in times.items() if max(own)]


def row(kind: str, peak: list[float], need: list[float] | None, times: list[float]) -> dict:
    """One kind's row; need: GFLOP, MB and ms, or None where nothing is counted."""
    three = statistics.median(times), min(times), max(times)
    found = dict(zip(("time", "low", "high"), (t / SAMPLES for t in three), strict=True))
    found |= dict(arithmetic=peak[0], memory=peak[1])
    if need:
        found |= dict(zip(("work", "moved", "least"), need, strict=True))
    return {"kind": kind} | {name: f"{value:.3g}" for name, value in found.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", choices=SIDE, default="cuda" if gpu else "cpu")
    own = dict(default=["efficientnet_lite0", "resnet50", "densenet121"])
    parser.add_argument("--models", nargs="+", **own)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="append the rows to this CSV file")
    options = parser.parse_args()
    where = dict(device=options.device, machine=machine(options.device))
    where |= dict(precision=options.precision, rounds=options.rounds)
    print(where["machine"])
    for model in options.models:
        with tl.precision(options.precision):
            rows = measure(model, options.device, options.rounds)
        print("{}, at {arithmetic} GFLOP/s and {memory} GB/s".format(model, **rows[0]))
        for one in rows:
            text = "  {kind:20}{time:>7} ms ({low} to {high})".format(**one)
            if "least" in one:
                text += ", at least {least} ms for {work} GFLOP and {moved} MB".format(**one)
            print(text)
        if options.out:
            append(options.out, [where | one | {"model": model} for one in rows], FIELDS)


if __name__ == "__main__":
    main()
