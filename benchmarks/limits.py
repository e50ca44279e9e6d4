"""What a gradient must cost on this machine, what it does cost, and where the time goes.

    python benchmarks/limits.py                                    printed
    python benchmarks/limits.py --out book/tutorial_book/results/limits.csv      and stored

Two limits of the machine are measured, in between the rest: `arithmetic`, the rate of a large
matrix product or 1 x 1 convolution (GFLOP/s), and `memory`, what a copy of a large tensor reads and
writes (GB/s); the best of the run counts. Then SmoothGrad with 50 samples of the prepared network,
as it comes and under PyTorch's profiler. A row for each `kind` of operation, all numbers for one
gradient: `work` (GFLOP) and `moved` (MB, if each operation fetches what it reads and stores what it
makes), counted layer by layer, forward and back; `least`, the time that the slower of the two
takes, by the machine's limits; and `time` as profiled (ms; on a GPU that of the kernels). Of an
activation only the slope is counted, as a convolution can clip what it makes; sums, concatenations
and pooling are not. The kind "all" has the time without the profiler, and the sum of all `least`.
Times are medians over the rounds.
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
from tutorial_lib.fast.passes import Passes
from tutorial_lib.fast.precision_modes import precision_for

FIELDS = ["device", "machine", "precision", "model", "kind", "time", "low", "high", "arithmetic"]
FIELDS += ["memory", "work", "moved", "least", "rounds"]
SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices
BYTES = {"cpu": 2**28, "cuda": 2**31}
SAMPLES, WARM, TRIES = 50, 4, 4
POINTWISE, LARGER = "1 x 1 convolutions", "larger convolutions"
SLOPES, NORMS, DENSE = "activations", "batch norms", "linear layers"
NOISE, REST, ALL = "noise", "rest", "all"
KINDS = POINTWISE, LARGER, SLOPES, NORMS, DENSE, NOISE, REST
ACTIVATIONS = nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardtanh


def limits(device: str) -> tuple[float, float]:
    """The largest rates of arithmetic (GFLOP/s) and of memory (GB/s)."""
    side, layout = SIDE[device], dict(memory_format=torch.channels_last)
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    x = torch.randn(side // 256, 1024, 32, 32, device=device).contiguous(**layout)
    kernel = torch.randn(1024, 1024, 1, 1, device=device).contiguous(**layout)
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


def needed(network: nn.Module, x: Tensor, rows: int) -> list[tuple[str, float, float]]:
    """(kind, operations, bytes) of each layer, for a gradient, where `rows` go into a pass."""
    found = []

    def count(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        kind, made = kind_of(layer), output.numel()
        if kind == SLOPES:
            found.append((kind, made, 4 * 3 * made))
        elif kind == NORMS:
            found.append((kind, 3 * made, 4 * 4 * made))
        else:
            moved = inputs[0].numel() + made + layer.weight.numel() / rows
            found.append((kind, 2 * 2 * made * layer.weight[0].numel(), 2 * 4 * moved))

    hooks = [m.register_forward_hook(count) for m in network.modules() if kind_of(m)]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return found


def bounds(layers: list[tuple], peak: tuple[float, float]) -> dict[str, dict[str, float]]:
    """kind: what its layers need, and the time that they take at least; and that of all."""
    found = defaultdict(lambda: dict(work=0.0, moved=0.0, least=0.0))
    for kind, flops, moved in layers:
        least = max(flops / peak[0], moved / peak[1]) / 1e6
        for name in (kind, ALL):
            found[name]["work"] += flops / 1e9
            found[name]["moved"] += moved / 1e6
            found[name]["least"] += least
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
    """kind: ms of a call, by the profiler."""
    units = {ProfilerActivity.CPU, getattr(ProfilerActivity, device.upper())}
    with profile(activities=list(units), record_shapes=True) as seen:
        seconds(call, device)
    spent = defaultdict(float)
    for event in seen.events():
        if event.device_type == DeviceType.CPU:  # not a kernel, which counts as its operation's
            own = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
            spent[kind_of_event(event)] += own / 1e3
    return spent


def measure(model: str, device: str, rounds: int, peaks: list) -> tuple[dict, list]:
    """The times of a network's kinds, ms a gradient, and what its layers need."""
    _, fast, x = networks(model, device)
    with torch.no_grad():
        target = int(fast(x).argmax())
    call = partial(tl.smoothgrad, fast, x, target, sigma=SIGMA, samples=SAMPLES)
    for _ in range(WARM):
        call()
    times = defaultdict(list)
    for _ in range(rounds):
        call()  # the limits have left memory in disorder
        times[ALL].append(1e3 * seconds(call, device) / SAMPLES)
        spent = profiled(call, device)
        for kind in KINDS:
            times[kind].append(spent[kind] / SAMPLES)
        with precision_for(torch.device(device)):
            peaks.append(limits(device))
    return times, needed(fast, x, Passes(None, x).rows)


def row(values: list[float], **own: float) -> dict[str, str]:
    """One kind's row: the median of its times, the range, and other numbers."""
    found = dict(time=statistics.median(values), low=min(values), high=max(values)) | own
    return {name: f"{value:.3g}" for name, value in found.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", choices=SIDE, default="cuda" if gpu else "cpu")
    own = dict(default=["efficientnet_lite0", "resnet50", "densenet121"])
    parser.add_argument("--models", nargs="+", **own)
    parser.add_argument("--precision", choices=["float32", "tf32"], default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="append the rows to this CSV file")
    options = parser.parse_args()
    where = dict(device=options.device, machine=machine(options.device))
    where |= dict(precision=options.precision, rounds=options.rounds)
    print(where["machine"])
    peaks = []
    with tl.precision(options.precision):
        own = options.device, options.rounds, peaks
        found = {model: measure(model, *own) for model in options.models}
    peak = tuple(max(rates) for rates in zip(*peaks, strict=True))
    print("arithmetic {:.0f} GFLOP/s, memory {:.0f} GB/s; ms a gradient".format(*peak))
    for model, (times, layers) in found.items():
        need, rows = bounds(layers, peak), []
        for kind in (*KINDS, ALL):
            if max(times[kind]):
                own = row(times[kind], arithmetic=peak[0], memory=peak[1], **need.get(kind, {}))
                rows.append(where | dict(model=model, kind=kind) | own)
                print("{model} {kind}: {time} ({low} to {high}), ".format(**rows[-1]), end="")
                print("at least {least}".format(**own) if "least" in own else "not bounded")
        if options.out:
            append(options.out, rows, FIELDS)


if __name__ == "__main__":
    main()
