"""Planted mistakes in the formulas of rules/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "rules/tape.py": ["rules/test_tape.py"],
    "rules/linear_steps.py": ["rules/test_tape.py"],
    "rules/rectifiers.py": ["rules/test_backward.py", "rules/test_rectifiers.py"],
    "rules/lrp_rules.py": [
        "rules/test_backward.py",
        "rules/test_transformers.py",
        "rules/test_layer_rules.py",
    ],
    "rules/relevance_propagation.py": ["rules/test_layer_rules.py"],
    "rules/smoothed_derivatives.py": ["rules/test_smoothdiff.py"],
    "rules/learnt_patterns.py": ["rules/test_patterns.py"],
    "rules/deeplift_multipliers.py": ["rules/test_deeplift.py"],
    "rules/secant_forms.py": ["rules/test_transformers.py", "rules/test_deeplift.py"],
    "rules/transformer_steps.py": ["rules/test_transformers.py"],
    "rules/pruned_gradients.py": ["rules/test_transformers.py"],
    "rules/opened_layers.py": ["rules/test_transformers.py"],
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
        "rules/secant_forms.py",
        "product_of(step), sum(a) / 2, sum(b) / 2",
        "product_of(step), a[0], b[0]",
    ),
    "softmax at x": (
        "rules/secant_forms.py",
        "(z.softmax(dim) + z0.softmax(dim)) / 2",
        "z.softmax(dim)",
    ),
    "a norm without its deviation's difference": (
        "rules/secant_forms.py",
        "(c + c0) / (s + s0)",
        "0 * (c + c0) / (s + s0)",
    ),
    "softmax without competition": (
        "rules/lrp_rules.py",
        "(relevance - s * total)",
        "relevance",
    ),
    "both factors take all": ("rules/lrp_rules.py", "1.0 if one_is_fixed else 0.5", "1.0"),
    "the deviation at eps 0": (
        "rules/transformer_steps.py",
        ".square()) + self.eps)",
        ".square()))",
    ),
    "attention is not held fixed": (
        "rules/pruned_gradients.py",
        "GATES = SOFTMAX | transformer_steps",
        "GATES = transformer_steps",
    ),
    "gated activations keep their gradient": (
        "rules/pruned_gradients.py",
        "return not bool(step(",
        "return False and bool(step(",
    ),
    "the gates of a GRU exchanged": (
        "rules/opened_layers.py",
        "return ((1 - u) * n + u * h,)",
        "return (u * n + (1 - u) * h,)",
    ),
    "the mean over classes stays": (
        "rules/deeplift_multipliers.py",
        "mu - 1 / scores.shape[1]",
        "mu - 0 / scores.shape[1]",
    ),
    "w squared is w": (
        "rules/lrp_rules.py",
        'torch.ones_like if rule == "flat" else torch.square',
        'torch.ones_like if rule == "flat" else torch.abs',
    ),
    "sums share out by all terms": (
        "rules/lrp_rules.py",
        "is_sum and self.positive_sums",
        "is_sum and False",
    ),
    "the outermost module decides": (
        "rules/relevance_propagation.py",
        "for m in reversed(step.modules)",
        "for m in step.modules",
    ),
    "deep Taylor with biases": (
        "rules/relevance_propagation.py",
        "dict(biases=False, positive",
        "dict(biases=True, positive",
    ),
    "the slope at the input": (
        "rules/smoothed_derivatives.py",
        "there = record(network, points, target)",
        "there = record(network, tape.values[0], target)",
    ),
    "the last of equal maxima": (
        "rules/smoothed_derivatives.py",
        "windows.argmax(-1, keepdim=True)",
        "windows.shape[-1] - 1 - windows.flip(-1).argmax(-1, keepdim=True)",
    ),
    "max pooling without its padding": (
        "rules/smoothed_derivatives.py",
        'values[0], float("-inf"))',
        "values[0], 9.0)",
    ),
    "every input passes": (
        "rules/learnt_patterns.py",
        "passes = (tape.values[layer.made] > 0).double()",
        "passes = passes",
    ),
    "the mean of those that pass": (
        "rules/learnt_patterns.py",
        "sums = [count, total,",
        "sums = [count, 0 * total,",
    ),
    "rounding makes a pattern": (
        "rules/learnt_patterns.py",
        "rounding**2 * size",
        "0 * size",
    ),
    "the class that comes last decides": (
        "rules/relevance_propagation.py",
        "rule[classes[0]]",
        "rule[classes[-1]]",
    ),
    "patterns alone in the attribution": (
        "rules/learnt_patterns.py",
        "new = pattern * weight if",
        "new = pattern if",
    ),
}
