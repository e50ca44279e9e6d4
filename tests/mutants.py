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
    "averaging/engine.py": [
        "averaging/test_engine.py",
        "averaging/test_methods.py",
        "averaging/test_smoothing.py",
        "averaging/test_model_check.py",
    ],
    "averaging/probes.py": [
        "averaging/test_engine.py",
        "averaging/test_methods.py",
        "averaging/test_smoothing.py",
    ],
    "averaging/quadrature.py": ["averaging/test_engine.py", "averaging/test_methods.py"],
    "averaging/seeded_noise.py": [
        "averaging/test_engine.py",
        "averaging/test_methods.py",
        "averaging/test_smoothing.py",
    ],
    "averaging/noise.py": [
        "averaging/test_noise.py",
        "averaging/test_smoothing.py",
        "test_threads.py",
    ],
    "averaging/smoothing.py": ["averaging/test_smoothing.py"],
    "checks.py": ["averaging/test_model_check.py"],
    "heatmaps.py": ["test_heatmaps.py"],
    "fast/prepare_network.py": ["fast/test_prepare.py"],
    "fast/lean_layers.py": ["fast/test_lean_layers.py"],
    "fast/passes.py": ["fast/test_passes.py"],
    "fast/precision_modes.py": ["fast/test_precision_modes.py"],
    "metrics/sigma_search.py": ["metrics/test_sigma_search.py"],
    "metrics/repeatability.py": ["metrics/test_repeatability.py"],
    "rules/tape.py": ["rules/test_tape.py"],
    "rules/recorder.py": ["rules/test_tape.py", "test_threads.py"],
    "rules/linear_steps.py": ["rules/test_tape.py"],
    "rules/rectifiers.py": ["rules/test_backward.py", "rules/test_rectifiers.py"],
    "rules/relevance_propagation.py": ["rules/test_backward.py"],
    "rules/lrp_rules.py": ["rules/test_backward.py"],
    "rules/deeplift_multipliers.py": ["rules/test_deeplift.py"],
    "cam/class_activation.py": ["cam/test_cam.py"],
    "cam/layer_outputs.py": ["cam/test_cam.py", "test_threads.py"],
    "cam/receptive_field.py": ["cam/test_cam.py"],
    "networks/digits.py": ["networks/test_digits.py"],
    "metrics/agreement.py": ["metrics/test_agreement.py", "metrics/test_axioms.py"],
    "metrics/axioms.py": ["averaging/test_methods.py", "metrics/test_axioms.py"],
    "metrics/information.py": ["metrics/test_information.py"],
    "metrics/localisation.py": ["metrics/test_localisation.py"],
    "metrics/perturbation.py": ["metrics/test_perturbation.py"],
    "metrics/total_variation.py": ["metrics/test_total_variation.py"],
    "metrics/sparseness.py": ["metrics/test_sparseness.py"],
    "reproduce/cases.py": ["reproduce/test_reproduce.py"],
    "reproduce/measures.py": ["reproduce/test_reproduce.py"],
    "reproduce/pictures.py": ["reproduce/test_reproduce.py"],
    "reproduce/rows.py": ["reproduce/test_reproduce.py"],
    "reproduce/runner.py": ["reproduce/test_reproduce.py"],
    "reproduce/store.py": ["reproduce/test_reproduce.py"],
    "reproduce/tables.py": ["reproduce/test_reproduce.py"],
}
# A few tests take most of the time, so they run where the others notice nothing.
SLOW = "standard_error_matches or gaussian_blurred or memory or equals_unfolded or survives_float32"
# name: (file, text that occurs once, what replaces it)
MUTANTS = {
    "the curve is not divided": (
        "metrics/perturbation.py",
        "return found / curve[0][:, None]",
        "return found",
    ),
    "sign before size": ("heatmaps.py", 'heatmap, "(B, H, W)").abs()', 'heatmap, "(B, H, W)")'),
    "a sign of the sum": ("averaging/engine.py", "self.sum += whole", "self.sum -= whole"),
    "weights dropped": ("averaging/engine.py", "values *= block.weights", "pass"),
    "shares dropped": ("averaging/engine.py", "gradients * block.shares", "gradients * 1"),
    "share of one dropped": ("averaging/engine.py", "value=block.shares", "value=1"),
    "share of one without weights": ("averaging/engine.py", "alpha=block.shares", "alpha=1"),
    "one probe counts for no spread": ("averaging/engine.py", "not (self.spread or ", "not ("),
    "variance over n": (
        "averaging/engine.py",
        "self.squares * n / (n - 1)",
        "self.squares * n / n",
    ),
    "mean of the chunk": (
        "averaging/engine.py",
        "target[:, None], 1)",
        "target[:, None], 1 / len(target))",
    ),
    "every block a draw": ("averaging/engine.py", "if block.draws:", "if True:"),
    "draws of a block are one": ("averaging/engine.py", "block.draws == probes > 1", "False"),
    "draws weigh as blocks": ("averaging/engine.py", "delta * (k / self.draws)", "delta / 2"),
    "spread between blocks": (
        "averaging/engine.py",
        " + delta.square() * (n * k / self.draws)",
        "",
    ),
    "the host waits for each pass": (
        "averaging/engine.py",
        "bar.update(len(points))",
        "bar.update(len(points) * bool((points == points).any()))",
    ),
    "a block keeps its slopes": ("averaging/engine.py", "self.waiting.clear()", "pass"),
    "targets of the first picture": (
        "averaging/engine.py",
        "points, target[pictures], *rows",
        "points, target[:1].expand(len(points)), *rows",
    ),
    "b - x": ("averaging/probes.py", "distance = x - start", "distance = start - x"),
    "left for right": (
        "averaging/quadrature.py",
        '"right": 0.0, "left": 1.0',
        '"right": 1.0, "left": 0.0',
    ),
    "whole end weights": (
        "averaging/quadrature.py",
        "weights[[0, -1]] /= 2",
        "weights[[0, -1]] /= 1",
    ),
    "legendre on [-1, 1]": (
        "averaging/quadrature.py",
        "((nodes + 1) / 2).tolist()",
        "nodes.tolist()",
    ),
    "variance for sigma": (
        "averaging/probes.py",
        "eps: x + sigma * eps",
        "eps: x + sigma**2 * eps",
    ),
    "sign of the noise range": (
        "averaging/probes.py",
        "(upper - lower) * uniform",
        "(upper + lower) * uniform",
    ),
    "inner noise is outer noise": (
        "averaging/probes.py",
        "inner(noisy, seed=child_seed(seed, k))",
        "inner(noisy, seed=seed)",
    ),
    "inner noise repeats": (
        "averaging/seeded_noise.py",
        "SeedSequence([seed, *path])",
        "SeedSequence([seed, *path[:0]])",
    ),
    "sum over baselines": ("averaging/probes.py", "share / baselines for", "share for"),
    "z - x": ("averaging/probes.py", "Block(z, x - z", "Block(z, z - x"),
    "sum over given roots": ("averaging/probes.py", "1 / count, len(z)", "1, len(z)"),
    "weight noise adds": ("averaging/noise.py", "eta.mul_(p.detach())", "(eta - 1 + p.detach())"),
    "one noise for all weights": (
        "averaging/probes.py",
        "child_seed(seed, k, 1)",
        "child_seed(seed, 0, 1)",
    ),
    "one input noise for all weights": (
        "averaging/probes.py",
        "inside = inner(x, seed=child_seed(seed, k))",
        "inside = inner(x, seed=seed)",
    ),
    "stale network": (
        "averaging/engine.py",
        "if wanted is not change:",
        "if change is None:",
    ),
    "networks mixed in a chunk": (
        "averaging/engine.py",
        "if parts and block.network is not parts[0][0].network:",
        "if False:",
    ),
    "the farther bound": (
        "averaging/noise.py",
        "torch.minimum(x - lower",
        "torch.maximum(x - lower",
    ),
    "the program's quantile": (
        "averaging/noise.py",
        "inv_cdf((3 + c) / 4)",
        "inv_cdf((1 + c) / 2)",
    ),
    "erf without sqrt 2": ("averaging/noise.py", "room / (math.sqrt(2) * sigma)", "room / sigma"),
    "one side of the range": (
        "averaging/noise.py",
        "_beyond(upper - x, sigma) + _beyond(x - lower, sigma)",
        "2 * _beyond(upper - x, sigma)",
    ),
    "truncated on one side": ("averaging/noise.py", "1 - _beyond(upper - x, sigma)", "1.0"),
    "stop as the program does": (
        "metrics/sigma_search.py",
        "worse_in_a_row < max_stop + 2",
        "worse_in_a_row < max_stop + 1",
    ),
    "sigma may be negative": (
        "metrics/sigma_search.py",
        "(sigma - alpha).abs()",
        "(sigma - alpha)",
    ),
    "alpha decays always": (
        "metrics/sigma_search.py",
        "torch.where(worse, alpha * decay, alpha)",
        "alpha * decay",
    ),
    "worse moves never forgiven": (
        "metrics/sigma_search.py",
        "torch.where(worse, worse_in_a_row + 1, 0)",
        "torch.where(worse, worse_in_a_row + 1, worse_in_a_row)",
    ),
    "last instead of best": (
        "metrics/sigma_search.py",
        ".argmin(0)[None]",
        ".argmin(0)[None] * 0 + len(values) - 1",
    ),
    "halves that share draws": (
        "metrics/repeatability.py",
        "seed=child_seed(seed, k), **call",
        "seed=seed, **call",
    ),
    "reliability of a half": ("metrics/repeatability.py", "2 * r / (1 + r)", "r"),
    "spread for error": (
        "metrics/repeatability.py",
        "(self.count - 1) / self.count",
        "(self.count - 1)",
    ),
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
    "input not multiplied": ("averaging/probes.py", "Block(x[None], x)", "Block(x[None])"),
    "median for 99th percentile": ("heatmaps.py", "place = 0.99 *", "place = 0.5 *"),
    "the last reader takes all": (
        "rules/tape.py",
        "reached[i] + part if i in reached else part",
        "part",
    ),
    "the first part for every part": (
        "rules/tape.py",
        "out if self.part is None else out[self.part]",
        "out if self.part is None else out[0]",
    ),
    "writes through views go unseen": (
        "rules/recorder.py",
        "if made != (memory, self.writes.get(memory, 0)):",
        "if False:",
    ),
    "the value before a write is lost": (
        "rules/recorder.py",
        "target.set_(out.to(target.dtype))",
        "target.copy_(out)",
    ),
    "rsub is sub": (
        "rules/linear_steps.py",
        '(-alpha, 1) if step.name == "rsub"',
        '(1, -alpha) if step.name == "rsub"',
    ),
    "constants of cat are values": (
        "rules/linear_steps.py",
        "step(*values) - bias(step, list(values))",
        "step(*values)",
    ),
    "batch norm without eps": ("rules/linear_steps.py", "(var + eps).rsqrt()", "var.rsqrt()"),
    "deconvnet lets all through": ("rules/rectifiers.py", "[up.clamp(min=0)] if", "[up] if"),
    "epsilon without the sign of z": ("rules/lrp_rules.py", ".copysign(whole)", ""),
    "alpha beta without bias": ("rules/lrp_rules.py", "whole + _signed(sign)(constant))", "whole)"),
    "gamma on both signs": ("rules/lrp_rules.py", " * (sign * z > 0)", ""),
    "corners of the box exchanged": (
        "rules/lrp_rules.py",
        "(-1, low, _signed(1)), (-1, high, _signed(-1))",
        "(-1, low, _signed(-1)), (-1, high, _signed(1))",
    ),
    "the sign of the difference is dropped": (
        "rules/deeplift_multipliers.py",
        "self.difference(step.inputs[0]).sign().mul_(delta[0])",
        "self.difference(step.inputs[0]).sign().abs().mul_(delta[0])",
    ),
    "a difference of zero counts as positive": (
        "rules/deeplift_multipliers.py",
        "self.difference(step.inputs[0]).sign().mul_(delta[0])",
        "self.difference(step.inputs[0]).sign().add_(0.5).sign().mul_(delta[0])",
    ),
    "layers share out part by part": (
        "rules/deeplift_multipliers.py",
        "if way and way.mixes:",
        "if False:",
    ),
    "one order of the two players": (
        "rules/deeplift_multipliers.py",
        "step(z0 + plus) - step(z0 + minus)",
        "step(z0 + plus) - step(z0) + step(z0) - step(z0 - minus * 0)",
    ),
    "an empty part has no slope": (
        "rules/deeplift_multipliers.py",
        "factor[near] = sum(",
        "factor[near] = 0 * sum(",
    ),
    "slope at the input": (
        "rules/deeplift_multipliers.py",
        "_slope(step, z0.expand_as(d), near)",
        "_slope(step, self.at.values[i], near)",
    ),
    "the maximum at x takes all": (
        "rules/deeplift_multipliers.py",
        "torch.where(y >= y0, at, at0)",
        "torch.where(y >= y0, at, at)",
    ),
    "a product at x": (
        "rules/deeplift_multipliers.py",
        "(self.at.values[i] + self.start.values[i]) / 2",
        "self.at.values[i]",
    ),
    "the mean over classes stays": (
        "rules/deeplift_multipliers.py",
        "seed - 1 / scores.shape[1]",
        "seed - 0 / scores.shape[1]",
    ),
    "genomics the other way round": (
        "rules/deeplift_multipliers.py",
        '"reveal_cancel" if step.name in DENSE else "rescale"',
        '"rescale" if step.name in DENSE else "reveal_cancel"',
    ),
    "sign of the gap": ("metrics/axioms.py", "(scores - scores_start)", "(scores_start - scores)"),
    "alpha is a sum": (
        "cam/class_activation.py",
        ".mean((2, 3), keepdim=True)",
        ".sum((2, 3), keepdim=True)",
    ),
    "each channel is cut alone": (
        "cam/class_activation.py",
        "return (alpha * activation).sum(1)",
        "return (alpha * activation).relu().sum(1)",
    ),
    "one window for all pictures": (
        "cam/class_activation.py",
        "* where[:, None]",
        "* where[:1, None]",
    ),
    "the layer is overwritten": (
        "cam/layer_outputs.py",
        "return outputs[-1].clone()",
        "return outputs[-1]",
    ),
    "infinite maps pass": ("cam/class_activation.py", "    checks.result(cells)\n", ""),
    "the hook stays": ("cam/layer_outputs.py", "            handle.remove()", "            pass"),
    "padding moves no centre": (
        "cam/receptive_field.py",
        "(d * (k - 1) / 2 - p)",
        "(d * (k - 1) / 2)",
    ),
    "dilation moves no centre": (
        "cam/receptive_field.py",
        "(d * (k - 1) / 2 - p)",
        "((k - 1) / 2 - p)",
    ),
    "later windows in steps of one pixel": ("cam/receptive_field.py", "a + b * (d", "a + (d"),
    "padding on the far side": ("cam/receptive_field.py", "left, _, top, _ =", "_, left, _, top ="),
    "drawn a pixel beside": (
        "cam/receptive_field.py",
        "(pixels - start) / step",
        "(pixels - start - 1) / step",
    ),
    "turned maps are followed": ("cam/receptive_field.py", "% ndim < ndim - 2", "% ndim < ndim"),
    "every operation is followed": (
        "cam/receptive_field.py",
        "if same and _stays(tape, step)",
        "if same",
    ),
    "the first loss is blamed": ("cam/receptive_field.py", "{lost[-1].name}", "{lost[0].name}"),
    "noise is drawn once": (
        "networks/digits.py",
        "generator=rng).to(batch)",
        "generator=rng.manual_seed(0)).to(batch)",
    ),
    "noise of another size": (
        "networks/digits.py",
        "batch + noise * torch.randn",
        "batch + noise**2 * torch.randn",
    ),
    "one share for all": ("averaging/probes.py", "else each[part]", "else each[:1]"),
    "one share for all steps": ("averaging/probes.py", "shares[part.start] if", "shares[0] if"),
    "every inner block ends a draw": (
        "averaging/probes.py",
        "last = seen == inside.count",
        "last = True",
    ),
    "every block ends a path": ("averaging/probes.py", "int(part.stop == len(nodes))", "1"),
    "one block only": (
        "averaging/seeded_noise.py",
        "for k in range(0, count, size))",
        "for k in (0,))",
    ),
    "dilated kernels are padded": ("fast/lean_layers.py", "and max(module.dilation) == 1", ""),
    "only one kind of error": (
        "fast/passes.py",
        "any(sign in",
        "any(sign[:7] == 'out of ' and sign in",
    ),
    "a size that failed is asked for again": (
        "fast/passes.py",
        "self.rows = count // 2",
        "half = count // 2",
    ),
    "steps are not checked": ("fast/prepare_network.py", "if _agrees(", "if True or _agrees("),
    "one row is halved": ("fast/passes.py", "count == 1 or ", ""),
    "tf32 on a CPU": ("fast/precision_modes.py", 'if name == "tf32":', "if False:"),
    "rules that compare are rounded": (
        "fast/precision_modes.py",
        '"float32" if exact else CHOSEN.get()',
        "CHOSEN.get()",
    ),
    "PyTorch's default precision": (
        "fast/precision_modes.py",
        '_tf32(name == "tf32")',
        "_tf32(True)",
    ),
    "switches stay": ("fast/precision_modes.py", "setattr(switch, name, old)", "pass"),
    "the choice stays": ("fast/precision_modes.py", "CHOSEN.reset(before)", "pass"),
    "another weight's norm": (
        "fast/prepare_network.py",
        "len(weight) == norm.num_features",
        "True",
    ),
    "made weights are folded": (
        "fast/prepare_network.py",
        'layer._parameters.get("weight")',
        "layer.weight",
    ),
    "the penalty is not squared": (
        "networks/digits.py",
        "slope.square().sum()",
        "slope.abs().sum()",
    ),
    "the penalty of the mean loss": ("networks/digits.py", 'reduction="sum"', 'reduction="mean"'),
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
    "pictures of a row are counted wrong": ("averaging/engine.py", ") % count", ") // count"),
    "the model writes into the points": (
        "averaging/engine.py",
        "model(points.clone())",
        "model(points)",
    ),
    "rows are not compared": (
        "checks.py",
        "if _differ(together, torch.cat(alone), x):",
        "if False:",
    ),
    "calls are not compared": (
        "checks.py",
        "if again is None or _differ(together, again[: len(together)], x):",
        "if False:",
    ),
    "the two rows are one": (
        "checks.py",
        "second = _other(first)",
        "second = first",
    ),
    "a held tensor loses its rows": (
        "checks.py",
        "fixed_rows=fixed",
        "fixed_rows=False",
    ),
    "a softmax is not seen": ("checks.py", '("softmax", "sigmoid")', '("sigmoid",)'),
    "logs count as probabilities": ("checks.py", ' and "log" not in name', ""),
    "weights are given noise in place": (
        "averaging/noise.py",
        "noisy = copy.deepcopy(model)",
        "noisy = model",
    ),
    "a baseline for all pictures alike": (
        "averaging/smoothing.py",
        "rows = len(value) == len(x) > 1",
        "rows = False",
    ),
    "norms are folded where values are read": (
        "fast/prepare_network.py",
        "if values.found:",
        "if False:",
    ),
    "the other clip": (
        "fast/lean_layers.py",
        "grad_output, output, 0.0, 6.0",
        "grad_output, output, -1.0, 6.0",
    ),
    "an even padding too short": (
        "fast/lean_layers.py",
        "[(n + 1) // 2 for n in zeros]",
        "[n // 2 for n in zeros]",
    ),
    "the kernel's zero at its end": (
        "fast/lean_layers.py",
        "(odd[1], 0, odd[0], 0)",
        "(0, odd[1], 0, odd[0])",
    ),
    "weights with zeros for every rule": (
        "fast/lean_layers.py",
        "if any(odd) and torch.is_grad_enabled() and x.requires_grad:",
        "if any(odd):",
    ),
    "channels last read as first": (
        "cam/class_activation.py",
        "activation.movedim(3, 1), gradient.movedim(3, 1)",
        "activation, gradient",
    ),
    "proportions turned round": (
        "cam/layer_outputs.py",
        "_proportional((a, b), x.shape[2:])",
        "_proportional((b, c), x.shape[2:])",
    ),
    "hooks for every thread": ("cam/layer_outputs.py", "threading.get_ident() != thread", "False"),
    "a stack for every thread": (
        "rules/recorder.py",
        "        if threading.get_ident() == thread:\n            running.append(module)",
        "        if True:\n            running.append(module)",
    ),
    "no rectifier, no word": ("rules/rectifiers.py", "if not rectifiers:", "if False:"),
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
