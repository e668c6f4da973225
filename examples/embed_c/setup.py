"""Builds `images`: python setup.py build_ext --inplace."""

from setuptools import Extension, setup

import cpunorm

setup(name="images", ext_modules=[Extension("images", ["images.c"], include_dirs=[cpunorm.get_include()])])
