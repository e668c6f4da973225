"""Sliding cepstral mean and variance normalisation of recorded speech: `cpunorm.standardize_sliding`.

Speech recognisers take cepstra, of which each frame is brought to mean 0 and deviation 1 of the seconds around it, so
that microphone, room and loudness, which change slowly, drop out. Here recordings are made louder and duller half-way,
as if the microphone had been changed: the cepstra of both halves differ as recorded, and agree after normalisation. A
Python loop over the frames, which is how it is often written, gives the same numbers and is timed beside it. A picture
shows the cepstra before and after.

The recordings are those of Debian's alsa-utils ("front left", "rear right", ...), or given WAV files of 16 bits.

Install::

    pip install "cpunorm[examples]"
    apt install alsa-utils          # the recordings, in /usr/share/sounds/alsa

Run; it writes ``speech_cmvn.png`` into the current directory unless told otherwise::

    python examples/speech_cmvn.py
    python examples/speech_cmvn.py --output cepstra.png RECORDING.wav ...
"""

import argparse
import time
import wave
from pathlib import Path

import numpy as np

import cpunorm

try:
    from matplotlib.figure import Figure
except ModuleNotFoundError as missing:
    raise SystemExit(f'{missing.name} is not installed; please run: pip install "cpunorm[examples]"') from None

RECORDINGS = Path("/usr/share/sounds/alsa")
FRAME, STEP = 0.025, 0.010  # seconds
BANDS, CEPSTRA = 26, 13
WINDOW = 300  # frames: 3 seconds


def load(path):
    """Samples from -1 to 1, all channels as one, and their rate.

    Raises
    ------
    SystemExit
        Not a WAV file of 16 bits.
    """
    try:
        with wave.open(str(path)) as recording:
            if recording.getsampwidth() != 2:
                raise wave.Error(f"{8 * recording.getsampwidth()} bits")
            rate, channels = recording.getframerate(), recording.getnchannels()
            samples = np.frombuffer(recording.readframes(recording.getnframes()), "<i2")
    except (OSError, EOFError, wave.Error) as error:
        raise SystemExit(f"{path} is no WAV file of 16 bits: {error}") from None
    return samples.reshape(-1, channels).mean(1) / 2**15, rate


def mel_filters(rate, size):
    """Triangles that overlap by half, evenly spaced on the mel scale: (BANDS, size // 2 + 1)."""
    ends = 2595 * np.log10(1 + np.array([60, rate / 2]) / 700)
    centres = 700 * (10 ** (np.linspace(*ends, BANDS + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    rising = (frequencies - centres[:-2, None]) / np.diff(centres)[:-1, None]
    falling = (centres[2:, None] - frequencies) / np.diff(centres)[1:, None]
    return np.maximum(0, np.minimum(rising, falling))


def cepstra_of(samples, rate):
    """Mel-frequency cepstra, (frames, CEPSTRA) of float32 (Davis and Mermelstein 1980)."""
    size, step = round(FRAME * rate), round(STEP * rate)
    emphasised = np.append(samples[0], samples[1:] - 0.97 * samples[:-1])
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, size)[::step]
    power = np.abs(np.fft.rfft(frames * np.hamming(size))) ** 2
    bands = np.log(power @ mel_filters(rate, size).T + 1e-10)
    angles = np.pi / BANDS * np.arange(CEPSTRA)[:, None] * (np.arange(BANDS) + 0.5)
    return (bands @ np.cos(angles).T * np.sqrt(2 / BANDS)).astype(np.float32)


def change_microphone(samples):
    """The second half four times as loud, and duller: each sample's mean with the three before it."""
    half = len(samples) // 2
    changed = samples.copy()
    changed[half:] = np.convolve(4 * samples, np.full(4, 0.25))[half : len(samples)]
    return changed


def with_a_loop(frames):
    """The same as `standardize_sliding`, frame by frame, in float64."""
    normalised = np.empty(frames.shape)
    for t in range(len(frames)):
        first = min(max(0, t - WINDOW // 2), max(0, len(frames) - WINDOW))
        window = frames[first : first + WINDOW].astype(np.float64)
        normalised[t] = (frames[t] - window.mean(0)) / window.std(0)
    return normalised


def seconds(function, turns):
    """The median time of a call."""
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def draw(stages, output):
    """Save a picture of the cepstra at each stage, by its name."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    figure.suptitle("Cepstra of recorded speech; the microphone changes half-way", fontsize=16)
    for axis, (title, frames) in zip(figure.subplots(len(stages), sharex=True), stages.items(), strict=True):
        most = np.quantile(np.abs(frames), 0.99)
        ends = (0, len(frames) * STEP, 0, CEPSTRA)
        shown = axis.imshow(
            frames.T, aspect="auto", origin="lower", cmap="RdBu_r", vmin=-most, vmax=most, extent=ends, rasterized=True
        )
        axis.axvline(len(frames) * STEP / 2, color="black", linestyle="--")
        axis.set(title=title, ylabel="cepstrum")
        figure.colorbar(shown, ax=axis)
    axis.set_xlabel("seconds")
    figure.savefig(output, dpi=100)


def main():
    """Load, compare both halves before and after, time, draw."""
    parser = argparse.ArgumentParser(description="Sliding normalisation of cepstra of speech.")
    parser.add_argument("recordings", nargs="*", type=Path, help=f"WAV files of 16 bits; default: {RECORDINGS}")
    parser.add_argument("--output", default="speech_cmvn.png", help="the PNG to write (default: %(default)s)")
    options = parser.parse_args()
    paths = options.recordings or sorted(p for p in RECORDINGS.glob("*.wav") if p.name != "Noise.wav")
    if not paths:
        raise SystemExit(f"no recordings in {RECORDINGS}; please run: apt install alsa-utils, or name WAV files")

    loaded = [load(path) for path in paths]
    rate = loaded[0][1]
    samples = np.concatenate([samples for samples, r in loaded if r == rate])
    print(f"{len(paths)} recordings: {len(samples) / rate:.1f} s at {rate} Hz, then once more by another microphone")
    samples = change_microphone(np.concatenate([samples, samples]))
    frames = cepstra_of(samples, rate)
    normalised = cpunorm.standardize_sliding(frames, WINDOW)
    print(f"cepstra: {frames.dtype} {frames.shape}; each frame by the {WINDOW * STEP:g} s around it\n")

    print(f"{'cepstrum':22}" + "".join(f"{c:8d}" for c in range(5)))
    for title, values in (("as recorded", frames), ("after sliding CMVN", normalised)):
        halves = np.array_split(values, 2)
        for half, name in zip(halves, ("1st half", "2nd half"), strict=True):
            m = cpunorm.moments(half, axis=0)
            print(f"{title:22}" + "".join(f"{mean:z8.2f}" for mean in m.mean[:5]) + f"   mean of the {name}")

    exact = with_a_loop(frames)
    ours, loop = (
        seconds(lambda: cpunorm.standardize_sliding(frames, WINDOW), 15),
        seconds(lambda: with_a_loop(frames), 3),
    )
    print(f"\nlargest difference from the loop in float64: {np.abs(normalised - exact).max():.1e}")
    print(f"{1e3 * ours:.2f} ms, the loop {1e3 * loop:.0f} ms: {loop / ours:.0f} times as long")
    draw({"as recorded": frames, "after sliding mean and variance normalisation": normalised}, options.output)
    print(f"\npicture: {options.output}")


if __name__ == "__main__":
    main()
