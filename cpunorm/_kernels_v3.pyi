from cpunorm._kernels import *  # noqa: F403
