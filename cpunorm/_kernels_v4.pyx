# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""`_kernels.pyx` for x86-64-v4 (setup.py adds the flags)."""

include "_kernels.pyx"
