"""The command `cpunorm stats`: mean, deviation, least and most per channel of the files of a data set."""

import functools
import importlib.util
import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

import cpunorm
from cpunorm._progress import track

__all__ = ["add_parser", "run"]

ARRAYS = (".npy", ".npz", ".safetensors")
SHOWN = 24  # channels in a table; --json has all


def add_parser(commands, writable_file):
    """Add the command to the parser of `cpunorm`.

    Parameters
    ----------
    commands
        What ``ArgumentParser.add_subparsers`` returned.
    writable_file : callable
        The type of an argument that names a file to be written.
    """
    stats = commands.add_parser(
        "stats",
        help="mean and deviation per channel of images and arrays",
        description="Mean, standard deviation, minimum and maximum per channel of images (whatever Pillow reads, their "
        "first frame), .npy, .npz and .safetensors files, each read once, on all cores. Files of other numbers of "
        "channels, dtypes or names of arrays are counted apart. Exit code 1: a file could not be read, the others are "
        "counted; 130: interrupted, with what is known so far.",
    )
    stats.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="a file, or a folder with all below it")
    stats.add_argument(
        "--channel-axis",
        metavar="AXIS",
        type=int,
        default=-1,
        help="of arrays, images have it last; default: -1; arrays of one axis have one channel",
    )
    stats.add_argument("--json", metavar="FILE", type=writable_file, help="write all figures to FILE")


@functools.cache
def _image_suffixes():
    from PIL import Image

    return frozenset(Image.registered_extensions())


def _files(paths):
    """The files of `paths`, those of folders in the order of their names; others than data in folders are left out."""
    for path in paths:
        if path.is_dir():
            suffixes = {*ARRAYS, *(_image_suffixes() if importlib.util.find_spec("PIL") else ())}
            yield from (p for p in sorted(path.rglob("*")) if p.suffix.lower() in suffixes and p.is_file())
        else:
            yield path


def _image(path):
    """An image as (H, W, C): gray has one channel, palettes are looked up."""
    from PIL import Image

    with Image.open(path) as image:
        if image.mode in ("P", "PA", "1"):
            image = image.convert("L" if image.mode == "1" else "RGBA" if "transparency" in image.info else "RGB")
        pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def _arrays(path):
    """(name, array) of all arrays of a file; an image and a .npy file have one, without a name."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        yield "", np.load(path, mmap_mode="r").view(np.ndarray)
    elif suffix == ".npz":
        with path.open("rb") as file, np.load(file) as archive:
            yield from ((name, archive[name]) for name in archive.files)
    else:
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as tensors:
            yield from ((name, tensors.get_tensor(name)) for name in tensors.keys())  # noqa: SIM118 - it is no dict


def _moments(path, channel_axis):
    """What a file holds: ((name, channels, dtype), moments) of each array."""
    if path.suffix.lower() in ARRAYS:
        arrays = _arrays(path)
    else:
        arrays, channel_axis = [("", _image(path))], -1
    found = []
    for name, x in arrays:
        if x.size == 0:
            raise ValueError(f"no values: {name or 'the array'} has shape {x.shape}")
        x, axis = (x, channel_axis) if x.ndim > 1 else (x.reshape(-1, 1), -1)
        kept = normalize_axis_index(axis, x.ndim)
        moments = cpunorm.moments(x, [a for a in range(x.ndim) if a != kept])
        found.append(((name, x.shape[kept], x.dtype.name), moments))
    return found


def _read(files, channel_axis):
    """What each file holds or the exception that it raised, by its place in `files`; and whether it was interrupted."""
    known, threads = {}, min(len(files), cpunorm.get_num_threads())
    with cpunorm.num_threads(1), ThreadPoolExecutor(threads) as pool:
        places = {pool.submit(_moments, path, channel_axis): place for place, path in enumerate(files)}
        try:
            for done in track(as_completed(places), len(files)):
                known[places[done]] = done.exception() or done.result()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            return known, True
    return known, False


def _tally(files, known):
    """Moments and number of files of each kind, in the order of files, however they were read; and what is broken."""
    kinds, broken = {}, []
    for place, found in sorted(known.items()):
        if isinstance(found, BaseException):
            broken.append({"path": str(files[place]), "error": f"{type(found).__name__}: {found}"})
            continue
        for kind, moments in found:
            kinds.setdefault(kind, []).append(moments)
    return {kind: (cpunorm.Moments.merge(parts), len(parts)) for kind, parts in sorted(kinds.items())}, broken


def _figures(kind, moments, files):
    """One kind of arrays as a dict of what JSON has."""
    name, channels, dtype = kind
    figures = {"mean": moments.mean, "std": moments.std(), "min": moments.min, "max": moments.max}
    finite = {key: [v if math.isfinite(v) else None for v in values.tolist()] for key, values in figures.items()}
    return {"name": name, "channels": channels, "dtype": dtype, "files": files, "count": moments.count, **finite}


def _table(kind, moments, files):
    """One kind of arrays, a line per channel; of uint8 and uint16 in the units of `normalize_image`, too."""
    from rich.table import Table

    name, channels, dtype = kind
    title = " ".join(
        filter(None, (name, dtype, f"{channels} channel{'s' * (channels > 1)}: {files} file{'s' * (files > 1)}"))
    )
    table = Table(title=title, title_justify="left", caption_justify="left")
    columns = {"mean": moments.mean, "std": moments.std(), "min": moments.min, "max": moments.max}
    if dtype in ("uint8", "uint16"):
        most = np.iinfo(dtype).max
        columns |= {f"mean / {most}": columns["mean"] / most, f"std / {most}": columns["std"] / most}
    for header in ("channel", *columns):
        table.add_column(header, justify="right")
    for channel, row in enumerate(zip(*columns.values(), strict=True)):
        if channel == SHOWN:
            table.caption = f"and {channels - SHOWN} channels more"
            break
        table.add_row(str(channel), *(f"{value:.6g}" for value in row))
    return table


def run(options):
    """Read the files, print what they hold; returns the exit code.

    Parameters
    ----------
    options
        What `add_parser`'s parser made of the command line.
    """
    from rich.console import Console

    files = list(_files(options.paths))
    suffixes = {path.suffix.lower() for path in files}
    needed = {"PIL": suffixes - {*ARRAYS}, "safetensors": suffixes & {".safetensors"}}
    for package, of in needed.items():
        if of and importlib.util.find_spec(package) is None:
            print(f'cpunorm stats needs {package} for {min(of)}: pip install "cpunorm[stats]"', file=sys.stderr)
            return 1
    if not files:
        print(f"cpunorm stats: no images or arrays in {', '.join(map(str, options.paths))}", file=sys.stderr)
        return 1
    known, interrupted = _read(files, options.channel_axis)
    kinds, broken = _tally(files, known)
    console, errors = Console(), Console(stderr=True)
    for kind, (moments, count) in kinds.items():
        console.print(_table(kind, moments, count))
    for one in broken:
        errors.print(f"{one['path']}: {one['error']}", style="red", markup=False, highlight=False, soft_wrap=True)
    if interrupted:
        errors.print(f"interrupted after {len(known)} of {len(files)} files", style="yellow")
    if options.json is not None:
        kept = {
            "interrupted": interrupted,
            "kinds": [_figures(kind, *found) for kind, found in kinds.items()],
            "broken": broken,
        }
        options.json.write_text(json.dumps(kept, allow_nan=False, indent=1) + "\n", encoding="utf-8")
    return 130 if interrupted else int(bool(broken))
