"""Heat maps of a small model trained from scratch: what the notebook proves on fresh weights, on learnt ones."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vbg.core.profiles import profile as read_profile
from vbg.data.store import ExampleData
from vbg.explain.heat_scores import cascade_stages, nearest, patch_curves, patch_order
from vbg.explain.heatmaps import MAPS, HeatmapError, grad_cam, heat_maps, patch_centres, upsample
from vbg.explain.restore import batch_of
from vbg.models.batches import withhold
from vbg.models.vbg import build_model

OPTIONS = {"with [CLS]": {}, "without [CLS]": {"cls": False}, "linear patches": {"stem": "linear"}}


def spots(n=120, seed=0):
    "Grey noise with a square of 8 pixels, red in class 0, blue in class 1; texts of noise; masks of the square."
    g = np.random.default_rng(seed)
    label, corners = np.arange(n) % 2, g.integers(4, 52, (n, 2))
    pixels, masks = g.integers(90, 160, (n, 64, 64, 3)).astype(np.uint8), np.zeros((n, 64, 64), bool)
    for i, (y, x) in enumerate(corners):
        masks[i, y : y + 8, x : x + 8] = True
        pixels[i][masks[i]] = [(230, 60, 60), (60, 60, 230)][label[i]]
    keep = np.arange(6) < g.integers(3, 7, n)[:, None]
    return ExampleData(
        pixels=pixels,
        label=label,
        ids=np.array([f"spot-{i}" for i in range(n)]),
        texts=[["noise"]] * n,
        split=np.array(["test"] * n),
        class_names=["red", "blue"],
        input_ids=g.integers(5, 50, (n, 1, 6)),
        attention_mask=keep[:, None].astype(int),
    ), masks


@pytest.fixture(scope="module", params=OPTIONS, ids=list(OPTIONS))
def trained(request):
    "A model that has learnt the colour of the square, with the data."
    torch.set_num_threads(1)
    data, masks = spots()
    model = build_model(
        read_profile("smoke", {"vision": {"num_layers": 2} | OPTIONS[request.param]}),
        num_classes=2,
        vocab_size=50,
        seed=0,
    ).train()
    optimiser, g = torch.optim.AdamW(model.parameters(), lr=2e-3), torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(60):
            items = torch.randperm(len(data), generator=g)[:40].numpy()
            loss = F.cross_entropy(model(**batch_of(data, items)).logits, torch.as_tensor(data.label[items]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval()
    with torch.no_grad():
        right = (model(**batch_of(data)).logits.argmax(1).numpy() == data.label).mean()
    assert right > 0.9, "the toy was not learnt: nothing below would mean anything"
    return model, data, masks


@pytest.mark.parametrize("method", MAPS)
def test_maps_are_the_same_twice_and_in_any_batch(trained, method):
    model, data, _ = trained
    first = heat_maps(model, data, method, constant="keep")
    assert first.shape == (len(data), 8, 8) and np.isfinite(first).all()
    assert np.array_equal(first, heat_maps(model, data, method, constant="keep"))
    some = [7, 3, 90]
    assert np.abs(first[some] - heat_maps(model, data, method, some, constant="keep", batch_size=2)).max() < 1e-3


def test_grad_cam_depends_on_text_and_class(trained):
    model, data, _ = trained
    batch, classes = batch_of(data, np.arange(20)), data.label[:20]
    maps = grad_cam(model, batch, classes)
    silent = withhold(batch, torch.zeros(20, dtype=torch.bool), torch.ones(20, dtype=torch.bool))
    assert np.abs(maps - grad_cam(model, silent, classes)).max() > 1e-3
    assert np.abs(maps - grad_cam(model, batch, 1 - classes)).max() > 0.1


def test_the_square_decides_and_the_curve_shows_it(trained):
    model, data, masks = trained
    items, near = np.arange(40), nearest(patch_centres(model.vision, 64, 8), 64)
    truth = np.stack(
        [[[masks[i][np.ix_(near == r, near == c)].sum() for c in range(8)] for r in range(8)] for i in items]
    ).astype(float)  # pixels of the square in each patch
    found, last = (
        patch_curves(model, data, items, patch_order(sign * truth), data.label[items], steps=16) for sign in (1, -1)
    )
    assert found["deletion"][:, 1].mean() < last["deletion"][:, 1].mean() - 0.1, "its patches taken first"
    assert found["insertion"][:, 1].mean() > last["insertion"][:, 1].mean() + 0.1


def test_constant_map_is_refused_by_name_or_kept_and_counted(trained):
    model, data, _ = trained
    weights = {name: value.clone() for name, value in model.head.state_dict().items()}
    try:
        torch.nn.init.zeros_(model.head[-1].weight)
        with pytest.raises(HeatmapError, match=r"item spot-4: the map of grad_cam is the same everywhere \(0\)"):
            heat_maps(model, data, "grad_cam", [4, 5])
        kept = heat_maps(model, data, "grad_cam", [4, 5], constant="keep")
    finally:
        model.head.load_state_dict(weights)
    with pytest.raises(HeatmapError, match="item spot-4: the map of grad_cam"):
        upsample(kept, 64, method="grad_cam", names=data.ids[[4, 5]])
    assert (upsample(kept, 64, constant="keep") == 1).all()


def test_the_cascade_reaches_every_weight(trained):
    model = trained[0]
    stages = cascade_stages(model)
    assert list(stages) == ["head", "fusion", "image block 2", "image block 1", "all"] and stages["all"] == [""]
    named = [
        p
        for stage, parts in stages.items()
        if stage != "all"
        for part in parts
        for p in model.get_submodule(part).parameters()
    ]
    assert len({id(p) for p in named}) == len(named), "no weight belongs to two parts"
