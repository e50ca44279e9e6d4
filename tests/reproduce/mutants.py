"""Planted mistakes in the formulas of reproduce/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "reproduce/rows.py": ["reproduce/test_reproduce.py"],
    "reproduce/tables.py": ["reproduce/test_verdicts.py"],
    "reproduce/verdicts.py": ["reproduce/test_verdicts.py"],
    "reproduce/orders.py": ["reproduce/test_verdicts.py"],
}
# name: (file, text that occurs once, what replaces it)
MUTANTS = {
    "an interval for single pictures": ("reproduce/tables.py", "/ math.sqrt(n)", "/ 1"),
    "a one-sided interval": (
        "reproduce/tables.py",
        "t.ppf((1 + confidence) / 2",
        "t.ppf(confidence",
    ),
    "what is shown every second time": ("reproduce/tables.py", "t.ppf(power", "t.ppf(0.5"),
    "an equivalence by its mean alone": (
        "reproduce/verdicts.py",
        'max(-d["low"], d["high"])',
        'abs(d["low"] + d["high"]) / 2',
    ),
    "a printed tie for an order": ("reproduce/verdicts.py", "> 1e-9", "> -1e-9"),
    "numbers for their ranks": (
        "reproduce/orders.py",
        "rankdata(values, axis=-1)",
        "np.asarray(values)",
    ),
    "always the first picture": (
        "reproduce/orders.py",
        "np.full(pictures, 1 / pictures), size=draws",
        "np.eye(pictures)[0], size=draws",
    ),
    "the map at the picture for nothing": (
        "reproduce/rows.py",
        "+ clean) / (count + 1)",
        "+ clean) / count",
    ),
    "the paper's confidence for the program's": ("reproduce/rows.py", "2 * c - 1", "1 * c"),
}
