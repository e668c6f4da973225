"""`cpunorm stats`: figures of files against NumPy in float64; what is broken is named, the rest is counted."""

import json

import numpy as np
import pytest

from cpunorm import stats
from cpunorm.bench.__main__ import main

pytest.importorskip("rich")
Image = pytest.importorskip("PIL.Image")

PHOTOS = 30


def pixels(shape, seed, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.fixture
def folder(tmp_path):
    """Photos of several sizes, in folders of folders."""
    for i in range(PHOTOS):
        path = tmp_path / f"class{i % 3}" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels((5 + i, 7, 3), i)).save(path)
    return tmp_path


def figures(folder, *arguments, code=0):
    """The exit code is checked; what --json says."""
    out = folder / "out.json"
    assert main(["stats", *map(str, arguments or [folder]), "--json", str(out)]) == code
    return json.loads(out.read_text())


def assert_statistics(kind, values):
    """`kind` has the figures of `values`, (..., channels)."""
    x = values.reshape(-1, values.shape[-1]).astype(np.float64)
    assert kind["count"] == len(x)
    assert kind["channels"] == x.shape[1]
    for name, expected in (("mean", x.mean(0)), ("std", x.std(0)), ("min", x.min(0)), ("max", x.max(0))):
        np.testing.assert_allclose(kind[name], expected, rtol=1e-12, atol=1e-12)  # sums of float64 on NumPy's side


def photos():
    return np.concatenate([pixels((5 + i, 7, 3), i).reshape(-1, 3) for i in range(PHOTOS)])


def test_a_folder_of_photos(folder, capsys):
    found = figures(folder)
    (kind,) = found["kinds"]
    assert_statistics(kind, photos())
    assert (kind["dtype"], kind["files"], found["broken"], found["interrupted"]) == ("uint8", PHOTOS, [], False)
    printed = capsys.readouterr().out
    assert f"uint8 3 channels: {PHOTOS} files" in printed
    assert f"{kind['mean'][0]:.6g}" in printed
    assert f"{kind['std'][2] / 255:.6g}" in printed  # as normalize_image takes it


def test_threads_and_order_change_no_bit(folder):
    import cpunorm

    results = []
    for threads in (1, 2, 7):
        cpunorm.set_num_threads(threads)
        results.append(figures(folder))
        assert cpunorm.get_num_threads() == threads
    assert results[0] == results[1] == results[2]


def test_kinds_of_images(tmp_path):
    gray, deep, alpha = pixels((4, 6), 0), pixels((4, 6), 1, np.uint16), pixels((4, 6, 4), 2)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    palette = Image.fromarray(pixels((4, 6, 3), 3)).quantize(8)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(gray > 99).save(tmp_path / "bits.png")
    kinds = {(kind["channels"], kind["dtype"]): kind for kind in figures(tmp_path)["kinds"]}
    assert_statistics(kinds[1, "uint8"], np.concatenate([gray.ravel(), 255 * (gray > 99).ravel()])[:, None])
    assert_statistics(kinds[1, "uint16"], deep[..., None])
    assert_statistics(kinds[4, "uint8"], alpha)
    assert_statistics(kinds[3, "uint8"], np.asarray(palette.convert("RGB")))


def test_arrays(tmp_path):
    random = np.random.default_rng(0)
    x, y, rows = random.normal(1e3, 1, (9, 4, 5)), random.normal(size=(3, 5)), random.normal(size=11).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "several.npz", x=x, rows=rows, one=np.float64(3))
    np.savez_compressed(tmp_path / "more.npz", x=y)
    kinds = {(kind["name"], kind["channels"], kind["dtype"]): kind for kind in figures(tmp_path)["kinds"]}
    assert len(kinds) == 4
    assert_statistics(kinds["", 5, "float64"], x)
    assert_statistics(kinds["x", 5, "float64"], np.concatenate([y, x.reshape(-1, 5)]))
    assert_statistics(kinds["rows", 1, "float32"], rows[:, None])
    assert_statistics(kinds["one", 1, "float64"], np.array([[3.0]]))
    (kind,) = figures(tmp_path, tmp_path / "x.npy", "--channel-axis", "1")["kinds"]
    assert_statistics(kind, np.moveaxis(x, 1, -1))


def test_safetensors(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    numpy.save_file({"x": x, "half": x.astype(np.float16)}, tmp_path / "t.safetensors")
    kinds = {kind["name"]: kind for kind in figures(tmp_path)["kinds"]}
    assert_statistics(kinds["x"], x)
    assert_statistics(kinds["half"], x.astype(np.float16))


def test_not_finite(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.array([[1, np.nan], [2, np.inf]]))
    (kind,) = figures(tmp_path)["kinds"]
    assert kind["mean"] == [1.5, None]
    assert "nan" in capsys.readouterr().out


def test_many_channels_are_cut_in_the_table_alone(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(3, 100))
    np.save(tmp_path / "x.npy", x)
    (kind,) = figures(tmp_path)["kinds"]
    assert_statistics(kind, x)
    assert "and 76 channels more" in capsys.readouterr().out


class Pickled:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


def test_broken_files_are_named_and_the_rest_is_counted(folder, capsys):
    whole = (folder / "class0" / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.tif").write_text("no image")
    np.save(folder / "huge.npy", np.zeros(3))
    huge = (folder / "huge.npy").read_bytes()
    (folder / "huge.npy").write_bytes(huge.replace(b"(3,)", b"(3000000000000,)").replace(b" " * 12, b"", 1))
    np.save(folder / "code.npy", np.array([Pickled()], dtype=object), allow_pickle=True)
    np.save(folder / "words.npy", np.array(["a", "b"]))
    np.save(folder / "nothing.npy", np.empty((0, 3)))
    (folder / "cut.npz").write_bytes(b"PK\x03\x04")
    (folder / "notes.txt").write_text("left out: no data")
    found = figures(folder, folder, folder / "missing.png", code=1)
    names = ["code.npy", "cut.npz", "cut.png", "empty.jpg", "huge.npy", "nothing.npy", "text.tif", "words.npy"]
    assert [one["path"] for one in found["broken"]] == [str(folder / name) for name in [*names, "missing.png"]]
    (kind,) = found["kinds"]
    assert_statistics(kind, photos())
    errors = capsys.readouterr().err
    assert all(one["path"] in errors and one["error"] in errors for one in found["broken"])


def test_an_axis_that_an_array_lacks(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    found = figures(tmp_path, tmp_path / "x.npy", "--channel-axis", "2", code=1)
    assert "axis 2" in found["broken"][0]["error"]
    assert found["kinds"] == []


def test_interrupted(folder, monkeypatch, capsys):
    """What is known is printed; nothing more is read."""
    as_completed, read = stats.as_completed, []

    def interrupted(places):
        for count, done in enumerate(as_completed(places)):
            if count == 4:
                raise KeyboardInterrupt
            yield done

    moments = stats._moments
    monkeypatch.setattr(stats, "as_completed", interrupted)
    monkeypatch.setattr(stats, "_moments", lambda *a: read.append(a) or moments(*a))
    found = figures(folder, code=130)
    assert found["interrupted"]
    assert found["kinds"][0]["files"] == 4
    assert len(read) <= PHOTOS
    assert f"interrupted after 4 of {PHOTOS} files" in capsys.readouterr().err


def test_nothing_to_read(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("")
    assert main(["stats", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(("package", "file"), [("PIL", "a.png"), ("safetensors", "a.safetensors"), ("rich", "a.npy")])
def test_a_missing_package_is_named_with_its_remedy(package, file, tmp_path, monkeypatch, capsys):
    find_spec = stats.importlib.util.find_spec
    monkeypatch.setattr(stats.importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))
    assert main(["stats", str(tmp_path / file)]) == 1
    assert f"needs {package}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["x.npy", "--json", "no/such/folder/out.json"], ["x.npy", "--channel-axis", "x"]]
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["stats", *arguments])
    assert caught.value.code == 2
    assert "usage: cpunorm stats" in capsys.readouterr().err
