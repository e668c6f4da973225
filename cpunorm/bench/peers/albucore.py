"""albucore, albumentations' kernels."""

import numpy as np

from .base import Call
from .opencv import OpenCV


class Albucore(OpenCV):
    """`albucore.normalize`, which computes with OpenCV on its threads; planar by a copy."""

    name = "albucore"
    packages = ("albucore", "cv2")

    def __init__(self, threads):
        super().__init__(threads)
        import albucore

        self.normalize = albucore.normalize
        self.version = albucore.__version__

    def to_numpy(self, case, y):
        """The array itself, whose one channel it may have dropped."""
        return y.reshape(case.arrays().out.shape)

    def normalize_image(self, case, a):
        """In the image's layout."""
        mean, factor = a.running_mean / np.float32(case.scale), np.float32(case.scale) / a.running_var
        if mean.size == 1:
            mean, factor = float(mean[0]), float(factor[0])
        if case.result == "HWC":
            return Call(lambda: self.normalize(a.x, mean, factor))
        return Call(lambda: np.ascontiguousarray(self.normalize(a.x, mean, factor).transpose(2, 0, 1)))
