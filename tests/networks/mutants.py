"""Planted mistakes in the formulas of networks/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "networks/digits.py": ["networks/test_digits.py"],
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
}
