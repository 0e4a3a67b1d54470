"""What the page "See a supermask" carries, and the picture that stands there without scripts.

The page runs a LeNet-300-100 in the reader's browser: a script makes θ0 from the seed and decodes
the masks of committed runs. No TensorFlow. ::

    found = see.networks("../runs", "see")
    see.fragment(found, "see")           # the page's part of HTML: style, data, script, picture
"""

import base64
import hashlib
import io
import tempfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from .. import _container, initializers, packing, tickets
from ..records import Run, load_runs
from .plots import ARM_COLOURS

__all__ = [
    "Network", "SEED", "classes", "digits", "fragment", "masks", "networks", "right", "still",
    "supermask", "switches", "trained",
]  # fmt: skip

# All masks of the page lie over the θ0 of this seed.
SEED = 0
# Densities of the ranked masks and of the tickets that travel in the page: more would not fit it.
RANKED, TICKETS = (0.05, 0.2, 0.5), (0.05, 0.2)
SHAPES = {"dense1/kernel": (784, 300), "dense2/kernel": (300, 100), "dense3/kernel": (100, 10)}


@dataclass(frozen=True)
class Network:
    """A packed file of the page.

    Attributes:
        switch: "mask", or "ticket", which may have trained weights.
        run: the record whose mask it is.
        data: the file.
    """

    switch: str
    run: Run
    data: bytes

    @property
    def density(self) -> float:
        """The fraction of the weights that the mask keeps, in hundredths."""
        return round(1 - self.run.summary["masked"], 2)

    @cached_property
    def contents(self) -> packing.Contents:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.supermask"
            path.write_bytes(self.data)
            return packing.read(path)


# --- which runs -----------------------------------------------------------------------------------


def supermask(runs: str | Path) -> Run:
    """The page's supermask: of study `lenet`, the run of SEED that was best on held-out images."""
    found = load_runs(Path(runs) / "lenet").where(arm="mask", seed=SEED)
    return max(found, key=lambda run: run.summary["val_accuracy"])


def _ranked(runs: Path, density: float) -> Run:
    """The supermask of `top_k` that keeps this fraction."""
    found = load_runs(runs / "tickets_lenet")
    return _only(found.where(arm="mask", estimator="top_k", seed=SEED, density=density))


def _ticket(runs: Path, density: float) -> Run:
    """The lottery ticket by the weights' final magnitude, in one shot, layer by layer."""
    found = load_runs(runs / "tickets_lenet").where(
        arm="ticket", criterion="large_final", scope="layer", rewind_epochs=0,
        seed=SEED, density=density,
    )  # fmt: skip
    return _only([run for run in found if run.parameters["parent"]["arm"] == "weights"])


def _only(found) -> Run:
    if len(found) != 1:
        raise ValueError(f"{len(found)} runs fit where the page needs one: look at runs/.")
    return found[0]


def trained(runs: str | Path) -> Run:
    """The record of the ticket whose trained weights lie beside the page."""
    return _ticket(Path(runs), TICKETS[0])


def masks(run: Run) -> dict[str, np.ndarray]:
    """The masks of a record's kernels, by path."""
    return run.masks(SHAPES)


def networks(runs: str | Path, assets: str | Path) -> list[Network]:
    """The page's packed files, by switch and rising density.

    Args:
        runs: the folder of the records.
        assets: the page's folder, which holds `ticket.supermask`.

    Raises:
        ValueError: if the stored ticket is not that of the record.
    """
    runs = Path(runs)
    learned = [*(_ranked(runs, density) for density in RANKED), supermask(runs)]
    learned.sort(key=lambda run: 1 - run.summary["masked"])
    found = [Network("mask", run, _packed(run)) for run in learned]
    stored = Network("ticket", trained(runs), (Path(assets) / "ticket.supermask").read_bytes())
    held = stored.contents.masks
    if any((held[path] != mask).any() for path, mask in masks(stored.run).items()):
        raise ValueError(f"ticket.supermask is not of {stored.run.name}: run book/see/make.py.")
    # Untrained, a ticket is its mask over θ0, as a supermask is: so it's packed without weights.
    others = [_ticket(runs, density) for density in TICKETS[1:]]
    return [*found, stored, *(Network("ticket", run, _packed(run)) for run in others)]


def _packed(run: Run) -> bytes:
    """A record's masks over θ0 as a packed file, as `packing.save` writes an untrained network."""
    seed, initializer = run.parameters["seed"], run.parameters["initializer"]
    bits: dict[str, np.ndarray] = {}
    entries: list[dict] = []
    theta0 = hashlib.sha256()
    for path, mask in masks(run).items():
        bias = path.replace("kernel", "bias")
        bits |= {path: mask, bias: np.ones(mask.shape[1], bool)}
        counts = [mask.size - np.count_nonzero(mask), np.count_nonzero(mask)]
        entries.append({
            "path": path, "shape": list(mask.shape), "start": [initializer, seed],
            "values": [0, 1], "frequencies": _container.frequencies([int(n) for n in counts]),
        })  # fmt: skip
        entries.append({
            "path": bias, "shape": [mask.shape[1]], "start": None,
            "values": [1], "frequencies": _container.frequencies([mask.shape[1]]),
        })  # fmt: skip
        start = initializers.get(initializer)(seed, path, mask.shape)
        theta0.update(_container.as_bytes(start))
    header = {
        "network": {
            "builder": "lenet_300_100",
            "arguments": {"input_shape": [28, 28, 1], "classes": 10},
            "precision": "float32",
            "masking": {
                "estimator": {"name": "threshold", "tau": 0.5}, "rescale": None, "seed": seed,
                "draw_at_evaluation": False, "kernel_initializer": initializer,
            },
        },
        "phase": "mask",
        "theta0": theta0.hexdigest(),
        "weights": entries,
        "arrays": [],
        "about": {"run": run.name, "study": run.study},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.supermask"
        _container.write(file, header, bits, [])
        return file.read_bytes()


# --- the digits, and what a network makes of them -------------------------------------------------


def digits(assets: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """The page's hundred digits: uint8 (100, 28, 28), ten of each class, and their classes."""
    sheet = np.asarray(Image.open(Path(assets) / "digits.png"))
    images = sheet.reshape(10, 28, 10, 28).swapaxes(1, 2).reshape(100, 28, 28)
    return images, np.repeat(np.arange(10), 10)


def classes(weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """The class that a LeNet-300-100 of these weights, M ⊙ θ by path, gives each image of uint8."""
    x = images.reshape(len(images), -1) * np.float32(2 / 255) - np.float32(1)
    for layer in ("dense1", "dense2", "dense3"):
        kernel = weights[f"{layer}/kernel"]
        x = x @ kernel + weights.get(f"{layer}/bias", np.zeros(kernel.shape[1], np.float32))
        x = x if layer == "dense3" else np.maximum(x, 0)
    return x.argmax(axis=1)


def switches(found: list[Network]) -> dict[tuple[str, float], dict[str, np.ndarray]]:
    """The weights M ⊙ θ, by path, of each switch of the page at each fraction kept.

    The switches are "mask", "random", "shuffled", "off" (nothing is masked), "ticket" (its mask
    over θ0) and "trained" (its trained weights). Random and shuffled masks are those of
    `tickets.control` under SEED, with the densities of the supermasks.
    """
    theta0 = {path: initializers.glorot_uniform(SEED, path, s) for path, s in SHAPES.items()}
    made = {("off", 1.0): theta0}
    for network in found:
        contents, density = network.contents, network.density
        bits = {path: contents.masks[path].astype(bool) for path in SHAPES}
        made[network.switch, density] = {path: m * theta0[path] for path, m in bits.items()}
        if contents.header["arrays"]:
            made["trained", density] = contents.weights
        if network.switch == "mask":
            for kind in ("random", "shuffled"):
                drawn = {p: tickets.control(m, kind, SEED, p) for p, m in bits.items()}
                made[kind, density] = {path: m * theta0[path] for path, m in drawn.items()}
    return made


def right(found: list[Network], assets: str | Path) -> dict[tuple[str, float], int]:
    """How many of the hundred digits each network of the page reads, as in `switches`."""
    images, labels = digits(assets)
    return {
        at: int((classes(weights, images) == labels).sum())
        for at, weights in switches(found).items()
    }


# --- the page -------------------------------------------------------------------------------------


def fragment(found: list[Network], assets: str | Path) -> str:
    """The page's part of HTML, whole: style, data, script, and a still picture for where none runs.

    Args:
        found: what `networks` gives.
        assets: the page's folder: see.html, see.css, see.js and digits.png.
    """
    assets = Path(assets)
    images, labels = digits(assets)
    sprite = zlib.compress(labels.astype(np.uint8).tobytes() + images.tobytes(), 9)
    carried = [_carried('id="see-sprite"', sprite)]
    for network in found:
        trained = " data-trained" if network.contents.header["arrays"] else ""
        about = f'data-see="{network.switch}" data-density="{network.density}"{trained}'
        carried.append(_carried(about, network.data))
    parts = [
        f"<style>\n{(assets / 'see.css').read_text()}</style>",
        (assets / "see.html").read_text(),
        f'<noscript id="see-still">{_picture(found, assets)}</noscript>',
        *carried,
        f"<script>\n{(assets / 'see.js').read_text()}</script>",
    ]
    return "\n".join(parts)


def _carried(attributes: str, data: bytes) -> str:
    text = base64.b64encode(data).decode()
    return f'<script type="application/octet-stream" {attributes}>{text}</script>'


def _picture(found: list[Network], assets: Path) -> str:
    """The still picture as an element, in few colours, since the page is to stay small."""
    counts, large, small = right(found, assets), io.BytesIO(), io.BytesIO()
    figure = still(found, assets)
    figure.savefig(large, dpi=100, facecolor="white")
    plt.close(figure)
    few = Image.open(large).convert("RGB").quantize(16, dither=Image.Dither.NONE)
    few.save(small, "png", optimize=True)
    text = (
        "A digit; the masks of fifteen units of the first layer; and bars. Of a hundred digits the "
        f"supermask reads {counts['mask', _shown(found).density]}, and the network without a mask "
        f"{counts['off', 1.0]}. With scripts, this page lets you try it."
    )
    source = base64.b64encode(small.getvalue()).decode()
    return f'<img class="see-still" src="data:image/png;base64,{source}" alt="{text}">'


def _shown(found: list[Network]) -> Network:
    """The supermask that the page shows at first, that of `supermask`: it keeps the most."""
    return max((each for each in found if each.switch == "mask"), key=lambda each: each.density)


def still(found: list[Network], assets: str | Path, stacked: bool = False) -> Figure:
    """What the page shows at first, as a figure: a digit, some units' masks, what each reads.

    Args:
        found, assets: as in `fragment`.
        stacked: whether the bars stand below, so that the figure can be read on a phone.
    """
    counts, (images, _) = right(found, assets), digits(assets)
    kept = _shown(found).density
    bits = masks(_shown(found).run)["dense1/kernel"].T.reshape(-1, 28, 28)
    tiles = np.full((3 * 30, 5 * 30), 0.5)
    for k in range(15):
        row, column = 30 * (k // 5), 30 * (k % 5)
        tiles[row + 1 : row + 29, column + 1 : column + 29] = ~bits[k]
    figure, axes = plt.subplot_mosaic(
        "du;bb" if stacked else "dub",
        figsize=(6.4, 5.2) if stacked else (9.4, 3.1),
        width_ratios=(1, 1.75) if stacked else (1, 1.75, 1.9),
        layout="constrained",
    )
    digit, units, bars = axes["d"], axes["u"], axes["b"]
    digit.imshow(images[70], cmap="gray_r", interpolation="nearest")
    digit.set_title("A digit", loc="left", fontsize=10)
    units.imshow(tiles, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    units.set_title("15 units’ masks: kept (black), off (white)", loc="left", fontsize=10)
    for axis in (digit, units):
        axis.set_xticks([])
        axis.set_yticks([])
    names = {
        ("mask", kept): "supermask", ("off", 1.0): "no mask", ("random", kept): "random mask",
        ("shuffled", kept): "shuffled mask", ("ticket", TICKETS[0]): "lottery ticket’s mask",
        ("trained", TICKETS[0]): "ticket, trained",
    }  # fmt: skip
    colours = {"mask": ARM_COLOURS["mask"], "trained": ARM_COLOURS["weights"]}
    drawn = bars.barh(
        list(names.values()),
        [counts[at] for at in names],
        color=[colours.get(switch, ARM_COLOURS["random_mask"]) for switch, _ in names],
    )
    bars.bar_label(drawn, padding=3)
    bars.invert_yaxis()
    bars.set_xlim(0, 112)
    bars.set_xlabel("of the hundred digits read rightly")
    bars.spines[["top", "right"]].set_visible(False)
    plt.close(figure)  # a notebook shows what a cell returns: once
    return figure
