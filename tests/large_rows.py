"""Peak memory of the work on a large data set: `python tests/large_rows.py ITEMS FILE` prints it as JSON, in MB.

The pixels (224 a side) are mapped from FILE, which is written first: 150 kB an item. Counted is what the process has
allocated itself (RssAnon of Linux); pages of the file that happen to be in memory can be dropped by the machine at any
time, and are counted apart, with all else (`resident`)."""

import json
import resource
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

from vbg.core.profiles import profile
from vbg.data import store
from vbg.data.balance import oversample
from vbg.data.store import ExampleData, join_examples
from vbg.gan.attributes import learn_table
from vbg.gan.quality import nearest
from vbg.gan.texture import to_images
from vbg.gan.training import GanTrainer, train_step
from vbg.models.batches import Batches

SIDE, BATCH, READ, KEPT = 224, 64, 50, 500
COLOURS = ("red", "blue", "green", "black")


class Peak:
    "The greatest memory of its own that the process has within the block, in MB, looked at every 5 ms."

    def __enter__(self):
        self.most, self.over = 0, False
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self):
        while not self.over:
            line = next(k for k in Path("/proc/self/status").read_text().splitlines() if k.startswith("RssAnon"))
            self.most = max(self.most, int(line.split()[1]) / 1000)
            time.sleep(0.005)

    def __exit__(self, *_):
        self.over = True
        self.thread.join()


def mapped(file, items):
    "Pixels on disk, written block by block: noise of few values on a coloured ground."
    rng = np.random.default_rng(0)
    pixels = np.memmap(file, np.uint8, "w+", shape=(items, SIDE, SIDE, 3))
    for k in range(0, items, 500):
        part = rng.integers(0, 60, (1, 1, SIDE, SIDE, 3), dtype=np.uint8) + rng.integers(
            0, 190, (min(500, items - k), 1, 1, 3), dtype=np.uint8
        )
        pixels[k : k + 500] = part[0]
    pixels.flush()
    del pixels
    return np.memmap(file, np.uint8, "r", shape=(items, SIDE, SIDE, 3))


def a_set(pixels, origin="real"):
    "A tokenised training split."
    items = len(pixels)
    texts = [[f"a {COLOURS[k % 4]} vase", f"vase, {COLOURS[k % 4]}"] for k in range(items)]
    words = np.tile(np.arange(1, 9), (items, 2, 1))
    return ExampleData(
        pixels=pixels,
        label=np.minimum(np.arange(items) % 8, 3),
        ids=np.array([f"{origin}{k}" for k in range(items)], object),
        texts=texts,
        text=np.array([t[0] for t in texts], object),
        split=np.array(["train"] * items, object),
        origin=np.array([origin] * items, object),
        attributes=np.array(["{}"] * items, object),
        class_names=list("abcd"),
        input_ids=words,
        attention_mask=np.ones_like(words),
    )


def loop_rounds(train, kept):
    "Two rounds join their pairs to the items, of which the scarce ones are repeated; the classifier reads batches."
    repeated, joined = oversample(train, np.bincount(train.label) + len(train) // 8, seed=0), None
    batches = Batches(data=repeated, train=True, flip=0.5, shift=2)
    for _ in range(2):
        joined = kept if joined is None else join_examples(joined, kept)
        batches.hold(join_examples(repeated, joined))
    for items in torch.randperm(len(batches)).split(BATCH)[:READ]:
        batches.__getitems__(items)


def gan_epoch(train):
    "A GAN begins; one step, and the real images of further ones."
    settings = dict(profile("smoke").gan, batch_size=8, channels=2, discriminator_channels=2)
    table = learn_table(train, minimum=settings["minimum"], limit=settings["words"])
    gan = GanTrainer(train=train, table=table, settings=settings, seed=0)
    train_step(gan, torch.arange(8))
    for items in torch.randperm(len(train)).split(BATCH)[:READ]:
        to_images(gan.pixels[items.numpy()])


def measured(items, file):
    "MB of each piece of work."
    store.IN_MEMORY = 10**8  # views from 700 items on
    try:
        train, found = a_set(mapped(file, items)), {}
        kept = a_set(np.array(train.pixels[:KEPT]), "generated")
        work = {
            "choice": lambda: train.take(train.label >= 0),
            "loop": lambda: loop_rounds(train, kept),
            "gan": lambda: gan_epoch(train),
            "nearest": lambda: nearest(kept.pixels[:64], train.pixels),
        }
        for name, does in work.items():
            with Peak() as peak:
                does()
            found[name] = round(peak.most)
        return found | dict(resident=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000))
    finally:
        Path(file).unlink(missing_ok=True)


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]), sys.argv[2])))
