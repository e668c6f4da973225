from cpunorm._kernels import *  # noqa: F403

IMAGE_KERNEL: object
