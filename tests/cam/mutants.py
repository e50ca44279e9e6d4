"""Planted mistakes in the formulas of cam/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "cam/activation_kin.py": ["cam/test_activation_kin.py"],
    "cam/class_activation.py": ["cam/test_cam.py"],
    "cam/covered_windows.py": ["cam/test_covered_windows.py"],
    "cam/layer_outputs.py": ["cam/test_tokens.py"],
    "cam/receptive_field.py": ["cam/test_cam.py"],
    "cam/region_growing.py": ["cam/test_region_growing.py"],
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
    "plus plus with one for two": ("cam/activation_kin.py", "2 + total * gr", "1 + total * gr"),
    "plus plus with negative gradients": (
        "cam/activation_kin.py",
        "(gradient.relu() / denominator).where(gradient > 0, 0)",
        "(gradient / denominator)",
    ),
    "layer cam with negative gradients": (
        "cam/activation_kin.py",
        "(gradient.relu() * activation)",
        "(gradient * activation)",
    ),
    "softmax over pictures": ("cam/activation_kin.py", ".softmax(0)", ".softmax(1)"),
    "masks from 0 on": ("cam/activation_kin.py", "(drawn - low) / ", "drawn / "),
    "the channel of another picture": ("cam/activation_kin.py", ") % len(x)", ") // len(x)"),
    "falls are summed": ("cam/covered_windows.py", "inside / count", "inside / 1"),
    "a rise for a fall": (
        "cam/covered_windows.py",
        "before - _score(model, points, target)",
        "_score(model, points, target) - before",
    ),
    "no window is cut off": (
        "cam/covered_windows.py",
        "range(0, n - size + s, s)",
        "range(0, n - size + 1, s)",
    ),
    "the mean of the whole region": (
        "cam/region_growing.py",
        "a[new].mean()",
        "a[masks[best]].mean()",
    ),
    "regions are ranked once": (
        "cam/region_growing.py",
        "sums -= (masks[:, new] * a[new]).sum(1)",
        "pass",
    ),
    "black alone": ("cam/region_growing.py", "(maps[0] + maps[1]) / 2", "maps[0]"),
}
