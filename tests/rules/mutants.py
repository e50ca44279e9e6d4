"""Planted mistakes in the formulas of rules/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "rules/tape.py": ["rules/test_tape.py"],
    "rules/linear_steps.py": ["rules/test_tape.py"],
    "rules/rectifiers.py": ["rules/test_backward.py", "rules/test_rectifiers.py"],
    "rules/lrp_rules.py": ["rules/test_backward.py"],
    "rules/deeplift_multipliers.py": ["rules/test_deeplift.py"],
}
# name: (file, text that occurs once, what replaces it)
MUTANTS = {
    "the last reader takes all": (
        "rules/tape.py",
        "totals[i] + share if i in totals else share",
        "share",
    ),
    "rsub is sub": (
        "rules/linear_steps.py",
        '(-alpha, 1) if step.name == "rsub"',
        '(1, -alpha) if step.name == "rsub"',
    ),
    "batch norm without eps": ("rules/linear_steps.py", "(var + eps).rsqrt()", "var.rsqrt()"),
    "deconvnet lets all through": (
        "rules/rectifiers.py",
        "[grad_output.clamp(min=0)] if",
        "[grad_output] if",
    ),
    "epsilon without the sign of z": ("rules/lrp_rules.py", ".copysign(z)", ""),
    "alpha beta without bias": ("rules/lrp_rules.py", "total + _of_sign(sign)(b))", "total)"),
    "gamma on both signs": ("rules/lrp_rules.py", " * (sign * z > 0)", ""),
    "corners of the box exchanged": (
        "rules/lrp_rules.py",
        "(-1, low, _of_sign(1)), (-1, high, _of_sign(-1))",
        "(-1, low, _of_sign(-1)), (-1, high, _of_sign(1))",
    ),
    "the sign of the difference is dropped": (
        "rules/deeplift_multipliers.py",
        "self.difference(step.inputs[0]).sign().mul_(delta[0])",
        "self.difference(step.inputs[0]).sign().abs().mul_(delta[0])",
    ),
    "one order of the two players": (
        "rules/deeplift_multipliers.py",
        "step(z0 + plus) - step(z0 + minus)",
        "step(z0 + plus) - step(z0) + step(z0) - step(z0 - minus * 0)",
    ),
    "an empty part has no slope": (
        "rules/deeplift_multipliers.py",
        "factor[empty] = sum(",
        "factor[empty] = 0 * sum(",
    ),
    "slope at the input": (
        "rules/deeplift_multipliers.py",
        "_slope(step, z0.expand_as(d), tiny)",
        "_slope(step, self.tape.values[i], tiny)",
    ),
    "the maximum at x takes all": (
        "rules/deeplift_multipliers.py",
        "torch.where(y >= y0, index, index0)",
        "torch.where(y >= y0, index, index)",
    ),
    "a product at x": (
        "rules/deeplift_multipliers.py",
        "(self.tape.values[i] + self.baseline_tape.values[i]) / 2",
        "self.tape.values[i]",
    ),
    "the mean over classes stays": (
        "rules/deeplift_multipliers.py",
        "mu - 1 / scores.shape[1]",
        "mu - 0 / scores.shape[1]",
    ),
}
