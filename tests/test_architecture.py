"""Fig. 1-4 show the model that they are given: its text changes with the model, and its counts are the model's."""

import re

import matplotlib
import pytest
import torch
from torch import nn

from vbg.core.profiles import FUSION_ABLATIONS, VARIANTS, profile
from vbg.explain import architecture as A
from vbg.explain.trace import counted, example_inputs, merge_repeats, not_met, trace
from vbg.gan.networks import ImageDiscriminator, ImageGenerator
from vbg.gan.text import TextGenerator
from vbg.models.fusion_zoo import FUSIONS
from vbg.models.vbg import build_model

matplotlib.use("Agg")


def model(variant="vbg", **sections):
    settings = profile("smoke", {"vision": dict(num_layers=2), "text": dict(num_layers=2)} | sections)
    return build_model(settings, variant, num_classes=7, vocab_size=60, seed=0), settings


def inputs(network, length=9):
    return example_inputs(network, 64, length)


def weights(network):
    return sum(p.numel() for p in network.parameters())


def counts_in(text):
    "The parameters that boxes show: lines 'n parameters', 'k × n parameters' and, in narrow boxes, 'n'."
    return sum(
        int(many or 1) * int(n.replace(",", ""))
        for many, n, _ in re.findall(r"^(?:(\d+) × )?([\d,]+)( parameters)?$", text, re.M)
    )


CHANGES = {
    "wider": dict(
        vision=dict(num_layers=2, hidden_size=48, num_heads=2), text=dict(num_layers=2, hidden_size=48, num_heads=2)
    ),
    "deeper image": dict(vision=dict(num_layers=3)),
    "deeper text": dict(text=dict(num_layers=4)),
    "no [CLS]": dict(vision=dict(num_layers=2, cls=False)),
    "linear stem": dict(vision=dict(num_layers=2, stem="linear")),
    "fusion": dict(fusion=dict(kind="gated")),
    "gate": dict(fusion=dict(kind="fixed_gate")),
    "auxiliary": dict(model=dict(auxiliary_weight=0.0)),
    "head": dict(model=dict(head_l2=0.01)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_figure_1_changes_with_the_model(change):
    base, settings = model()
    other, _ = model(**CHANGES[change])
    texts = [A.figure_text(A.draw(A.vbg_diagram(m, inputs(m), settings))) for m in (base, other)]
    assert texts[0] != texts[1]
    again, _ = model()
    assert A.figure_text(A.draw(A.vbg_diagram(again, inputs(again), settings))) == texts[0]


def test_every_row_of_table_4_and_every_fusion_has_a_figure_of_its_own_that_counts_all_of_it():
    networks = {variant: model(variant)[0] for variant in VARIANTS}
    networks |= {
        kind: model(fusion=dict(kind=kind))[0] for kind in [*FUSIONS, *(k for _, k in FUSION_ABLATIONS.values())]
    }
    texts = {}
    for name, network in networks.items():
        diagram = A.vbg_diagram(network, inputs(network))
        figure = A.draw(diagram)
        texts[name] = A.figure_text(figure)
        assert counts_in(texts[name]) == weights(network), name
        assert f"all boxes: {weights(network):,} parameters, the whole model" in texts[name]
        assert not A.overflows(figure), name
    kinds = {n: t for n, t in texts.items() if n in FUSIONS and n != "bidirectional"}
    assert len(set(kinds.values())) == len(kinds) and texts["bidirectional"] == texts["vbg"]
    assert len({texts[v] for v in VARIANTS}) == len(VARIANTS)


def test_a_part_that_a_variant_lacks_is_not_drawn():
    words = {v: A.figure_text(A.draw(A.vbg_diagram(m, inputs(m)))) for v in VARIANTS for m in [model(v)[0]]}
    for variant, about in VARIANTS.items():
        text = words[variant]
        assert ("ViT layer" in text) == about.image and ("BERT layer" in text) == about.text
        assert ("training set" in text) == about.gan and ("image reads text" in text) == (about.image and about.text)
        assert ("head on the image alone" in text) == (about.image and about.text)


def test_a_box_that_is_taken_out_is_missed():
    network, _ = model()
    diagram = A.vbg_diagram(network, inputs(network))
    taken = next(b for b in diagram.boxes if b.name == "ViT layer")
    diagram.boxes.remove(taken)
    assert diagram.rest() == 2 * taken.parameters and f"in no box: {diagram.rest():,}" in A.figure_text(A.draw(diagram))
    with pytest.raises(ValueError, match="in no box"):
        A.parts_table(diagram)


@pytest.mark.parametrize("make, part, section", [(A.vit_diagram, "vision", "vision"), (A.bert_diagram, "text", "text")])
def test_figures_2_and_3_count_one_encoder_and_change_with_it(make, part, section):
    texts = set()
    for change in (
        dict(num_layers=2),
        dict(num_layers=3),
        dict(num_layers=2, hidden_size=48),
        dict(num_layers=2, intermediate_size=80),
        dict(num_layers=2, num_heads=4),
    ):
        network, _ = model(**{section: change})
        diagram = make(network, inputs(network))
        assert diagram.rest() == 0 and diagram.total == weights(getattr(network, part))
        figure = A.draw(diagram)
        assert not A.overflows(figure) and figure.get_size_inches()[0] == A.COLUMN
        texts.add(A.figure_text(figure))
    assert len(texts) == 5
    for equation in range(1, 8) if part == "vision" else range(8, 14):
        assert f"Eq. {equation}" in A.figure_text(figure)


def test_the_order_of_norms_is_read_off_the_layer():
    said = {}
    for norm in ("pre", "post"):
        network, _ = model("without_bert_gan", vision=dict(num_layers=2, norm=norm))
        said[norm] = A.figure_text(A.draw(A.vit_diagram(network, inputs(network))))
    assert "before the maps" in said["pre"] and "after the sums, as" in said["post"]


def test_figure_4_counts_three_networks_and_changes_with_each():
    sizes = dict(image_size=64, num_rows=6, num_words=9, seed=0)

    def networks(generator=4, discriminator=4, hidden=32, normalisation="batch"):
        return (
            ImageGenerator(**sizes, channels=generator),
            ImageDiscriminator(**sizes, channels=discriminator, num_classes=5, normalisation=normalisation),
            TextGenerator(vocab_size=50, num_rows=6, num_words=9, hidden_size=hidden, seed=0),
        )

    texts = set()
    for change in ({}, dict(generator=6), dict(discriminator=6), dict(hidden=48), dict(normalisation="spectral")):
        made = networks(**change)
        diagram = A.gan_diagram(*made)
        assert diagram.rest() == 0 and diagram.total == sum(weights(m) for m in made)
        text = A.figure_text(A.draw(diagram))
        assert counts_in(text) == diagram.total
        texts.add(text)
    assert len(texts) == 5


def test_text_is_large_enough_for_print():
    network, settings = model()
    for diagram in (
        A.vbg_diagram(network, inputs(network), settings),
        A.vit_diagram(network, inputs(network)),
        A.bert_diagram(network, inputs(network)),
    ):
        assert min(t.get_fontsize() for t in A.draw(diagram).axes[0].texts) >= 6.5


def test_boxes_do_not_lie_on_each_other():
    diagrams = []
    for variant in VARIANTS:
        network, settings = model(variant)
        diagrams.append(A.vbg_diagram(network, inputs(network), settings))
    network, _ = model()
    diagrams += [A.vit_diagram(network, inputs(network)), A.bert_diagram(network, inputs(network))]
    for diagram in diagrams:
        for i, a in enumerate(diagram.boxes):
            assert a.x - a.w / 2 >= 0 and a.x + a.w / 2 <= diagram.width
            for b in diagram.boxes[:i]:
                assert abs(a.x - b.x) >= (a.w + b.w) / 2 - 1e-6 or abs(a.y - b.y) >= (a.h + b.h) / 2 - 1e-6, (
                    a.name,
                    b.name,
                )


def test_a_module_that_no_batch_meets_is_named():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.forgotten = nn.Linear(2, 2), nn.Linear(2, 3)

        def forward(self, x):
            return self.used(x)

    network = Half()
    stages = trace(network, (torch.zeros(1, 2),))
    assert not_met(network, stages) == {"forgotten": 9} and counted(stages) + 9 == weights(network)


def test_layers_that_differ_are_not_merged():
    network, _ = model(vision=dict(num_layers=3))
    layers = network.vision.transformer.layers
    times = lambda: [s.times for s in merge_repeats(trace(network, inputs(network))) if s.kind == "ViTLayer"]
    assert times() == [3]
    layers[1].mlp.fc1 = nn.Linear(32, 40)
    layers[1].mlp.fc2 = nn.Linear(40, 32)
    assert times() == [1, 1, 1]


def test_tracing_leaves_the_model_as_it_was():
    network = ImageDiscriminator(image_size=64, channels=4, num_classes=3, num_rows=3, num_words=4, seed=0).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    trace(network, (torch.randn(2, 3, 64, 64), torch.zeros(2, dtype=torch.long)))
    assert network.training and all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
