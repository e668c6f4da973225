"""The engine "numba": the kernel set compiled by Numba, and `cpunorm.functional` inside jitted functions."""
