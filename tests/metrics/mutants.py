"""Planted mistakes in the formulas of metrics/, and the tests that must notice each."""

# file of the package: its tests
TESTS = {
    "metrics/sigma_search.py": ["metrics/test_sigma_search.py"],
    "metrics/repeatability.py": ["metrics/test_repeatability.py"],
    "metrics/agreement.py": ["metrics/test_agreement.py", "metrics/test_axioms.py"],
    "metrics/axioms.py": ["averaging/test_methods.py", "metrics/test_axioms.py"],
    "metrics/information.py": ["metrics/test_information.py"],
    "metrics/localisation.py": ["metrics/test_localisation.py"],
    "metrics/perturbation.py": ["metrics/test_perturbation.py"],
    "metrics/total_variation.py": ["metrics/test_total_variation.py"],
    "metrics/sparseness.py": ["metrics/test_sparseness.py"],
}
# name: (file, text that occurs once, what replaces it)
MUTANTS = {
    "the gain upside down": (
        "metrics/perturbation.py",
        "areas[0] - areas[1]",
        "areas[1] - areas[0]",
    ),
    "the gain of magnitudes": (
        "metrics/perturbation.py",
        "most_first = heatmap - heatmap.amin((1, 2), keepdim=True)",
        "most_first = heatmap",
    ),
    "the curve is not divided": (
        "metrics/perturbation.py",
        "return scores / curve[0][:, None]",
        "return scores",
    ),
    "sigma may be negative": (
        "metrics/sigma_search.py",
        "(sigma - alpha).abs()",
        "(sigma - alpha)",
    ),
    "alpha decays always": (
        "metrics/sigma_search.py",
        "torch.where(worse, alpha * decay, alpha)",
        "alpha * decay",
    ),
    "reliability of a half": ("metrics/repeatability.py", "2 * r / (1 + r)", "r"),
    "spread for error": (
        "metrics/repeatability.py",
        "(self.count - 1) / self.count",
        "(self.count - 1)",
    ),
    "correlation without means": (
        "metrics/agreement.py",
        "mean(1, keepdim=True) for v",
        "mean(1, keepdim=True) * 0 for v",
    ),
    "ties by place": ("metrics/agreement.py", "(less + not_more + 1)", "(less + less + 1)"),
    "gini by rank from above": ("metrics/sparseness.py", "(d - k + 0.5)", "(k - 0.5)"),
    "one direction of variation": (
        "metrics/total_variation.py",
        "for d in (2, 1))",
        "for d in (1, 1))",
    ),
    "pyramid without blur": (
        "metrics/total_variation.py",
        "* blur[left] +",
        "* torch.eye(size)[left] +",
    ),
    "mirror for reflection": (
        "metrics/total_variation.py",
        "index < 0, -1 - index",
        "index < 0, -index",
    ),
    "the sign of the map ranks": (
        "metrics/perturbation.py",
        "heatmap.double().abs()",
        "heatmap.double()",
    ),
    "performance may fall": (
        "metrics/information.py",
        "np.maximum.accumulate(performance)",
        "performance",
    ),
    "columns before rows": ("metrics/localisation.py", "dim=2) for row", "dim=1) for row"),
    "negative attribution counts": ("metrics/localisation.py", ".clamp(min=0)", ""),
    "sign of the gap": (
        "metrics/axioms.py",
        "(scores - baseline_scores)",
        "(baseline_scores - scores)",
    ),
}
