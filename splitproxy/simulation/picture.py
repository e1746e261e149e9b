"""A picture of what simulated rollouts came to. Needs matplotlib."""

from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np

from splitproxy.simulation.playing import Played
from splitproxy.simulation.traffic import Floats

_INK: Final = ("#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
"""Colours that colour-blind people can tell apart (Okabe and Ito)."""
_MOST_POINTS: Final = 200
"""Of a curve."""
_SOON: Final = 0.05
_LAST: Final = 0.95


def draw(file: Path, title: str, played: Played, names: tuple[str, ...], onset: int, seconds: int) -> None:
    """Write a picture, PNG or SVG by the file's name. Raises OSError, or ValueError: the kind is not known."""
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "splitproxy"  # the same rollouts give the same file
    from matplotlib import pyplot as plt

    sides = [("splitproxy", played.rolled_back, played.bad)]
    sides += [(name, at, bad) for name, (at, bad) in zip(names, played.rivals, strict=True)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for number, (name, at, bad) in enumerate(sides):
        ink, width = _INK[number % len(_INK)], 2.6 if number == 0 else 1.5
        times = _curve(at - onset)
        shares = np.arange(1, len(times) + 1) / len(at) * 100
        some = np.unique(np.linspace(0, len(times) - 1, _MOST_POINTS).astype(int)) if len(times) else slice(0)
        times, shares = times[some], shares[some]
        if len(times):
            edges = np.concatenate(([_SOON], times, [seconds])), np.concatenate(([0.0], shares, shares[-1:]))
            left.step(*edges, where="post", color=ink, linewidth=width, label=name)
            middle, high = (float(np.quantile(bad[np.isfinite(bad)], part)) for part in (0.5, _LAST))
            right.plot([max(middle, 0.5), max(high, 0.5)], [name, name], color=ink, linewidth=width)
            right.plot([max(middle, 0.5)], [name], "o", color=ink)
            right.annotate(f" {middle:,.0f}", (max(high, 0.5), name), va="center", fontsize=9)
        else:
            left.plot([_SOON, seconds], [0.0, 0.0], color=ink, linewidth=width, label=f"{name} (never)")
            right.plot([0.5], [name], alpha=0.0)
            right.annotate("never", (0.5, name), va="center", fontsize=9, color="#555555")
    left.set(xscale="log", xlim=(_SOON, seconds), ylim=(-3, 103))
    left.set(xlabel="seconds, from the onset on where there is one", ylabel="rollouts rolled back, %")
    left.legend(fontsize=8, frameon=False)
    right.set(xscale="log", xlabel="the canary's failed requests until then: median, 95th percentile")
    right.invert_yaxis()
    for side in (left, right):
        side.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(file, dpi=130, metadata={"Date": None} if file.suffix == ".svg" else None)
    plt.close(figure)


def _curve(times: Floats) -> Floats:
    found: Floats = np.sort(times[np.isfinite(times)])
    return np.maximum(found, _SOON)
