"""Files that are written whole or not at all, read within bounds, and locked."""
