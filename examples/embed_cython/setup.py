"""Builds `tokens`: python setup.py build_ext --inplace."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import cpunorm

setup(name="tokens", ext_modules=cythonize([Extension("tokens", ["tokens.pyx"], include_dirs=[cpunorm.get_include()])]))
