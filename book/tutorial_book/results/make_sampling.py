"""How many gradients, and seconds, a map takes until it repeats: ways to draw noise, many pictures.

    python make_sampling.py PICTURES --count 20 --out sampling.csv
    python make_sampling.py --table sampling.csv          prints the table of a finished file

PICTURES as for make_reliability.py. Noise has 10.5 % of the range (the 0.5 of SmoothTaylor's paper)
unless `level` says otherwise; SmoothGrad and SmoothTaylor share their gradients. Each scheme makes
maps of `gradients` gradients each, from draws of its own. A row: picture, `method`, `scheme`,
`level` in per cent of the range, and over the entries of the signed map

signal      the variance of the map's expectation, from products of maps that share no draw
error       the variance of a map's sampling error, times its gradients
single      the variance of the sampling error of one gradient alone, of the same draws
heat_signal, heat_error, heat_single   the same for the map summed over channels

so that two maps of n gradients correlate by signal / (signal + error / n), the reliability of
`tl.reliability`. `single` is the same for all schemes but for chance, so error / single, which
knows how large these draws are, is what the scheme changes (for noise baselines a draw is a path).
`correlation`: for "leading 768 directions" the share of the error's variance that
the 768 lowest frequencies of the noise decide, alone or together (pick and freeze); for "half
resolution" the correlation of its errors with those of the same draws at full resolution; for the
biased schemes that of their expectation with SmoothGrad's. Biased schemes: "SmoothDiff" averages
the derivative of every ReLU6 over `gradients` forward passes before one backward pass; "best
filter" is SmoothGrad through the best filter of its frequencies, which knows the answer, and its
`error` is nine times smaller than the gradients that it needs for the accuracy of reliability 0.9.
`seconds`: of one processor core for each gradient (for "SmoothDiff" for each forward pass), with
the drawing; all take turns on each picture, captum's NoiseTunnel beside them ("captum" on the
network as timm makes it, "captum, prepared" on ours). `bias`, `bias_error`: of the scheme on a
small network of erf whose blurred gradient is known, a new one for each picture, relative to the
answer and along it. `machine` is what it ran on. Pictures that are there are not measured again.
"""

import argparse
import copy
import csv
import math
import platform
import random
import statistics
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

import captum.attr as peer
import torch
import torch.nn.functional as F
from over_pictures import measure
from torch import Tensor, nn

import tutorial_lib as tl

FIELDS = ["picture", "method", "scheme", "level", "gradients", "signal", "error", "single"]
FIELDS += [
    "heat_signal",
    "heat_error",
    "heat_single",
    "correlation",
    "seconds",
    "bias",
    "bias_error",
    "machine",
]
N, LEVEL, LOW = 16, 10.5, 16  # gradients in a map, noise, 16 x 16 frequencies


# How a scheme draws: (n, *shape) numbers, of which each row alone is N(0, I).


def plain(n: int, shape: tuple, rng: torch.Generator) -> Tensor:
    """n independent draws."""
    return torch.randn(n, *shape, generator=rng)


def antithetic(n: int, shape: tuple, rng: torch.Generator) -> Tensor:
    """n / 2 draws and their opposites, side by side."""
    half = plain(n // 2, shape, rng)
    return torch.stack([half, -half], 1).flatten(0, 1)


def orthogonal(n: int, shape: tuple, rng: torch.Generator) -> Tensor:
    """n orthogonal directions, each with the length of a draw."""
    draws, lengths = plain(n, shape, rng).flatten(1), plain(n, shape, rng).flatten(1).norm(dim=1)
    lower = torch.linalg.cholesky((draws @ draws.T).double()).to(draws)
    rows = torch.linalg.solve_triangular(lower, draws, upper=False)  # orthonormal, uniform
    return (lengths[:, None] * rows).view(n, *shape)


def stratified(n: int, shape: tuple, rng: torch.Generator) -> Tensor:
    """Every entry takes each of n equal parts of its distribution once (Latin hypercube)."""
    strata = torch.rand(n, *shape, generator=rng).argsort(0)
    within = torch.rand(n, *shape, generator=rng)
    return torch.special.ndtri(((strata + within) / n).clamp(1e-7, 1 - 1e-7))


def low_frequencies(size: int, count: int) -> Tensor:
    """The lowest cosines as orthonormal columns, (size, count)."""
    k, i = torch.arange(count), torch.arange(size)
    basis = torch.cos(math.pi * k * (i[:, None] + 0.5) / size)
    return basis / basis.norm(dim=0)


def with_leading(eps: Tensor, uniform: Tensor) -> Tensor:
    """Noise whose low frequencies are replaced by normal numbers made of uniform ones, (n, D)."""
    count = int((uniform.shape[1] // eps.shape[1]) ** 0.5)
    basis = low_frequencies(eps.shape[-1], count)
    old = torch.einsum("nchw,hi,wj->ncij", eps, basis, basis)
    new = torch.special.ndtri(uniform.clamp(1e-7, 1 - 1e-7)).view_as(old)
    return eps + torch.einsum("ncij,hi,wj->nchw", new - old, basis, basis)


def leading(shape: tuple) -> int:
    """The number of leading directions."""
    return shape[0] * min(LOW, shape[1] // 2) ** 2


def sobol(n: int, shape: tuple, rng: torch.Generator) -> Tensor:
    """A scrambled Sobol sequence in the leading directions, plain draws in the others."""
    seed = int(torch.randint(2**31, (1,), generator=rng))
    points = torch.quasirandom.SobolEngine(leading(shape), scramble=True, seed=seed).draw(n)
    return with_leading(plain(n, shape, rng), points.float())


def lattice(n: int, shape: tuple, rng: torch.Generator) -> Tensor:
    """A shifted lattice of rank 1 in the leading directions, plain draws in the others."""
    count = leading(shape)
    generator = 2 * torch.randint(n // 2, (count,), generator=rng) + 1
    shift = torch.rand(count, generator=rng)
    points = (torch.arange(n)[:, None] * generator / n + shift) % 1
    return with_leading(plain(n, shape, rng), points)


SCHEMES = {"random": plain, "antithetic": antithetic, "orthogonal": orthogonal}
SCHEMES |= {"stratified": stratified, "sobol": sobol, "lattice": lattice}
SOME = ("random", "antithetic", "stratified")  # for noise baselines
MAPS = {"random": 2, "antithetic": 2}  # of the others 1


# What is measured of maps.


def product(a: Tensor, b: Tensor) -> float:
    """The covariance of two maps over their entries."""
    a, b = a.double().flatten(), b.double().flatten()
    return float((a - a.mean()) @ (b - b.mean())) / len(a)


def shared(maps: list[Tensor]) -> float:
    """The mean covariance of two different maps of a list."""
    n, total = len(maps), sum(m.double() for m in maps)
    return (product(total, total) - sum(product(m, m) for m in maps)) / (n * (n - 1))


def own(maps: list[Tensor]) -> float:
    """The mean variance of a map over its entries."""
    return statistics.mean(product(m, m) for m in maps)


class Maps:
    """The maps of one scheme, their views, and the variances of the draws that they average."""

    VIEWS: ClassVar[dict] = {"": lambda m: m, "heat_": lambda m: m.sum(-3)}

    def __init__(self):
        self.maps: list[Tensor] = []
        self.single: dict[str, list[float]] = {name: [] for name in self.VIEWS}

    def add(self, draws: Tensor) -> None:
        """Take the draws of one map, (n, C, H, W)."""
        self.maps.append(draws.mean(0))
        for name, view in self.VIEWS.items():
            self.single[name].append(own([view(d) for d in draws]))


def row(
    method: str,
    scheme: str,
    n: int,
    made: dict[str, Maps],
    own_maps: Maps | None = None,
    per_draw: int = 1,
    **rest,
):
    """Signal and error of a scheme; the signal comes from `made`, which share no draw."""
    mine = own_maps or made[scheme]
    found = dict(method=method, scheme=scheme, level=LEVEL, gradients=n)
    for name, view in Maps.VIEWS.items():
        signal = shared([view(m) for maps in made.values() for m in maps.maps])
        error = n * (own([view(m) for m in mine.maps]) - signal)
        found |= {f"{name}signal": signal, f"{name}error": error}
        if mine.single[name]:
            single = statistics.mean(mine.single[name]) - signal
            found |= {f"{name}single": per_draw * single}
    return found | rest


class Measured:
    """One picture, its gradients and maps."""

    def __init__(self, model: nn.Module, x: Tensor, target: int, seed: int):
        self.model, self.x, self.target, self.seed = model, x, target, seed

    def rng(self, *use: object) -> torch.Generator:
        """A generator of its own for each use of noise."""
        return torch.Generator().manual_seed(random.Random(f"{self.seed} {use}").getrandbits(62))

    def gradients(self, points: Tensor, model: nn.Module | None = None) -> Tensor:
        """Gradients at points, four at a time."""
        net, label = model or self.model, self.target
        parts = points.split(4)
        return torch.cat([tl.engine.gradients(net, p, torch.full((len(p),), label)) for p in parts])

    def noisy(self, scheme: str, sigma: float | Tensor) -> tuple[Maps, Maps]:
        """Maps of SmoothGrad and of SmoothTaylor."""
        smooth, taylor = Maps(), Maps()
        for k in range(MAPS.get(scheme, 1)):
            eps = sigma * SCHEMES[scheme](N, self.x.shape[1:], self.rng(scheme, k))
            slopes = self.gradients(self.x + eps)
            smooth.add(slopes)
            taylor.add(-eps * slopes)
        return smooth, taylor


def smoothing_rows(one: Measured, sigma: float) -> tuple[list[dict], list[Tensor]]:
    """SmoothGrad and SmoothTaylor, all schemes; and SmoothGrad's maps."""
    both = {scheme: one.noisy(scheme, sigma) for scheme in SCHEMES}
    found = []
    for j, method in enumerate(("SmoothGrad", "SmoothTaylor")):
        made = {scheme: maps[j] for scheme, maps in both.items()}
        found += [row(method, s, N, made) for s in SCHEMES]
    return found, [m for maps in both.values() for m in maps[0].maps]


def adaptgrad_rows(one: Measured) -> list[dict]:
    """AdaptGrad with c = 0.95."""
    sigma = tl.adaptive_sigma(one.x, one.model.bounds)
    made = {scheme: one.noisy(scheme, sigma)[0] for scheme in MAPS}
    return [row("AdaptGrad", s, N, made, level="") for s in MAPS]


def baseline_rows(one: Measured, steps: int = 3, count: int = 4) -> Iterator[dict]:
    """Integrated Gradients from noise baselines; "centred" takes out what b alone does.

    centred: the term -(b - middle) * c has the mean 0 for a map c that does not know b; c is the
    mean slope of the other map's paths.
    """
    low, high = one.model.bounds
    middle = ((low + high) / 2)[0]  # (C, 1, 1)
    made, terms, slopes, starts = {scheme: Maps() for scheme in SOME}, [], [], []
    nodes = (torch.arange(steps) + 0.5) / steps
    for scheme in SOME:
        for k in range(2):
            normal = SCHEMES[scheme](count, one.x.shape[1:], one.rng("baseline", scheme, k))
            b = low + (high - low) * torch.special.ndtr(normal)  # (count, C, H, W)
            points = b[:, None] + nodes.view(-1, 1, 1, 1) * (one.x - b)[:, None]
            means = one.gradients(points.flatten(0, 1)).unflatten(0, (count, steps)).mean(1)
            made[scheme].add((one.x - b) * means)
            if scheme == "random":
                terms.append((one.x - b) * means)
                slopes.append(means.mean(0))
                starts.append(b)
    how, n = dict(level="", per_draw=steps), count * steps
    for scheme in SOME:
        yield row("IG, noise baselines", scheme, n, made, **how)
    centred = Maps()
    for own_terms, other, b in zip(terms, slopes[::-1], starts, strict=True):
        centred.add(own_terms + (b - middle) * other)
    found = row("IG, noise baselines", "centred", n, made, centred, **how)
    yield found | {"single": "", "heat_single": ""}


def level_rows(one: Measured, pairs: int = 6) -> Iterator[dict]:
    """SmoothGrad and SmoothTaylor of pairs at other noise levels, from single gradients."""
    for level in (1, 3):
        sigma = tl.sigma_from_level(level / 100, one.model.bounds)
        eps = sigma * antithetic(2 * pairs, one.x.shape[1:], one.rng("level", level))
        slopes = one.gradients(one.x + eps)
        for method, draws in {"SmoothGrad": slopes, "SmoothTaylor": -eps * slopes}.items():
            both = [pair.mean(0) for pair in draws.split(2)]
            signal, single, paired = shared(both), own([*draws]), own(both)
            found = dict(method=method, level=level, signal=signal, single=single - signal)
            yield found | dict(scheme="random", gradients=1, error=single - signal)
            yield found | dict(scheme="antithetic", gradients=2, error=2 * (paired - signal))


def bound_rows(one: Measured, sigma: float, count: int = 8) -> Iterator[dict]:
    """What the leading directions decide, and what half the resolution knows."""
    shape, rng = one.x.shape[1:], one.rng("bounds")
    kept, fresh = plain(count, shape, rng), plain(count, shape, rng)
    uniform = torch.rand(count, leading(shape), generator=rng)
    full = one.gradients(one.x + sigma * with_leading(kept, uniform))
    again = one.gradients(one.x + sigma * with_leading(fresh, uniform))
    half = one.gradients(
        one.x + sigma * with_leading(kept, uniform), lambda z: one.model(F.avg_pool2d(z, 2))
    )
    for scheme, other in {"leading 768 directions": again, "half resolution": half}.items():
        errors = [d - d.mean(0) for d in (full, other)]
        parts = [sum(product(a, b) for a, b in zip(u, v, strict=True)) for u, v in (
            errors, (errors[0],) * 2, (errors[1],) * 2)]  # fmt: skip
        found = dict(method="SmoothGrad", scheme=scheme, level=LEVEL, gradients=count)
        yield found | dict(correlation=parts[0] / (parts[1] * parts[2]) ** 0.5)


class Gate(nn.Module):
    """A ReLU6 that counts where its derivative is 1, and then multiplies by the share."""

    def __init__(self):
        super().__init__()
        self.open, self.passes, self.counts = 0, 0, True

    def forward(self, h: Tensor) -> Tensor:
        """Clip h in place, or multiply it by the share of passes in which the gate was open."""
        if not self.counts:
            return h * (self.open / self.passes)
        for row_of_pass in h.clamp_(0, 6):
            self.open = self.open + ((row_of_pass > 0) & (row_of_pass < 6))
        self.passes += len(h)
        return h


def gated(model: nn.Module) -> nn.Module:
    """A copy of a network with gates for its ReLU6."""
    net = copy.deepcopy(model)
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, Gate())
    return net


def mean_gates(one: Measured, net: nn.Module, points: Tensor) -> Tensor:
    """The gradient with every derivative of a ReLU6 averaged over the points, (C, H, W)."""
    gates = [m for m in net.modules() if isinstance(m, Gate)]
    for gate in gates:
        gate.open, gate.passes, gate.counts = 0, 0, True
    with torch.no_grad():
        for part in points.split(4):
            net(part)
    for gate in gates:
        gate.counts = False
    return one.gradients(one.x, net)[0]


def biased_rows(one: Measured, sigma: float, smooth: list[Tensor]) -> Iterator[dict]:
    """Mean gates, and the best filter of SmoothGrad's frequencies."""
    net, shape = gated(one.model), one.x.shape[1:]
    signal, mean = shared(smooth), torch.stack(smooth).mean(0)
    for passes, maps in ((8, 4), (64, 2)):
        made = Maps()
        for k in range(maps):
            eps = plain(passes, shape, one.rng("gates", passes, k))
            made.maps.append(mean_gates(one, net, one.x + sigma * eps))
        found = row("SmoothGrad", "SmoothDiff", passes, {"SmoothDiff": made})
        both = product(torch.stack(made.maps).mean(0), mean)
        yield found | dict(correlation=both / (signal * found["signal"]) ** 0.5)
    needed = filtered(smooth)
    yield dict(method="SmoothGrad", scheme="best filter", level=LEVEL, gradients=N,
               signal=signal, error=signal * needed / 9)  # fmt: skip


def filtered(maps: list[Tensor], bands: int = 24) -> float:
    """The gradients that the best filter of frequency bands needs to explain 0.9 of the truth."""
    waves = torch.fft.fft2(torch.stack(maps).double())
    n, total, each = len(maps), waves.sum(0).abs() ** 2, (waves.abs() ** 2).sum(0)
    signal, noise = (total - each) / (n * (n - 1)), each / n
    f = torch.fft.fftfreq(waves.shape[-1])
    band = ((f[:, None] ** 2 + f**2).sqrt() / 0.7072 * bands).long().flatten()
    sums = torch.zeros(2, bands, dtype=torch.float64)
    for j, power in enumerate((signal, noise)):
        sums[j].index_add_(0, band, power.sum(0).flatten())
    s = sums[0].clamp(min=0)
    error = N * (sums[1] - s)  # of one gradient
    low, high = 1.0, 1e6
    for _ in range(60):
        middle = (low * high) ** 0.5
        share = float((s**2 / (s + error / middle)).sum() / s.sum())
        low, high = (low, middle) if share > 0.9 else (middle, high)
    return high


def timings(one: Measured, sigma: float, count: int = 4) -> dict[str, float]:
    """Seconds of one core for a gradient of each scheme and of captum, in an order by chance.

    captum, on the network as timm makes it and on the prepared one, takes as many in a pass as we
    do. "SmoothDiff": for a forward pass, with a share of the backward pass after 64 of them.
    """
    x, shape, net = one.x, one.x.shape[1:], gated(one.model)

    def ours(scheme: str) -> None:
        one.gradients(x + sigma * SCHEMES[scheme](count, shape, one.rng("timing")))

    def theirs(network: nn.Module) -> None:
        how = dict(nt_samples=count, nt_samples_batch_size=count, stdevs=sigma, abs=False)
        tunnel = peer.NoiseTunnel(peer.Saliency(network))
        tunnel.attribute(x.clone(), nt_type="smoothgrad", target=one.target, **how)

    calls = {scheme: partial(ours, scheme) for scheme in SCHEMES}
    calls |= {
        "captum": partial(theirs, bare_network()),
        "captum, prepared": partial(theirs, one.model),
    }
    calls["SmoothDiff"] = lambda: mean_gates(one, net, x + plain(count, shape, one.rng("timing")))
    calls["one backward pass"] = lambda: [one.gradients(x) for _ in range(count)]
    names = [*calls]
    random.Random(one.seed).shuffle(names)
    ours("random")  # the first passes after other work are slow
    found = {}
    for name in names:
        start = time.process_time()
        calls[name]()
        found[name] = (time.process_time() - start) / count
    backward = found.pop("one backward pass")
    found["SmoothDiff"] += backward / 64 - backward / count
    return found | {"centred": found["random"]}


# A network whose answer is known.


def biases(seed: int, maps: int = 60) -> dict[tuple, tuple[float, float]]:
    """For each method and scheme: bias relative to the answer and along it, and its error."""
    rng, shape = torch.Generator().manual_seed(seed), (3, 4, 4)
    w = torch.randn(8, 48, generator=rng, dtype=torch.float64) / 4
    v = torch.randn(8, generator=rng, dtype=torch.float64)
    x = torch.rand(48, generator=rng, dtype=torch.float64) - 0.5

    def blurred(z: Tensor, sigma: Tensor) -> Tensor:  # erf blurred is a wider erf
        wide = (1 + (sigma * w).square().sum(1)).sqrt()
        return (torch.erf(z @ w.T / (math.sqrt(2) * wide)) * v).sum()

    def slope(z: Tensor) -> Tensor:
        return (math.sqrt(2 / math.pi) * torch.exp(-((z @ w.T) ** 2) / 2) * v) @ w

    flat = torch.full((48,), 0.8, dtype=torch.float64)
    own_sigma = tl.adaptive_sigma(x[None], (-0.6, 0.6))[0]
    truth = partial(torch.autograd.functional.jacobian, lambda z, s: blurred(z, s))
    curve = torch.autograd.functional.hessian(lambda z: blurred(z, flat), x).diagonal()
    answers = {
        "SmoothGrad": truth((x, flat))[0],
        "SmoothTaylor": -(flat**2) * curve,
        "AdaptGrad": truth((x, own_sigma))[0],
        "IG, noise baselines": x**3 - 5 / 4,  # of the cube, from baselines uniform in [-1, 2]
    }
    found = {}
    for method, answer in answers.items():
        sigma = own_sigma if method == "AdaptGrad" else flat
        for scheme, draw in SCHEMES.items():
            eps = torch.stack([draw(N, shape, rng).flatten(1) for _ in range(maps)]).double()
            if method == "IG, noise baselines":
                values = x**3 - (3 * torch.special.ndtr(eps) - 1) ** 3
            else:
                values = slope(x + sigma * eps)
                values = values * (-sigma * eps if method == "SmoothTaylor" else 1)
            along = values.mean(1) @ answer / answer.square().sum()  # (maps,)
            found[method, scheme] = float(along.mean() - 1), float(along.std() / maps**0.5)
    return found


def machine() -> str:
    """What it ran on, in words."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cores = f"1 core of {names[0] if names else platform.processor()}"
    return f"{cores}; Python {platform.python_version()}, PyTorch {torch.__version__}"


@cache
def bare_network() -> nn.Module:
    """The network as timm makes it."""
    return tl.models._lite("efficientnet_lite0").network.eval()


def rows(model, picture, x, target):
    """The rows of one picture."""
    sigma = tl.sigma_from_level(LEVEL / 100, model.bounds)
    seed = random.Random(picture).getrandbits(40)
    one = Measured(model, x, target, seed)
    found, smooth = smoothing_rows(one, sigma)
    found += [
        *adaptgrad_rows(one),
        *baseline_rows(one),
        *level_rows(one),
        *bound_rows(one, sigma),
        *biased_rows(one, sigma, smooth),
    ]
    known, seconds = biases(seed), timings(one, sigma)
    beside = dict(method="SmoothGrad", level=LEVEL, gradients="")
    found += [beside | dict(scheme=s) for s in seconds if s.startswith("captum")]
    for values in found:
        if values["level"] in (LEVEL, "") and (values["method"], values["scheme"]) in known:
            pair = known[values["method"], values["scheme"]]
            values |= dict(zip(("bias", "bias_error"), pair, strict=True))
        if values["level"] in (LEVEL, "") and values["scheme"] in seconds:
            values |= dict(seconds=seconds[values["scheme"]])
        values |= dict(picture=picture, machine=machine())
        values = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in values.items()}
        yield [values.get(field, "") for field in FIELDS]


def table(path: Path) -> None:
    """Print a line for each method, level and scheme: means over pictures, and their 95 %."""
    read = list(csv.DictReader(path.open()))
    groups: dict[tuple, dict[str, dict]] = {}
    for r in read:
        key = r["method"], r["level"], r["scheme"], r["gradients"]
        groups.setdefault(key, {})[r["picture"]] = r

    def needs(r: dict) -> float:
        return 9 * float(r["error"]) / float(r["signal"])

    def span(values: list[float], form: str) -> str:
        draw = random.Random(0)
        means = sorted(statistics.mean(draw.choices(values, k=len(values))) for _ in range(2000))
        return f"{statistics.mean(values):{form}} [{means[50]:{form}}, {means[1949]:{form}}]"

    plain_of = {(m, lv): g for (m, lv, s, _), g in groups.items() if s == "random"}
    for (method, level, scheme, n), group in groups.items():
        parts = [f"{method:20} {level:>4} % {scheme:23} n = {n:>3}"]
        if group[next(iter(group))]["error"]:
            beside = plain_of[method, level]
            parts.append(f"gradients to 0.9: {span([needs(r) for r in group.values()], '.0f')}")
            if group[next(iter(group))]["single"]:
                ratio = [float(r["error"]) / float(r["single"]) for r in group.values()]
            else:
                ratio = [needs(r) / needs(beside[p]) for p, r in group.items()]
            parts.append(f"beside random: {span(ratio, '.3f')}")
        for column in ("correlation", "seconds"):
            values = [float(r[column]) for r in group.values() if r[column]]
            parts += [f"{column}: {span(values, '.3f')}"] if values else []
        scores = [float(r["bias"]) / float(r["bias_error"]) for r in group.values() if r["bias"]]
        if scores:
            parts.append(f"bias, in its errors: {sum(scores) / len(scores) ** 0.5:+.1f}")
        print("; ".join(parts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--table", type=Path)
    if path := parser.parse_known_args()[0].table:
        table(path)
    else:
        torch.set_num_threads(1)
        measure(__doc__.splitlines()[0], FIELDS, rows)
