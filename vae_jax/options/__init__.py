"""Options: their types, ranges and names, whatever they configure."""
