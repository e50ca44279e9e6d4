"""Networks to explain: ImageNet classifiers, digits, and toy networks of a few units."""
