"""The command line: it parses, calls the library and prints; nothing is computed here.

Nothing in it imports torch, numba, scikit-learn or polars before a command needs them.
"""
