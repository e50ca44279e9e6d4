"""Planted mistakes in the formulas of fast/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "fast/lean_layers.py": ["fast/test_lean_layers.py", "fast/test_even_padding.py"],
    "fast/gradient_graph.py": ["fast/test_gradient_graph.py"],
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
    "the kernel is not flipped": (
        "fast/gradient_graph.py",
        "weight = weight.flip([2 + i for i in sides])",
        "pass",
    ),
    "channels of a group are not exchanged": (
        "fast/gradient_graph.py",
        ".transpose(1, 2).flatten(0, 1)",
        ".flatten(0, 1).unflatten(0, (x.shape[1], -1))",
    ),
    "a mean over the padding": (
        "fast/gradient_graph.py",
        "count = end - start if count_include_pad else",
        "count = end - start if not count_include_pad else",
    ),
    "the last of the maxima": (
        "fast/gradient_graph.py",
        "planes.scatter_add(-1,",
        "planes.scatter(-1,",
    ),
}
