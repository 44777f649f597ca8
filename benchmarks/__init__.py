"""Side-by-side measurements: each module is a script that prints a table."""
