"""Planted mistakes in the formulas of networks/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "networks/digits.py": ["networks/test_digits.py"],
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
