"""Planted mistakes in the formulas of averaging/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "averaging/engine.py": [
        "averaging/test_engine.py",
        "averaging/test_methods.py",
        "averaging/test_smoothing.py",
        "averaging/test_model_check.py",
        "averaging/test_sampling.py",
    ],
    "averaging/probes.py": [
        "averaging/test_engine.py",
        "averaging/test_methods.py",
        "averaging/test_path_methods.py",
        "averaging/test_smoothing.py",
        "averaging/test_sampling.py",
    ],
    "averaging/path_methods.py": ["averaging/test_path_methods.py"],
    "averaging/smoothing.py": ["averaging/test_squared_smoothing.py"],
    "averaging/squared_smoothing.py": ["averaging/test_squared_smoothing.py"],
    "averaging/quadrature.py": ["averaging/test_engine.py", "averaging/test_methods.py"],
    "averaging/seeded_noise.py": ["averaging/test_sampling.py"],
    "averaging/noise.py": [
        "averaging/test_noise.py",
        "averaging/test_smoothing.py",
        "test_threads.py",
    ],
}
# name: (file, text that occurs once, what replaces it)
MUTANTS = {
    "a sign of the sum": ("averaging/engine.py", "self.sum += block_sum", "self.sum -= block_sum"),
    "weights dropped": ("averaging/engine.py", "terms *= block.weights", "pass"),
    "shares dropped": ("averaging/engine.py", "gradients * block.shares", "gradients * 1"),
    "share of one dropped": ("averaging/engine.py", "value=block.shares", "value=1"),
    "variance over n": (
        "averaging/engine.py",
        "self.squares * n / (n - 1)",
        "self.squares * n / n",
    ),
    "mean of the chunk": (
        "averaging/engine.py",
        "target[:, None], ones)",
        "target[:, None], ones / len(target))",
    ),
    "draws weigh as blocks": ("averaging/engine.py", "delta * (k / self.draws)", "delta / 2"),
    "spread between blocks": (
        "averaging/engine.py",
        " + delta.square() * (n * k / self.draws)",
        "",
    ),
    "targets of the first picture": (
        "averaging/engine.py",
        "points, target[pictures], *tensors",
        "points, target[:1].expand(len(points)), *tensors",
    ),
    "b - x": ("averaging/probes.py", "difference = x - b", "difference = b - x"),
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
    "sum over baselines": ("averaging/probes.py", "share / baselines for", "share for"),
    "z - x": ("averaging/probes.py", "Block(z, x - z", "Block(z, z - x"),
    "sum over given roots": ("averaging/probes.py", "1 / count, len(z)", "1, len(z)"),
    "weight noise adds": ("averaging/noise.py", "(eta * p.detach())", "(eta - 1 + p.detach())"),
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
    "erf without sqrt 2": (
        "averaging/noise.py",
        "distance / (math.sqrt(2) * sigma)",
        "distance / sigma",
    ),
    "one side of the range": (
        "averaging/noise.py",
        "_upper_tail(upper - x, sigma) + _upper_tail(x - lower, sigma)",
        "2 * _upper_tail(upper - x, sigma)",
    ),
    "truncated on one side": ("averaging/noise.py", "1 - _upper_tail(upper - x, sigma)", "1.0"),
    "input not multiplied": ("averaging/probes.py", "Block(x[None], x)", "Block(x[None])"),
    "one share for all steps": ("averaging/probes.py", "shares[rows.start] if", "shares[0] if"),
    "every block ends a path": (
        "averaging/probes.py",
        "rows.stop == len(nodes) and ends_draw",
        "ends_draw",
    ),
    "pictures of a row are counted wrong": ("averaging/engine.py", ") % count", ") // count"),
    "variance over n - 1": (
        "averaging/smoothing.py",
        "(samples - 1) * error.square()",
        "samples * error.square()",
    ),
    "variance without the mean": (
        "averaging/squared_smoothing.py",
        "mean.square() + variance",
        "variance",
    ),
    "the first baseline alone": (
        "averaging/probes.py",
        "baselines[chosen[rows], None]",
        "baselines[chosen[rows] * 0, None]",
    ),
    "weight of the path dropped": (
        "averaging/probes.py",
        "values[start:stop] * block.weights",
        "1 * block.weights",
    ),
    "IDGI by magnitudes": (
        "averaging/path_methods.py",
        "torch.where(largest == 0, 0, g / largest).square()",
        "torch.where(largest == 0, 0, g / largest).abs()",
    ),
    "the largest gradients first": (
        "averaging/path_methods.py",
        "g.abs().to(a), length",
        "1 / g.abs().to(a), length",
    ),
    "all of them at once": ("averaging/path_methods.py", "int(fraction * ", "int(1 * "),
    "no bound behind the line": ("averaging/path_methods.py", "a.clamp(min=goal - max_dist)", "a"),
    "the mirror of uniform noise is negative": (
        "averaging/seeded_noise.py",
        "else 1 - drawn",
        "else -drawn",
    ),
    "mirrors after all draws": ("averaging/seeded_noise.py", "mirrored], 1)", "mirrored], 0)"),
    "half a pair is a draw": ("averaging/probes.py", "draws=len(z) // per_draw", "draws=len(z)"),
    "a path of a pair is a draw": ("averaging/probes.py", "len(nodes) and ends_draw", "len(nodes)"),
    "neighbours of a draw are not added": (
        "averaging/engine.py",
        "(block.draws, -1)).sum(1)",
        "(-1, block.draws)).sum(0)",
    ),
}
