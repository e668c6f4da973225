"""Photographs become the batch that a network takes: `cpunorm.normalize_image` beside what people write.

Crops of two real photographs, as they are cut out and without a copy, go into one (N, 3, 224, 224) array of mean 0 and
deviation 1 per colour; mean and deviation come from the photographs themselves, by `cpunorm.moments`. The result is
compared with the formula in float64, with NumPy's lines and with OpenCV's `blobFromImages`, if that is installed, which
are timed beside it. A picture shows the crops before and after.

Install::

    pip install "cpunorm[examples]" opencv-python-headless

Run; it writes ``image_batch.png`` into the current directory unless told otherwise::

    python examples/image_batch.py
    python examples/image_batch.py --output batch.png
"""

import argparse
import importlib.util
import time

import numpy as np

import cpunorm

try:
    from matplotlib.figure import Figure
    from sklearn.datasets import load_sample_image
except ModuleNotFoundError as missing:
    raise SystemExit(f'{missing.name} is not installed; please run: pip install "cpunorm[examples]"') from None

PHOTOS = ("china.jpg", "flower.jpg")
COLOURS = ("red", "green", "blue")
CROPS, SIDE = 16, 224
TURNS = 15  # of each way, one after the other


def random_crops(photos, rng):
    """CROPS views of (SIDE, SIDE, 3) into `photos`, each mirrored or not: nothing is copied."""
    crops = []
    for i in range(CROPS):
        photo = photos[i % len(photos)]
        top, left = (rng.integers(length - SIDE + 1) for length in photo.shape[:2])
        crop = photo[top : top + SIDE, left : left + SIDE]
        crops.append(crop[:, ::-1] if rng.integers(2) else crop)
    return crops


def with_numpy(crops, mean, std):
    """The lines that most people write."""
    batch = np.stack(crops).astype(np.float32) / 255
    return np.ascontiguousarray(((batch - mean) / std).transpose(0, 3, 1, 2), np.float32)


def with_opencv(crops, mean, std):
    """OpenCV has one deviation for all colours: each is divided by its own afterwards."""
    import cv2

    blob = cv2.dnn.blobFromImages(crops, 1 / 255, (SIDE, SIDE), tuple(255 * float(m) for m in mean))
    blob /= std[:, None, None]
    return blob


def median_times(ways):
    """Milliseconds of each way, by name: the median of TURNS, taken turn by turn."""
    times = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def draw(crops, batch, output):
    """Save a picture: crops as loaded, as the network sees them, and the histograms of their colours."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    figure.suptitle(f"{CROPS} crops of two photographs, before and after cpunorm.normalize_image", fontsize=16)
    axes = figure.subplots(3, 6, height_ratios=[2, 2, 1.6])
    for column in range(6):
        axes[0, column].imshow(crops[column])
        axes[1, column].imshow(np.clip(batch[column].transpose(1, 2, 0) / 5 + 0.5, 0, 1))
        for row in range(2):
            axes[row, column].axis("off")
    axes[0, 0].set_title("uint8, (H, W, C)", loc="left")
    axes[1, 0].set_title("float32, (C, H, W): 0 is grey, ±2.5 are black and white", loc="left")
    for axis in axes[2]:
        axis.remove()
    grid = axes[2, 0].get_gridspec()
    for half, (title, values, ends) in enumerate(
        (("values before", np.stack(crops).reshape(-1, 3).T, (0, 256)), ("values after", batch.swapaxes(0, 1), (-3, 3)))
    ):
        axis = figure.add_subplot(grid[2, 3 * half : 3 * half + 3])
        for colour, channel in zip(COLOURS, values, strict=True):
            axis.hist(np.ravel(channel), bins=64, range=ends, density=True, histtype="step", color=colour)
        axis.set(title=title, yticks=[])
    figure.savefig(output, dpi=100)


def main():
    """Normalise the crops, compare, time, draw."""
    parser = argparse.ArgumentParser(description="Photographs as the batch that a network takes.")
    parser.add_argument("--output", default="image_batch.png", help="the PNG to write (default: %(default)s)")
    output = parser.parse_args().output

    photos = [load_sample_image(name) for name in PHOTOS]
    whole = cpunorm.Moments.merge([cpunorm.moments(photo, axis=(0, 1)) for photo in photos])
    mean, std = whole.mean / 255, whole.std() / 255
    print(f"{' and '.join(PHOTOS)}: {whole.count} pixels of uint8")
    for colour, *of_colour in zip(COLOURS, mean, std, strict=True):
        print(f"  {colour:5} mean {of_colour[0]:.4f}, deviation {of_colour[1]:.4f} of 1")

    crops = random_crops(photos, np.random.default_rng(0))
    batch = np.empty((CROPS, 3, SIDE, SIDE), np.float32)
    cpunorm.normalize_image(crops, mean, std, out=batch)
    exact = ((np.stack(crops) / 255.0 - mean) / std).transpose(0, 3, 1, 2)
    print(f"\n{CROPS} crops -> {batch.dtype} {batch.shape}")

    ways = {
        "cpunorm": lambda: cpunorm.normalize_image(crops, mean, std),
        "cpunorm, out=": lambda: cpunorm.normalize_image(crops, mean, std, out=batch),
        "NumPy": lambda: with_numpy(crops, mean.astype(np.float32), std.astype(np.float32)),
    }
    if importlib.util.find_spec("cv2"):
        ways["OpenCV"] = lambda: with_opencv(crops, mean, std.astype(np.float32))
    times = median_times(ways)
    print(f"\n{'way':14} {'median':>9}  times of cpunorm  largest difference from float64")
    for name, way in ways.items():
        error = np.abs(way() - exact).max()
        print(f"{name:14} {times[name]:6.2f} ms  {times[name] / times['cpunorm']:16.1f}  {error:.1e}")
    draw(crops, batch, output)
    print(f"\npicture: {output}")


if __name__ == "__main__":
    main()
