"""Planted mistakes in the formulas of reproduce/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "reproduce/rows.py": ["reproduce/test_reproduce.py"],
    "reproduce/tables.py": ["reproduce/test_reproduce.py"],
}
# name: (file, text that occurs once, what replaces it)
MUTANTS = {
    "an interval for single pictures": ("reproduce/tables.py", "/ math.sqrt(n)", "/ 1"),
    "a one-sided interval": ("reproduce/tables.py", "(1 + confidence) / 2", "confidence"),
    "the map at the picture for nothing": (
        "reproduce/rows.py",
        "+ clean) / (count + 1)",
        "+ clean) / count",
    ),
    "the paper's confidence for the program's": ("reproduce/rows.py", "2 * c - 1", "1 * c"),
}
