"""Planted mistakes in the formulas of networks/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "networks/digits.py": ["networks/test_digits.py"],
    "networks/adapter.py": ["networks/test_adapter.py"],
    "networks/known_truth.py": ["networks/test_known_truth.py"],
}
# name: (file, text that occurs once, what replaces it)
MUTANTS = {
    "noise of another size": (
        "networks/digits.py",
        "batch + noise * torch.randn",
        "batch + noise**2 * torch.randn",
    ),
    "the penalty is not squared": (
        "networks/digits.py",
        "gradient.square().sum()",
        "gradient.abs().sum()",
    ),
    "the embedding of the ids is not replaced": (
        "networks/adapter.py",
        "        runs.append(module)\n        return z",
        "        runs.append(module)\n        return output",
    ),
    "inputs are cut one place too early": (
        "networks/adapter.py",
        "[0, *sizes]).cumsum(0)",
        "[0, *sizes]).cumsum(0).sub(1).clamp(min=0)",
    ),
    "a dictionary is joined in its own order": (
        "networks/adapter.py",
        "values = [values[key] for key in self.parts]",
        "values = list(values.values())",
    ),
    "the last of a tuple for the first": (
        "networks/adapter.py",
        "value = found[likely[0]]",
        "value = [*found.values()][-1]",
    ),
    "the truth is the other digit": (
        "networks/known_truth.py",
        "torch.where(asked, on_right, on_left)",
        "torch.where(asked, on_left, on_right)",
    ),
    "a share of magnitudes channel by channel": (
        "networks/known_truth.py",
        "attribution.sum(1, keepdim=True).abs()",
        "attribution.abs().sum(1, keepdim=True)",
    ),
}
