"""BatchNorm and GroupNorm on two real photographs, in the layout that image files are loaded in (NHWC).

Shows what the norms do to data one can look at: the statistics of each colour as loaded, after BatchNorm2d in
training (the batch's own statistics) and in eval (statistics learned from random crops), and after GroupNorm (each
photo by itself); that the NCHW view of the same memory gives the same numbers; and a picture of it all.

Install::

    pip install "cpunorm[examples]"

Run; it writes ``photo_normalization.png`` into the current directory unless told otherwise::

    python examples/photo_normalization.py
    python examples/photo_normalization.py --output photos.png
"""

import argparse

import numpy as np

import cpunorm

try:
    from matplotlib.figure import Figure
    from sklearn.datasets import load_sample_image
except ModuleNotFoundError as missing:
    raise SystemExit(f'{missing.name} is not installed; please run: pip install "cpunorm[examples]"') from None

PHOTOS = ("china.jpg", "flower.jpg")
COLOURS = ("red", "green", "blue")
EPOCHS, BATCHES, CROPS, SIDE = 5, 10, 16, 128
TOLERANCE = 2e-6  # cpunorm's promise for float32 in every layout
SHOWN = 2.25  # standard deviations either side of the mean that the picture shows


def print_row(title, means, stds):
    """One row of a table: `title`, then each mean and standard deviation."""
    print(f"{title:30}" + "".join(f"{mean:z8.2f} ± {std:6.2f}" for mean, std in zip(means, stds, strict=True)))


def print_header(title, *columns):
    """The row above those of `print_row`."""
    print(f"\n{title:30}" + "".join(f"{column:>17}" for column in columns))


def print_statistics(title, pixels):
    """Mean and standard deviation of each colour of `pixels`, (..., 3), and of all values together."""
    columns = [*np.moveaxis(pixels, -1, 0), pixels]
    print_row(title, [c.mean(dtype=np.float64) for c in columns], [c.std(dtype=np.float64) for c in columns])


def random_crops(photos, rng):
    """A batch of (CROPS, SIDE, SIDE, 3), each cut out of one of `photos`, (N, H, W, 3)."""
    tops, lefts = (rng.integers(length - SIDE, size=CROPS) for length in photos.shape[1:3])
    photo = rng.integers(len(photos), size=CROPS)
    return np.stack([photos[p, y : y + SIDE, x : x + SIDE] for p, y, x in zip(photo, tops, lefts, strict=True)])


def learn(norm, photos):
    """Show crops of `photos`, (N, H, W, 3), to `norm` in training, and print how its running statistics settle."""
    rng = np.random.default_rng(0)
    print_header("running statistics: mean ± std", *COLOURS)
    print_row("before training", norm.running_mean, np.sqrt(norm.running_var))
    norm.train()
    for epoch in range(EPOCHS):
        for _ in range(BATCHES):
            norm(random_crops(photos, rng))
        print_row(f"after epoch {epoch + 1}", norm.running_mean, np.sqrt(norm.running_var))


def compare_layouts(nhwc, nchw, photos, normalised):
    """Print how far `nchw` on `photos` seen as (N, C, H, W) is from `normalised`, the result of `nhwc` on (N, H, W, C).

    Raises
    ------
    SystemExit
        Further than `TOLERANCE`.
    """
    nchw.load_state_dict(nhwc.state_dict())
    view = photos.transpose(0, 3, 1, 2)
    for memory, x in (("transposed view, no copy", view), ("contiguous copy", np.ascontiguousarray(view))):
        difference = np.abs(nchw(x).transpose(0, 2, 3, 1) - normalised).max()
        if not difference <= TOLERANCE:
            raise SystemExit(f"{nchw} on NCHW differs by {difference} from NHWC, more than {TOLERANCE}")
        print(f"{type(nchw).__name__ + ', ' + memory:38} equal within {TOLERANCE}: largest difference {difference:.1e}")


def draw(photos, by_batch, by_photo, output):
    """Save a picture of the photos as loaded and normalised, all (2, H, W, 3): pixels, histograms, single colours."""
    stages = {
        "as loaded:\n0 is black, 255 is white": photos,
        "BatchNorm2d in eval:\nphotos keep their differences": by_batch,
        "GroupNorm(1, 3):\neach photo by itself": by_photo,
    }
    figure = Figure(figsize=(12, 14.5), layout="constrained")
    figure.suptitle("Two photographs through cpunorm", fontsize=20)
    axes = figure.subplots(5, 3, height_ratios=[3, 1.4, 3, 1.4, 3])
    for column, (stage, pixels) in enumerate(stages.items()):
        low, high, unit = (0, 255, "value") if pixels is photos else (-SHOWN, SHOWN, "standard deviations")
        axes[0, column].set_title(stage, fontsize=14)
        for image, histogram, photo in zip(axes[0:4:2, column], axes[1:4:2, column], pixels, strict=True):
            image.imshow(np.clip((photo - low) / (high - low), 0, 1))
            image.axis("off")
            for colour, channel in zip(COLOURS, np.moveaxis(photo, -1, 0), strict=True):
                values = channel.ravel()
                histogram.hist(
                    values, bins=64, range=(low, high), density=True, histtype="stepfilled", color=colour, alpha=0.25
                )
                histogram.axvline(values.mean(), color=colour, linestyle="--")
            uniform = 1 / (high - low)
            histogram.set(xlim=(low, high), ylim=(0, 5 * uniform), yticks=[], xlabel=f"{unit} (dashed: mean)")
    for axis, colour, channel in zip(axes[4], COLOURS, np.moveaxis(by_batch[0], -1, 0), strict=True):
        shown = axis.imshow(channel, cmap="RdBu_r", vmin=-SHOWN, vmax=SHOWN)
        axis.set_title(f"{colour} after BatchNorm2d in eval")
        axis.axis("off")
    label = f"standard deviations from the mean (in the normalised photos above {-SHOWN} is black, {SHOWN} is white)"
    figure.colorbar(shown, ax=axes[4], location="bottom", aspect=60, label=label)
    figure.savefig(output, dpi=100)


def main():
    """Print the statistics before and after, compare the layouts, save the picture."""
    parser = argparse.ArgumentParser(description="BatchNorm and GroupNorm on two photographs.")
    parser.add_argument("--output", default="photo_normalization.png", help="the PNG to write (default: %(default)s)")
    output = parser.parse_args().output

    photos = np.stack([load_sample_image(name) for name in PHOTOS]).astype(np.float32)
    print(f"{' and '.join(PHOTOS)} as loaded: {photos.dtype}, (photos, rows, columns, colours) = {photos.shape}, NHWC")
    batch_norm = cpunorm.BatchNorm2d(3, data_format="channels_last")
    learn(batch_norm, photos)

    print_header("pixels: mean ± std", *COLOURS, "all")
    print_statistics("both photos, as loaded", photos)
    print_statistics("both, BatchNorm2d in training", cpunorm.BatchNorm2d(3, data_format="channels_last")(photos))
    print_statistics("both, BatchNorm2d in eval", batch_norm.eval()(photos))
    group_norm = cpunorm.GroupNorm(1, 3, data_format="channels_last")
    by_batch, by_photo = batch_norm(photos), group_norm(photos)
    for name, *pixels in zip(PHOTOS, by_batch, by_photo, strict=True):
        print_statistics(f"{name}, BatchNorm2d in eval", pixels[0])
        print_statistics(f"{name}, GroupNorm", pixels[1])
    print()
    compare_layouts(batch_norm, cpunorm.BatchNorm2d(3).eval(), photos, by_batch)
    compare_layouts(group_norm, cpunorm.GroupNorm(1, 3), photos, by_photo)
    draw(photos, by_batch, by_photo, output)
    print(f"\npicture: {output}")


if __name__ == "__main__":
    main()
