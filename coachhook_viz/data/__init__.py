"""Data shipped with the package: bundled facts, a corpus for second moments, the report's page."""
