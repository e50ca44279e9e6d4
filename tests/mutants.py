"""Planted mistakes, and the command that runs the tests of the mathematics on each.

    python -m tests.mutants RESULTS.json      in a folder with copies of tutorial_lib and tests

All runs share one process, so that torch is imported once: this package is imported afresh.
"""

import importlib
import json
import sys
from pathlib import Path

# The tests that must notice a mistake in a file of the package.
TESTS = {
    "engine.py": ["test_engine.py", "test_attribution.py", "test_smoothing.py", "test_packed.py"],
    "probes.py": ["test_engine.py", "test_attribution.py", "test_smoothing.py"],
    "draws.py": ["test_engine.py", "test_attribution.py", "test_smoothing.py"],
    "noise.py": ["test_noise.py", "test_smoothing.py"],
    "maps.py": ["test_maps.py"],
    "prepare.py": ["test_prepare.py", "test_packed.py"],
    "lean.py": ["test_lean.py", "test_packed.py"],
    "clip.py": ["test_lean.py", "test_packed.py"],
    "convolve.py": ["test_lean.py", "test_packed.py"],
    "packed.py": ["test_packed.py"],
    "chunks.py": ["test_chunks.py", "test_packed.py"],
    "memory.py": ["test_chunks.py"],
    "precision.py": ["test_precision.py"],
    "adaptive.py": ["test_adaptive.py"],
    "sampling.py": ["test_sampling.py"],
    "tape.py": ["test_tape.py"],
    "recorder.py": ["test_tape.py"],
    "linear.py": ["test_tape.py"],
    "backward.py": ["test_backward.py"],
    "relevance.py": ["test_backward.py"],
    "multipliers.py": ["test_deeplift.py"],
    "cam.py": ["test_cam.py"],
    "layers.py": ["test_cam.py"],
    "receptive.py": ["test_cam.py"],
    "mnist.py": ["test_mnist.py"],
    "metrics/agreement.py": ["test_agreement.py", "test_axioms.py"],
    "metrics/axioms.py": ["test_attribution.py", "test_axioms.py"],
    "metrics/information.py": ["test_information.py"],
    "metrics/localisation.py": ["test_localisation.py"],
    "metrics/perturbation.py": ["test_perturbation.py"],
    "metrics/total_variation.py": ["test_total_variation.py"],
    "metrics/sparseness.py": ["test_sparseness.py"],
    "reproduce/cases.py": ["test_reproduce.py"],
    "reproduce/measures.py": ["test_reproduce.py"],
    "reproduce/pictures.py": ["test_reproduce.py"],
    "reproduce/rows.py": ["test_reproduce.py"],
    "reproduce/runner.py": ["test_reproduce.py"],
    "reproduce/store.py": ["test_reproduce.py"],
    "reproduce/tables.py": ["test_reproduce.py"],
}
# A few tests take most of the time, so they run where the others notice nothing.
SLOW = "standard_error_matches or gaussian_blurred or memory or equals_unfolded or survives_float32"
# name: (file, text that occurs once, what replaces it)
MUTANTS = {
    "a sign of the sum": ("engine.py", "self.sum += whole", "self.sum -= whole"),
    "weights dropped": ("engine.py", "values *= block.weights", "pass"),
    "shares dropped": ("engine.py", "slopes * block.shares", "slopes * 1"),
    "share of one dropped": ("engine.py", "value=block.shares", "value=1"),
    "share of one without weights": ("engine.py", "alpha=block.shares", "alpha=1"),
    "one probe counts for no spread": ("engine.py", "not (self.spread or ", "not ("),
    "variance over n": ("engine.py", "self.squares * n / (n - 1)", "self.squares * n / n"),
    "mean of the chunk": ("engine.py", "target[:, None], 1)", "target[:, None], 1 / len(target))"),
    "every block a draw": ("engine.py", "if block.draws:", "if True:"),
    "draws of a block are one": ("engine.py", "block.draws == probes > 1", "False"),
    "draws weigh as blocks": ("engine.py", "delta * (k / self.draws)", "delta / 2"),
    "spread between blocks": ("engine.py", " + delta.square() * (n * k / self.draws)", ""),
    "the host waits for each pass": (
        "engine.py",
        "bar.update(len(points))",
        "bar.update(len(points) * bool((points == points).any()))",
    ),
    "a block keeps its slopes": ("engine.py", "self.waiting.clear()", "pass"),
    "targets of the first picture": ("engine.py", "target.expand(", "target[:1].expand("),
    "b - x": ("probes.py", "distance = x - start", "distance = start - x"),
    "left for right": ("probes.py", '"right": 0.0, "left": 1.0', '"right": 1.0, "left": 0.0'),
    "whole end weights": ("probes.py", "weights[[0, -1]] /= 2", "weights[[0, -1]] /= 1"),
    "legendre on [-1, 1]": ("probes.py", "((nodes + 1) / 2).tolist()", "nodes.tolist()"),
    "variance for sigma": ("probes.py", "eps: x + sigma * eps", "eps: x + sigma**2 * eps"),
    "sign of the noise range": (
        "probes.py",
        "(upper - lower) * uniform",
        "(upper + lower) * uniform",
    ),
    "inner noise is outer noise": (
        "probes.py",
        "inner(noisy, seed=spawn(seed, k))",
        "inner(noisy, seed=seed)",
    ),
    "inner noise repeats": (
        "draws.py",
        "SeedSequence([seed, *path])",
        "SeedSequence([seed, *path[:0]])",
    ),
    "sum over baselines": ("probes.py", "share / baselines for", "share for"),
    "z - x": ("probes.py", "Block(z, x - z", "Block(z, z - x"),
    "sum over given roots": ("probes.py", "1 / count, len(z)", "1, len(z)"),
    "weight noise adds": ("noise.py", "eta.mul_(p.detach())", "(eta - 1 + p.detach())"),
    "one noise for all weights": ("probes.py", "spawn(seed, k, 1)", "spawn(seed, 0, 1)"),
    "one input noise for all weights": (
        "probes.py",
        "inside = inner(x, seed=spawn(seed, k))",
        "inside = inner(x, seed=seed)",
    ),
    "a second name keeps its weight": ("noise.py", "remove_duplicate=False", ""),
    "stale network": ("engine.py", "if chunk[0][0].network is not change:", "if change is None:"),
    "networks mixed in a chunk": (
        "engine.py",
        "if chunk and block.network is not chunk[0][0].network:",
        "if False:",
    ),
    "the farther bound": ("noise.py", "torch.minimum(x - lower", "torch.maximum(x - lower"),
    "the program's quantile": ("noise.py", "inv_cdf((3 + c) / 4)", "inv_cdf((1 + c) / 2)"),
    "erf without sqrt 2": ("noise.py", "room / (math.sqrt(2) * sigma)", "room / sigma"),
    "one side of the range": (
        "noise.py",
        "_beyond(upper - x, sigma) + _beyond(x - lower, sigma)",
        "2 * _beyond(upper - x, sigma)",
    ),
    "truncated on one side": ("noise.py", "1 - _beyond(upper - x, sigma)", "1.0"),
    "stop as the program does": (
        "adaptive.py",
        "worse_in_a_row < max_stop + 2",
        "worse_in_a_row < max_stop + 1",
    ),
    "sigma may be negative": ("adaptive.py", "(sigma - alpha).abs()", "(sigma - alpha)"),
    "alpha decays always": (
        "adaptive.py",
        "torch.where(worse, alpha * decay, alpha)",
        "alpha * decay",
    ),
    "worse moves never forgiven": (
        "adaptive.py",
        "torch.where(worse, worse_in_a_row + 1, 0)",
        "torch.where(worse, worse_in_a_row + 1, worse_in_a_row)",
    ),
    "last instead of best": (
        "adaptive.py",
        ".argmin(0)[None]",
        ".argmin(0)[None] * 0 + len(values) - 1",
    ),
    "halves that share draws": ("sampling.py", "seed=spawn(seed, k), **call", "seed=seed, **call"),
    "reliability of a half": ("sampling.py", "2 * r / (1 + r)", "r"),
    "spread for error": ("sampling.py", "(self.count - 1) / self.count", "(self.count - 1)"),
    "correlation without means": (
        "metrics/agreement.py",
        "mean(1, keepdim=True) for v",
        "mean(1, keepdim=True) * 0 for v",
    ),
    "ties by place": ("metrics/agreement.py", "(first + behind + 1)", "(first + first + 1)"),
    "the input does not shift": (
        "metrics/agreement.py",
        "checks.pictures(x) +",
        "checks.pictures(x) + 0 *",
    ),
    "gini by rank from above": ("metrics/sparseness.py", "(d - k + 0.5)", "(k - 0.5)"),
    "one direction of variation": (
        "metrics/total_variation.py",
        "for d in (2, 1))",
        "for d in (1, 1))",
    ),
    "pyramid without blur": (
        "metrics/total_variation.py",
        "* blur[left] +",
        "* torch.eye(size)[left] +",
    ),
    "mirror for reflection": (
        "metrics/total_variation.py",
        "place < 0, -1 - place",
        "place < 0, -place",
    ),
    "the paper's order always": (
        "metrics/total_variation.py",
        'level if order == "paper" else normalize(level)',
        "normalize(level)",
    ),
    "windows that touch count as overlap": (
        "metrics/perturbation.py",
        "torch.arange(1 - size, size,",
        "torch.arange(-size, size + 1,",
    ),
    "the sign of the map ranks": ("metrics/perturbation.py", "h.double().abs()", "h.double()"),
    "the best draw stays": (
        "metrics/perturbation.py",
        "torch.minimum(order[:, (draws - 1) // 2], order[:, draws // 2])",
        "scores.argmin(1)",
    ),
    "performance may fall": (
        "metrics/information.py",
        "np.maximum.accumulate(performance)",
        "performance",
    ),
    "the least salient first": ("metrics/information.py", "ranked >= np", "ranked <= np"),
    "columns before rows": ("metrics/localisation.py", "dim=2) for row", "dim=1) for row"),
    "negative attribution counts": ("metrics/localisation.py", ".clamp(min=0)", ""),
    "layers from the bottom": ("metrics/agreement.py", "in reversed(layers)", "in layers"),
    "every method is linear": ("metrics/axioms.py", "(mixed - parts)", "(mixed - mixed)"),
    "the curve is not divided": ("metrics/perturbation.py", " / curve[0][:, None]", ""),
    "memory of a pass given back": (
        "memory.py",
        "setting(MMAP_MAX, 0)",
        "setting(MMAP_MAX, BLOCKS)",
    ),
    "memory kept for good": ("memory.py", "        setting(MMAP_MAX, BLOCKS)", "        pass"),
    "small blocks from the system": ("memory.py", "setting(MMAP_THRESHOLD, LARGE)", "pass"),
    "input not multiplied": ("probes.py", "Block(x[None], x)", "Block(x[None])"),
    "sign before size": ("maps.py", "size = heatmap.abs()", "size = heatmap"),
    "median for 99th percentile": ("maps.py", "place = 0.99 *", "place = 0.5 *"),
    "the last reader takes all": (
        "tape.py",
        "reached[i] + part if i in reached else part",
        "part",
    ),
    "the first part for every part": (
        "tape.py",
        "out if self.part is None else out[self.part]",
        "out if self.part is None else out[0]",
    ),
    "writes through views go unseen": (
        "recorder.py",
        "if made != (memory, self.writes.get(memory, 0)):",
        "if False:",
    ),
    "the value before a write is lost": (
        "recorder.py",
        "target.set_(out.to(target.dtype))",
        "target.copy_(out)",
    ),
    "rsub is sub": (
        "linear.py",
        '(-alpha, 1) if step.name == "rsub"',
        '(1, -alpha) if step.name == "rsub"',
    ),
    "constants of cat are values": (
        "linear.py",
        "step(*values) - bias(step, list(values))",
        "step(*values)",
    ),
    "batch norm without eps": ("linear.py", "(var + eps).rsqrt()", "var.rsqrt()"),
    "deconvnet lets all through": ("backward.py", "[up.clamp(min=0)] if", "[up] if"),
    "epsilon without the sign of z": ("relevance.py", ".copysign(whole)", ""),
    "alpha beta without bias": ("relevance.py", "whole + _signed(sign)(constant))", "whole)"),
    "gamma on both signs": ("relevance.py", " * (sign * z > 0)", ""),
    "corners of the box exchanged": (
        "relevance.py",
        "(-1, low, _signed(1)), (-1, high, _signed(-1))",
        "(-1, low, _signed(-1)), (-1, high, _signed(1))",
    ),
    "the sign of the difference is dropped": (
        "multipliers.py",
        "self.difference(step.inputs[0]).sign().mul_(delta[0])",
        "self.difference(step.inputs[0]).sign().abs().mul_(delta[0])",
    ),
    "a difference of zero counts as positive": (
        "multipliers.py",
        "self.difference(step.inputs[0]).sign().mul_(delta[0])",
        "self.difference(step.inputs[0]).sign().add_(0.5).sign().mul_(delta[0])",
    ),
    "layers share out part by part": ("multipliers.py", "if way and way.mixes:", "if False:"),
    "one order of the two players": (
        "multipliers.py",
        "step(z0 + plus) - step(z0 + minus)",
        "step(z0 + plus) - step(z0) + step(z0) - step(z0 - minus * 0)",
    ),
    "an empty part has no slope": (
        "multipliers.py",
        "factor[near] = sum(",
        "factor[near] = 0 * sum(",
    ),
    "slope at the input": (
        "multipliers.py",
        "_slope(step, z0.expand_as(d), near)",
        "_slope(step, self.at.values[i], near)",
    ),
    "the maximum at x takes all": (
        "multipliers.py",
        "torch.where(y >= y0, at, at0)",
        "torch.where(y >= y0, at, at)",
    ),
    "a product at x": (
        "multipliers.py",
        "(self.at.values[i] + self.start.values[i]) / 2",
        "self.at.values[i]",
    ),
    "the mean over classes stays": (
        "multipliers.py",
        "seed - 1 / scores.shape[1]",
        "seed - 0 / scores.shape[1]",
    ),
    "genomics the other way round": (
        "multipliers.py",
        '"reveal_cancel" if step.name in DENSE else "rescale"',
        '"rescale" if step.name in DENSE else "reveal_cancel"',
    ),
    "sign of the gap": ("metrics/axioms.py", "(scores - scores_start)", "(scores_start - scores)"),
    "alpha is a sum": ("cam.py", ".mean((2, 3), keepdim=True)", ".sum((2, 3), keepdim=True)"),
    "each channel is cut alone": ("cam.py", ".to(wide)).sum(1)", ".to(wide)).relu().sum(1)"),
    "one window for all pictures": ("cam.py", "* where[:, None]", "* where[:1, None]"),
    "the layer is overwritten": ("layers.py", "return outputs[-1].clone()", "return outputs[-1]"),
    "infinite maps pass": ("cam.py", "    checks.result(cells)\n", ""),
    "the hook stays": ("layers.py", "finally:\n        handle.remove()", "finally:\n        pass"),
    "padding moves no centre": (
        "receptive.py",
        "(d * (k - 1) / 2 - p)",
        "(d * (k - 1) / 2)",
    ),
    "dilation moves no centre": ("receptive.py", "(d * (k - 1) / 2 - p)", "((k - 1) / 2 - p)"),
    "later windows in steps of one pixel": ("receptive.py", "a + b * (d", "a + (d"),
    "padding on the far side": ("receptive.py", "left, _, top, _ =", "_, left, _, top ="),
    "drawn a pixel beside": (
        "receptive.py",
        "(pixels - start) / step",
        "(pixels - start - 1) / step",
    ),
    "turned maps are followed": ("receptive.py", "% ndim < ndim - 2", "% ndim < ndim"),
    "every operation is followed": ("receptive.py", "if same and _stays(tape, step)", "if same"),
    "the first loss is blamed": ("receptive.py", "{lost[-1].name}", "{lost[0].name}"),
    "noise is drawn once": (
        "mnist.py",
        "generator=rng).to(batch)",
        "generator=rng.manual_seed(0)).to(batch)",
    ),
    "noise of another size": (
        "mnist.py",
        "batch + noise * torch.randn",
        "batch + noise**2 * torch.randn",
    ),
    "one share for all": ("probes.py", "else each[part]", "else each[:1]"),
    "one share for all steps": ("probes.py", "shares[part.start] if", "shares[0] if"),
    "every inner block ends a draw": ("probes.py", "last = seen == inside.count", "last = True"),
    "every block ends a path": ("probes.py", "int(part.stop == len(nodes))", "1"),
    "one block only": ("draws.py", "for k in range(0, count, size))", "for k in (0,))"),
    "any gradient is written over": ("clip.py", "held == ALONE", "True"),
    "no gradient is written over": ("clip.py", "held == ALONE", "False"),
    "memory that a view shares": ("clip.py", "torch._C._storage_Use_Count(storage._cdata)", "2"),
    "hooks are forgotten": ("clip.py", "sys.getrefcount(up)", "0"),
    "zeros after the kernel": ("convolve.py", "(across, 0, down, 0)", "(0, across, 0, down)"),
    "padded as before": ("lean.py", "[n - n // 2 for n in zeros]", "[n // 2 for n in zeros]"),
    "the kernel is not turned round": ("convolve.py", "0, 2).flip(2, 3)", "0, 2)"),
    "a kernel of stride 1 is not turned round": ("convolve.py", "kernel.flip(2, 3)", "kernel"),
    "a dense kernel is not transposed": (
        "convolve.py",
        "call.kernel.transpose(0, 1)",
        "call.kernel",
    ),
    "two channels to one": ("convolve.py", "call.kernel.shape[1] == 1 and ", ""),
    "one channel to two": ("convolve.py", " and call.groups == len(call.kernel)", ""),
    "a depthwise slope is dense": (
        "convolve.py",
        "pads, packed.ONE, call.groups)",
        "pads, packed.ONE, 1)",
    ),
    "another zero around the slope": ("convolve.py", "[k - 1 - p for", "[k - p for"),
    "negative padding": ("convolve.py", "min(pads) >= 0", "min(pads) >= -9"),
    "weights of another network": ("convolve.py", "call.weight is layer.weight and ", ""),
    "a bias of another network": ("convolve.py", " and call.bias is layer.bias", ""),
    "one order for all sizes": ("convolve.py", "layer, x.shape[1:], x.dtype", "layer, x.dtype"),
    "clipping has no slope": ("convolve.py", "if y is not None:", "if False:"),
    "marked as clipped": ("convolve.py", "clips and call.there is not None\n", "clips\n"),
    "an exchanged activation is forgotten": ("lean.py", "self in store.clipped and", "True and"),
    "a second reader is forgotten": ("packed.py", "n == self.over[layer] == 1", "self.over[layer]"),
    "another network is the same": ("engine.py", "                    packed.forget()\n", ""),
    "weights changed in place": ("convolve.py", " and call.version == _version(layer.weight)", ""),
    "written over before it is clipped": (
        "lean.py",
        "not (x._version or self._forward_pre_hooks)",
        "True",
    ),
    "a later dilation is forgotten": ("lean.py", "(_on(x) and _plain(self))", "_on(x)"),
    "nothing is ever packed": ("chunks.py", "            convolve.passed()\n", ""),
    "packed in any precision": (
        "packed.py",
        'torch.autocast("cpu", enabled=False)',
        "torch.no_grad()",
    ),
    "hooks see it clipped": ("lean.py", " and not watched", ""),
    "activations beside the convolution": ("prepare.py", "clips = act.inplace", "clips = True"),
    "packed weights are not tried": ("prepare.py", "1 + (x.dtype == torch.float32)", "1"),
    "packed for good": ("packed.py", "        STORE.reset(before)", "        pass"),
    "packed for few rows": ("packed.py", "rows >= ENOUGH and", ""),
    "packed whether offered or not": ("packed.py", " and _offered() else", " else"),
    "columns before rows of a phase": ("convolve.py", "(3, 5, 1, 0", "(5, 3, 1, 0"),
    "a phase too far": ("convolve.py", "slice(pads[-1] - most", "slice(pads[-1] - most + 1"),
    "no room for the last row": ("convolve.py", "rows - outputs - least", "0"),
    "padding is forgotten": ("convolve.py", "-((s - 1 + p) // s)", "-((s - 1) // s)"),
    "a few more channels": ("convolve.py", "FEW = 4", "FEW = 5"),
    "weights get no gradient": (
        "convolve.py",
        "not any(p.requires_grad for p in layer.parameters(recurse=False)) and",
        "",
    ),
    "an autocast is not seen": ("convolve.py", "if rounded or not", "if not"),
    "two strides are one": ("convolve.py", "height == width > 1", "height > 1"),
    "more padding than the kernel": ("convolve.py", " and fits", ""),
    "padding by its name": ("lean.py", "return numbers and max", "return max"),
    "lean everywhere": ("lean.py", "default=False", "default=True"),
    "dilated kernels are padded": ("lean.py", "and max(module.dilation) == 1", ""),
    "the slowest size": ("chunks.py", "known[size] <= limit", "known[size] >= limit"),
    "the largest of the fast": ("chunks.py", "return min((size for", "return max((size for"),
    "the fastest alone": ("chunks.py", "ABOUT = 1.02", "ABOUT = 1.0"),
    "a short last pass": ("chunks.py", "return max(1, -(-left // passes))", "return self.best()"),
    "one pass tells": ("chunks.py", "PASSES = 2", "PASSES = 1"),
    "small sizes are not tried": ("chunks.py", "self.best() <= self.guess", "False"),
    "seconds of a pass": ("chunks.py", "append(seconds / rows)", "append(seconds)"),
    "measured for all models at once": (
        "chunks.py",
        "store.setdefault(model, {})",
        "store.setdefault(len, {})",
    ),
    "only one kind of error": ("chunks.py", "any(sign in", "any(sign[:7] == 'out of ' and sign in"),
    "a size that failed is asked for again": (
        "chunks.py",
        "self.most = len(points) // 2",
        "self.most = max(2, len(points) // 2)",
    ),
    "no size is forgotten": ("chunks.py", "if size < rows", "if True"),
    "a graph that holds itself": ("chunks.py", "return tensor.detach()", "return tensor"),
    "a gradient of a gradient is written over": ("clip.py", "not second and ", ""),
    "steps are not checked": ("prepare.py", "if _agrees(", "if True or _agrees("),
    "one row is halved": ("chunks.py", "len(points) == 1 or ", ""),
    "memory is counted twice": (
        "chunks.py",
        "measured(2) - measured(1)",
        "measured(2)",
    ),
    "tf32 on a CPU": ("precision.py", 'if name == "tf32":', "if False:"),
    "rules that compare are rounded": (
        "precision.py",
        '"float32" if exact else CHOSEN.get()',
        "CHOSEN.get()",
    ),
    "PyTorch's default precision": ("precision.py", '_tf32(name == "tf32")', "_tf32(True)"),
    "switches stay": ("precision.py", "setattr(switch, name, old)", "pass"),
    "the choice stays": ("precision.py", "CHOSEN.reset(before)", "pass"),
    "another weight's norm": ("prepare.py", "len(weight) == norm.num_features", "True"),
    "made weights are folded": ("prepare.py", 'layer._parameters.get("weight")', "layer.weight"),
    "the penalty is not squared": ("mnist.py", "slope.square().sum()", "slope.abs().sum()"),
    "the penalty of the mean loss": ("mnist.py", 'reduction="sum"', 'reduction="mean"'),
    "an interval for single pictures": ("reproduce/tables.py", "/ math.sqrt(n)", "/ 1"),
    "a one-sided interval": ("reproduce/tables.py", "(1 + confidence) / 2", "confidence"),
    "the claimed side is the other": (
        "reproduce/tables.py",
        '== "lower" else 1',
        '!= "lower" else 1',
    ),
    "the map at the picture for nothing": (
        "reproduce/rows.py",
        "+ clean) / (count + 1)",
        "+ clean) / count",
    ),
    "sigma in the network's units": (
        "reproduce/rows.py",
        'given["sigma"], noise.IMAGENET_BOUNDS)',
        'given["sigma"], bounds)',
    ),
    "the paper's confidence for the program's": ("reproduce/rows.py", "2 * c - 1", "1 * c"),
    "seeds of pictures alone": ("reproduce/cases.py", "*names]", "*names[:1]]"),
    "all values outside": ("reproduce/measures.py", "1 - none}", "none}"),
    "twins are counted twice": ("reproduce/pictures.py", "if digest in first:", "if False:"),
    "every worker does everything": ("reproduce/runner.py", "[worker::workers]", "[:]"),
    "rows are measured again": ("reproduce/runner.py", "(picture, row) in there and", "False and"),
    "half a line is kept": ("reproduce/store.py", 'there.rfind(b"\\n") + 1', "len(there)"),
    "half a line is read": ("reproduce/store.py", 'rpartition(b"\\n")[0]', 'rpartition(b"@")[2]'),
}


def run_tests(names: list[str]) -> int:
    """pytest's exit code for this folder's tutorial_lib, as it is on disk now."""
    import pytest

    for name in [n for n in sys.modules if n.split(".")[0] in ("tests", "tutorial_lib")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    tests = [f"tests/{name}" for name in names]
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=line", "--durations=3", *tests]
    first = pytest.main([*options, "-k", f"not ({SLOW})"])
    return int(first or pytest.main([*options, "-k", SLOW]))


def main(results: Path) -> None:
    """Write {name of the mutant: exit code}; the name "none" is the package as it is."""
    sys.dont_write_bytecode = True
    codes = {"none": run_tests(sorted({name for names in TESTS.values() for name in names}))}
    imported = Path(sys.modules["tutorial_lib"].__file__).resolve()
    assert imported.is_relative_to(Path.cwd().resolve()), f"the tests imported {imported}"
    for name, (file, old, new) in MUTANTS.items():
        path = Path("tutorial_lib") / file
        right = path.read_text("utf-8")
        print(f"\nmutant: {name}", flush=True)
        path.write_text(right.replace(old, new), "utf-8")
        codes[name] = run_tests(TESTS[file])
        path.write_text(right, "utf-8")
    results.write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
