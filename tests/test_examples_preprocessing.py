"""The examples of preprocessing run as their README says, and print and draw what is true."""

import re
import wave

import numpy as np
import pytest
from test_examples import need, run


def column(printed, pattern):
    """What the one group of `pattern` finds, as numbers."""
    return [float(text) for text in re.findall(pattern, printed)]


def assert_picture(folder, name):
    pixels = pytest.importorskip("matplotlib.image").imread(folder / name)[..., :3]
    assert (pixels < 1).any(axis=-1).mean() > 0.15


@pytest.mark.slow
def test_image_batch(tmp_path):
    need("matplotlib", "sklearn", "PIL")
    printed = run("image_batch.py", tmp_path)
    photos = [pytest.importorskip("sklearn.datasets").load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    values = np.concatenate([photo.reshape(-1, 3) for photo in photos]) / 255
    shown = np.reshape(column(printed, r"(\d\.\d{4})"), (3, 2))
    np.testing.assert_allclose(shown, np.transpose([values.mean(0), values.std(0)]), rtol=0, atol=5.1e-5)
    ours, *others = column(printed, r"(\d\.\de-\d\d)")
    assert ours <= 0.5 * 2**-22  # half an ulp of results below 4
    assert all(error < 1e-5 for error in others)
    assert_picture(tmp_path, "image_batch.png")


@pytest.fixture
def recording(tmp_path):
    """Noise that comes and goes, as syllables do, 4 seconds of it."""
    rng, path = np.random.default_rng(0), tmp_path / "speech.wav"
    loudness = np.repeat(rng.uniform(0.001, 0.1, 40), 800)
    samples = (rng.standard_normal(32000) * loudness * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())
    return path


@pytest.mark.slow
def test_speech_cmvn(tmp_path, recording):
    need("matplotlib")
    printed = run("speech_cmvn.py", tmp_path, str(recording), "--output", "cepstra.png")
    (difference,) = column(printed, r"loop in float64: (\S+)")
    assert difference < 1e-5
    means = {
        title: np.array([column(row, r" (-?\d+\.\d\d)") for row in re.findall(rf"^{title} .*", printed, re.MULTILINE)])
        for title in ("as recorded", "after sliding CMVN")
    }
    before, after = (np.abs(np.diff(rows, axis=0)).max() for rows in means.values())
    assert before > 1
    assert after < 0.5
    assert_picture(tmp_path, "cepstra.png")


@pytest.mark.slow
def test_speech_cmvn_names_what_is_no_recording(tmp_path):
    need("matplotlib")
    (tmp_path / "text.wav").write_text("no recording")
    with pytest.raises(AssertionError, match=r"text\.wav is no WAV file of 16 bits"):
        run("speech_cmvn.py", tmp_path, "text.wav")


@pytest.mark.slow
def test_table_scaler(tmp_path):
    need("sklearn")
    printed = run("table_scaler.py", tmp_path)
    assert "the same predictions\n" in printed
    theirs, ours = column(printed, r"(\d+\.\d)% right")
    assert theirs == ours > 90
    (errors,) = re.findall(r"^cpunorm .* ms +(\S+) +(\S+)$", printed, re.MULTILINE)
    assert all(float(error) < 1e-15 for error in errors)  # of float64
