"""What every module may import: types, errors, argument checks, random numbers."""
