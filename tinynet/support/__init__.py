"""What everything may import: types, errors, checks of arguments, random numbers."""
