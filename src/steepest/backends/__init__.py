"""The vocabulary formulas are written in, and what each backend makes of them.

* :mod:`steepest.backends.reference`: PyTorch tensor operations.
* :mod:`steepest.backends.cpu`: fused Numba kernels behind plain C pointers.
"""
