"""What only the book needs; the pages import it from beside themselves."""
