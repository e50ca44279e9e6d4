"""How many gradients a second: ours, the bare floor under it, and its peers, in one run.

    python benchmarks/rates.py                       the table for this machine, printed
    python benchmarks/rates.py --out book/tutorial_book/results/rates.csv      and stored

For every network and method all contenders take turns, round by round; a ratio is the median over
rounds of ours beside theirs. Each has a process of its own, as its users do, so that none works
with memory that another left behind, and a short run before each that counts. Contenders:

floor          a loop of forward and backward passes over one fixed batch of the prepared network
               (batch norm folded, channels last, frozen) and nothing else, at its best size
ours           tutorial_lib as it comes
captum         captum as it comes, on the network as timm or torchvision makes it
captum, tuned  the same at its best internal_batch_size (nt_samples_batch_size for SmoothGrad)
one by one     the plain loop over samples, on the same network as captum
all at once    all samples in one batch, parameters that want gradients too, gradients brought to
               the host

For the perturbation curve the passes are forward passes. A row: `device`, `machine`, `precision`
(of all contenders), `model`, `method`, `contender`, `rate` a second (median), `low` and `high` (of
the rounds), `ratio` (ours beside it), `ratio_low`, `ratio_high`, `size` (rows a pass, where tuned),
`peak` (MiB, beyond what was there before), `rounds`. A contender that would not fit into memory is
left out, and said so. Networks other than EfficientNet-Lite0 have random weights: rates do not
depend on them.
"""

import argparse
import copy
import csv
import ctypes
import multiprocessing
import platform
import statistics
import time
import warnings
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import captum.attr as peer
import timm.layers
import torch
import torchvision
from torch import Tensor, nn

import tutorial_lib as tl
from tutorial_lib.fast.lean_layers import LeanConv2dSame, LeanReLU6
from tutorial_lib.fast.precision_modes import PRECISIONS, precision_for

SIZES = {"cpu": (1, 2, 3, 4, 6, 8, 12, 16), "cuda": (8, 16, 32, 50, 64, 100, 128)}
LOOP = {"cpu": 24, "cuda": 1200}  # passes of the two loops
METHODS = {"IG": 50, "SmoothGrad": 50, "SmoothTaylor": 150, "perturbation": 301}  # passes a map
FIELDS = ["device", "machine", "precision", "model", "method", "contender", "rate", "low", "high"]
FIELDS += ["ratio", "ratio_low", "ratio_high", "size", "peak", "rounds"]
LINUX = platform.system() == "Linux"
SHORT = 16  # passes of the run before each that counts
SIGMA = 0.2


def networks(name: str, device: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """The network as its library makes it, the prepared one, and a picture."""
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) / 2
    if name == "efficientnet_lite0":
        bare = tl.models._lite(name).network.eval()
        x = tl.load_model(name, device="cpu").preprocess(tl.load_image("coffee"))
    else:
        torch.manual_seed(0)
        bare = torchvision.models.get_model(name, weights=None).eval()
    for weight in bare.parameters():
        weight.requires_grad_(True)
    bare, x = bare.to(device), x.to(device)
    return bare, tl.models.prepare(bare, x), x


class Contest:
    """One method on one network: the contenders, each a call with a count and a size."""

    def __init__(self, method: str, bare: nn.Module, fast: nn.Module, x: Tensor):
        self.method, self.bare, self.fast, self.x = method, bare, fast, x
        self.forward = method == "perturbation"
        self.plain = without_lean(fast)
        with torch.no_grad():
            self.target = int(fast(x).argmax())
        self.calls = {"floor": self.floor, "ours": self.ours}
        if method in ("IG", "SmoothGrad"):
            self.calls |= {"captum, tuned": self.captum, "captum": self.captum}
        self.calls["one by one"] = lambda n, size: self.passes(bare, n, 1)
        if not self.forward:
            self.calls["all at once"] = self.all_at_once

    def passes(self, network: nn.Module, count: int, size: int) -> None:
        """Passes over one fixed batch, and nothing else."""
        z = self.x.expand(size, -1, -1, -1).clone()
        for start in range(0, count, size):
            z = z[: count - start]
            if self.forward:
                with torch.no_grad():
                    network(z)
            else:
                z = z.detach().requires_grad_()
                torch.autograd.grad(network(z)[:, self.target].sum(), z)

    def floor(self, count: int, size: int) -> None:
        self.passes(self.plain, count, size)

    def ours(self, count: int, size: None = None) -> Tensor:
        network, x, target = self.fast, self.x, self.target
        if self.method == "IG":
            return tl.integrated_gradients(network, x, target, steps=count)
        if self.method == "SmoothGrad":
            return tl.smoothgrad(network, x, target, sigma=SIGMA, samples=count)
        if self.method == "SmoothTaylor":
            return tl.smooth_taylor(network, x, target, sigma=SIGMA, roots=count)
        draws = min(50, count - 1)
        own = dict(bounds=(-1.0, 1.0), draws=draws, count=(count - 1) // draws, softmax=True)
        return tl.metrics.perturbation_curve(network, x, target, x[:, 0], **own)

    def captum(self, count: int, size: int | None = None) -> Tensor:
        if self.method == "IG":
            own = dict(n_steps=count, method="riemann_right", internal_batch_size=size)
            return peer.IntegratedGradients(self.bare).attribute(self.x, 0.0, self.target, **own)
        own = dict(nt_samples=count, stdevs=SIGMA, nt_samples_batch_size=size, abs=False)
        tunnel = peer.NoiseTunnel(peer.Saliency(self.bare))
        return tunnel.attribute(self.x, nt_type="smoothgrad", target=self.target, **own)

    def all_at_once(self, count: int, size: None = None) -> Tensor:
        x = self.x
        z = x + SIGMA * torch.randn(count, *x.shape[1:], device=x.device)
        if self.method == "IG":
            z = x * torch.linspace(1 / count, 1, count, device=x.device).view(-1, 1, 1, 1)
        z.requires_grad_()
        self.bare(z)[:, self.target].sum().backward()
        self.bare.zero_grad()
        weight = {"IG": x, "SmoothGrad": torch.ones_like(x)}.get(self.method, x - z.detach())
        return (weight.cpu() * z.grad.cpu()).mean(0)

    def points(self) -> Tensor:
        """The points of our SmoothGrad."""
        return tl.probes.gaussian(self.x, sigma=SIGMA, samples=50).points()

    def theirs(self, points: Tensor) -> Tensor:
        """Captum's map, SmoothGrad's at given points."""
        if self.method == "IG":
            return self.captum(50, 4).detach()
        saliency = partial(peer.Saliency(self.bare).attribute, target=self.target, abs=False)
        return sum(saliency(z) for z in points) / 50

    def fits(self, name: str, count: int) -> bool:
        """Whether a pass of all samples has room, with a tenth to spare."""
        if name not in ("captum", "all at once") or self.x.device.type == "cuda":
            return True
        lines = Path("/proc/meminfo").read_text().splitlines() if LINUX else []
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
        return not free or 1.1 * count * kept(self.bare, self.x) < free[0]


def kept(network: nn.Module, row: Tensor) -> int:
    """Bytes that a pass of one row keeps for its backward pass."""
    blocks = {}

    def note(tensor: Tensor) -> Tensor:
        blocks[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # the tensor itself would hold the graph that holds it

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(row.clone().requires_grad_())
    return sum(blocks.values())


def without_lean(network: nn.Module) -> nn.Module:
    """A prepared network with PyTorch's and timm's own layers: folded, channels last, frozen."""
    plain = copy.deepcopy(network)
    for layer in plain.modules():
        if type(layer) is LeanReLU6:
            layer.__class__ = nn.ReLU6
        elif type(layer) is LeanConv2dSame:
            layer.__class__ = timm.layers.Conv2dSame
    return plain


def agreement(contest: Contest) -> str:
    """How far captum's map and ours are apart, relative to their size, with the same 50 points."""
    points = contest.points()
    bare, x = copy.deepcopy(contest.bare).double(), contest.x.double()
    wide = Contest(contest.method, bare, tl.models.prepare(bare, x), x)
    theirs, ours, exact = contest.theirs(points), contest.ours(50), wide.theirs(points.double())
    both = apart(ours, theirs), apart(wide.ours(50), wide.theirs(wide.points()))
    each = apart(theirs, exact), apart(ours, exact)
    return (
        "captum's map and ours differ by {:.1e} in float32 and by {:.1e} in float64; in float32 "
        "captum's is {:.1e} from float64's, ours {:.1e}".format(*both, *each)
    )


def apart(one: Tensor, other: Tensor) -> float:
    """The norm of the difference beside the other's norm."""
    return float((one.double() - other.double()).norm() / other.double().norm())


def seconds(call, device: str) -> float:
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def tuned(call, device: str) -> list[int]:
    """The two best sizes of a call (count, size), by two short runs each."""
    rates = {}
    for size in SIZES[device]:
        count = -(-16 // size) * size if device == "cpu" else 4 * size
        rates[size] = max(count / seconds(partial(call, count, size), device) for _ in range(2))
    return sorted(rates, key=rates.get)[-2:]


def peak(call, device: str) -> float:
    """The most memory that a call took beyond what there was before, in MiB."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not LINUX:
        call()
        return float("nan")

    def status(key: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(key))

    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


class Contender:
    """A call of a contest in a process of its own."""

    def __init__(self, name: str, *contest: str):
        context = multiprocessing.get_context("spawn")
        self.line, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, name, *contest), daemon=True)
        self.process.start()
        other.close()  # so that the end of the process is noticed

    def ask(self, *question: object) -> object:
        """The answer to (what, ...), one of the names in `serve`."""
        self.line.send(question)
        return self.line.recv()

    def end(self) -> None:
        """Send it home."""
        self.line.send(None)
        self.process.join()


def serve(line: Connection, name: str, network: str, method: str, device: str, kind: str) -> None:
    """Answer questions about one call until None comes."""
    warnings.simplefilter("ignore")  # captum's about leaves that want gradients
    contest = Contest(method, *networks(network, device))
    call = contest.calls[name]

    def rate(count: int, size: int | None) -> float:
        call(SHORT, size)
        return count / seconds(partial(call, count, size), device)

    answers = {
        "fits": partial(contest.fits, name),
        "sizes": partial(tuned, call, device),
        "peak": lambda *given: peak(partial(call, *given), device),
        "rate": rate,
    }
    with tl.precision(kind), precision_for(torch.device(device)):
        while question := line.recv():
            line.send(answers[question[0]](*question[1:]))
            if device == "cuda":
                torch.cuda.empty_cache()  # for the others


def measure(names: list[str], *contest: str, rounds: int) -> list[dict]:
    """The rows of one method on one network: contest is (network, method, device, precision)."""
    _, method, device, _ = contest
    runs, peaks = {}, {}
    for name in names:
        one, count = Contender(name, *contest), METHODS[method]
        if not one.ask("fits", count):
            print(f"  {name}: {count} samples at once do not fit into memory, left out")
            one.end()
            continue
        for size in one.ask("sizes") if name in ("floor", "captum, tuned") else [None]:
            most = count
            if name in ("floor", "one by one"):  # whole passes of a loop, which are all alike
                most = -(-LOOP[device] // (size or 1)) * (size or 1)
            runs[name, size] = one, most
            peaks[name, size] = one.ask("peak", most, size)
    rates = {key: [] for key in runs}
    for _ in range(rounds):
        for key, (one, most) in runs.items():
            rates[key].append(one.ask("rate", most, key[1]))
    for one in {one for one, _ in runs.values()}:
        one.end()
    return [row | {"rounds": rounds} for row in rows_of(rates, peaks)]


def rows_of(rates: dict, peaks: dict) -> Iterator[dict]:
    """A row for each contender, at the better of its two best sizes."""
    for name, size in rates:
        same = [key for key in rates if key[0] == name]
        if (name, size) != max(same, key=lambda key: statistics.median(rates[key])):
            continue
        mine = rates[name, size]
        ratios = [a / b for a, b in zip(rates["ours", None], mine, strict=True)]
        row = {"contender": name, "size": size or "", "peak": f"{peaks[name, size]:.0f}"}
        for key, values in {"rate": mine, "ratio": ratios}.items():
            columns = (key, "low", "high") if key == "rate" else (key, "ratio_low", "ratio_high")
            three = statistics.median(values), min(values), max(values)
            row |= {n: f"{v:.3g}" for n, v in zip(columns, three, strict=True)}
        yield row


def machine(device: str) -> str:
    """What it ran on, in words."""
    versions = f"Python {platform.python_version()}, PyTorch {torch.__version__}"
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}; {versions}"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if LINUX else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor()
    kernels = torch.backends.cpu.get_cpu_capability()
    return f"{torch.get_num_threads()} cores of {cpu} with {kernels}; {versions}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", choices=SIZES, default="cuda" if gpu else "cpu")
    own = dict(default=["efficientnet_lite0", "resnet50", "densenet121"])
    parser.add_argument("--models", nargs="+", **own)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--contenders", nargs="+", help="those beside ours; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="append the rows to this CSV file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # captum's about leaves that want gradients
    print(machine(options.device))
    for name in options.models:
        bare, fast, x = networks(name, options.device)
        if name == "efficientnet_lite0" and "SmoothGrad" in options.methods:
            ours = Contest("SmoothGrad", bare, fast, x).ours  # before others leave holes in memory
            ours(50)
            found = [peak(partial(ours, n), options.device) for n in (50, 500)]
            print("peak memory of 50 and of 500 samples: {:.0f} and {:.0f} MiB".format(*found))
        for method in options.methods:
            contest = Contest(method, bare, fast, x)
            print(f"{name}, {method} ({METHODS[method]} passes a map), {options.rounds} rounds")
            if method in ("IG", "SmoothGrad"):
                print(f"  {agreement(contest)}")
            about = name, method, options.device, options.precision
            wanted = {"ours", *(options.contenders or contest.calls)}
            names = [name for name in contest.calls if name in wanted]
            rows = measure(names, *about, rounds=options.rounds)
            for row in rows:
                print(
                    "  {contender:14} {rate:>6}/s ({low} to {high})  ours {ratio} times "
                    "({ratio_low} to {ratio_high})  size {size}  peak {peak} MiB".format(**row)
                )
            where = dict(device=options.device, machine=machine(options.device))
            where |= dict(precision=options.precision, model=name, method=method)
            if options.out:
                append(options.out, [where | row for row in rows])


def append(path: Path, rows: list[dict], fields: list[str] = FIELDS) -> None:
    """Add rows to a CSV file, which gets a header where it is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fields)
        if new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
