IMAGE_KERNEL: object
KERNEL_SET: object  # a capsule, see `_norm.pxd`
