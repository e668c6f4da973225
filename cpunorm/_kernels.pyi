ACTIVATE: int  # the address of `activate` in kernels/forward.pxi
IMAGE_KERNEL: object
KERNEL_SET: object  # a capsule, see `_norm.pxd`
