"""Planted mistakes in the formulas of fast/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "fast/lean_layers.py": ["fast/test_lean_layers.py"],
}
# name: (file, text that occurs once, what replaces it)
MUTANTS = {
    "the other clip": (
        "fast/lean_layers.py",
        "grad_output, output, 0.0, 6.0",
        "grad_output, output, -1.0, 6.0",
    ),
    "the kernel's zero at its end": (
        "fast/lean_layers.py",
        "(odd[1], 0, odd[0], 0)",
        "(0, odd[1], 0, odd[0])",
    ),
}
