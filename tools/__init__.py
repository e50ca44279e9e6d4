"""Programs that build the book."""
