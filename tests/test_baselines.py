"""Models beside VBG in Table 3: sizes, what they read, and what their runs hold."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vbg.core.profiles import BASELINE_MODELS, TABLE3_MODELS, profile
from vbg.models.baselines import FITTED, restore
from vbg.models.networks import NETWORKS, TORCHVISION, build_network, image_body
from vbg.train.pretrain import NETWORKS as PRETRAINED
from vbg.train.pretrain import fresh_network

FULL = profile("paper").baselines | dict(pretrained=False)


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_every_row_of_table_3_can_be_built():
    assert {*TABLE3_MODELS} == {*NETWORKS, *FITTED, "vbg"}
    assert {name for name, b in BASELINE_MODELS.items() if b.network} == {*NETWORKS}


@pytest.mark.parametrize(
    "name, width", [("densenet", 1024), ("inception", 2048), ("swin", 768), ("resnet", 2048), ("squeezenet", 512)]
)
def test_at_full_width_a_network_is_torchvisions(name, width):
    from torchvision import models

    own = models.get_model(
        TORCHVISION[name], weights=None, num_classes=10, **({"init_weights": False} if name == "inception" else {})
    )
    if name == "inception":
        own.AuxLogits = None  # does not fit images below 299 pixels, and is left out
    assert count(image_body(name, FULL)) + width * 10 + 10 == count(own)


def test_image_networks_of_the_study_do_the_multiplications_of_its_vit():
    settings, done = profile("mini", {"pretraining": dict(classes=10)}), {}
    for name in PRETRAINED:
        network = fresh_network(settings, name).eval()
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            network(pixel_values=torch.zeros(1, 3, 64, 64), return_maps=False)
        done[name] = counted.get_total_flops()
    vit = done.pop("vit")
    assert {*done} == {*TORCHVISION}
    assert all(0.75 < flop / vit < 1.25 for flop in done.values()), {name: flop / vit for name, flop in done.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_reads_what_its_row_says(name):
    settings = profile("smoke")
    network = build_network(settings, name=name, num_classes=5, vocab_size=40, seed=1).eval()
    pixels, ids, keep = torch.randn(2, 3, 64, 64), torch.randint(5, 40, (2, 8)), torch.ones(2, 8, dtype=torch.long)
    logits = network(pixels, ids, keep).logits
    sees_image = not torch.allclose(network(pixels + 1, ids, keep).logits, logits, atol=1e-6)
    sees_text = not torch.allclose(network(pixels, ids.flip(1) % 7 + 5, keep).logits, logits, atol=1e-6)
    assert (sees_image, sees_text) == (BASELINE_MODELS[name].image, BASELINE_MODELS[name].text)
    assert network.head_penalty() > 0


def test_a_full_width_is_asked_for_where_weights_are_read():
    with pytest.raises(ValueError, match="ImageNet weights are of the full width: set baselines.width of resnet to 1"):
        image_body("resnet", profile("mini").baselines | dict(pretrained=True))
    assert set(profile("paper").baselines["width"].values()) == {1} and profile("paper").baselines["pretrained"]


def test_fitted_models_of_a_run_predict_again_from_their_tensors(smoke_home, monkeypatch):
    from vbg.data.sets import study_data
    from vbg.models.batches import predict, tokenise_sets
    from vbg.runs.store import load_runs

    monkeypatch.setenv("VBG_HOME", str(smoke_home))
    sets = study_data("smoke", "met")
    tokenise_sets(sets, profile("smoke"))
    for name in FITTED:
        (run,) = load_runs("smoke", ["met"], [name], [0])
        assert np.array_equal(
            predict(restore(name, run.weights()), sets["natural"].select("test")), run.select("test")[2]
        ), name
