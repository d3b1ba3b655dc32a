"""Data shipped with the package: the bundled facts, and the corpus for second moments."""
