"""albucore, albumentations' kernels."""

import numpy as np

from .base import Call
from .opencv import OpenCV, is_image


class Albucore(OpenCV):
    """`albucore.normalize`, which computes with OpenCV on its threads; planar by a copy; `normalize_per_image`."""

    name = "albucore"
    packages = ("albucore", "cv2")

    def __init__(self, threads):
        super().__init__(threads)
        import albucore

        self.albucore = albucore
        self.version = albucore.__version__

    def has(self, case):
        """Values, not their moments."""
        return case.norm == "normalize_image" or (case.norm == "standardize" and is_image(case))

    def to_numpy(self, case, y):
        """The array itself, whose one channel it may have dropped."""
        return y.reshape(case.arrays().out.shape)

    def normalize_image(self, case, a):
        """In the image's layout."""
        mean, factor = a.running_mean / np.float32(case.scale), np.float32(case.scale) / a.running_var
        if mean.size == 1:
            mean, factor = float(mean[0]), float(factor[0])
        if case.result == "HWC":
            return Call(lambda: self.albucore.normalize(a.x, mean, factor))
        return Call(lambda: np.ascontiguousarray(self.albucore.normalize(a.x, mean, factor).transpose(2, 0, 1)))

    def standardize(self, case, a):
        """With 1e-4 added to the deviation, which it has so."""
        return Call(lambda: self.albucore.normalize_per_image(a.x, "image_per_channel"))
