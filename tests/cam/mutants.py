"""Planted mistakes in the formulas of cam/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "cam/class_activation.py": ["cam/test_cam.py"],
    "cam/layer_outputs.py": ["cam/test_tokens.py"],
    "cam/receptive_field.py": ["cam/test_cam.py"],
}
# name: (file, text that occurs once, what replaces it)
MUTANTS = {
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
    "tokens column by column": (
        "cam/layer_outputs.py",
        "tokens[:, extra:].unflatten(1, grid).movedim(3, 1)",
        "tokens[:, extra:].unflatten(1, grid[::-1]).movedim(3, 1).mT",
    ),
    "the class token is a patch": (
        "cam/layer_outputs.py",
        "tokens[:, extra:]",
        "tokens[:, : count - extra]",
    ),
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
}
