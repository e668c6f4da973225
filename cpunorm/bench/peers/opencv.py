"""OpenCV."""

import contextlib
from functools import partial

from .base import Call, Peer


def is_image(case):
    """Whether it is along the pixels of an image that moments are taken."""
    return case.axis == (0, 1) and len(case.layer.shape) == 3 and case.layer.shape[2] <= 4 and case.dtype == "float32"


class OpenCV(Peer):
    """`cv2.dnn.blobFromImage` and `cv2.meanStdDev`."""

    name = "opencv"
    packages: tuple[str, ...] = ("cv2",)

    def __init__(self, threads):
        super().__init__(threads)
        import cv2

        self.cv2 = cv2
        self.version = cv2.__version__

    @contextlib.contextmanager
    def context(self):
        """Its number of threads."""
        before = self.cv2.getNumThreads()
        self.cv2.setNumThreads(self.threads)
        try:
            yield
        finally:
            self.cv2.setNumThreads(before)

    def has(self, case):
        """Images alone, each channel by itself."""
        return super().has(case) and (case.norm == "normalize_image" or is_image(case))

    def to_numpy(self, case, y):
        """The one image of the batch."""
        return super().to_numpy(case, y) if isinstance(y, tuple) else y[0]

    def normalize_image(self, case, a):
        """One deviation for all channels, of which it takes 1, 3 or 4; planar results alone."""
        rows, columns, channels = case.layer.shape
        if case.result != "CHW" or channels not in (1, 3, 4):
            return None
        mean, scale = (a.running_mean / case.scale).tolist(), float(case.scale / a.running_var[0])
        return Call(partial(self.cv2.dnn.blobFromImage, a.x, scale, (columns, rows), mean))

    def moments(self, case, a):
        """Mean and deviation, squared."""

        def moments():
            mean, std = self.cv2.meanStdDev(a.x)
            return mean[:, 0], std[:, 0] ** 2

        return Call(moments)
