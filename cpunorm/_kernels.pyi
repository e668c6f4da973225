KERNEL_SET: object  # a capsule, see `_norm.pxd`
