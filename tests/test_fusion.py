"""The zoo of fusion layers under one contract: what the notebook does not show, and what it shows at more sizes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vbg.models.fusion import BidirectionalFusion, FusionOutput, masked_mean
from vbg.models.fusion_zoo import (
    FUSIONS,
    MLP,
    LateAverageHead,
    bidirectional_parameters,
    build_fusion,
    matched_width,
)
from vbg.models.vbg import weight_penalty

KINDS = [
    "bidirectional",
    "bidirectional_vectors",
    "image_reads_text",
    "text_reads_image",
    "gated",
    "sum",
    "concatenation",
    "late_average",
]
ATTENTIVE = KINDS[:4]
FIELDS = {  # what each layer has beside `fused`
    "bidirectional": {"gate", "image_to_text", "text_to_image", "image_summary", "text_summary"},
    "bidirectional_vectors": {"gate", "image_to_text", "text_to_image", "image_summary", "text_summary"},
    "image_reads_text": {"image_to_text", "image_summary"},
    "text_reads_image": {"text_to_image", "text_summary"},
    "gated": {"gate", "image_summary", "text_summary"},
    "sum": {"image_summary", "text_summary"},
    "concatenation": {"image_summary", "text_summary"},
    "late_average": {"image_summary", "text_summary"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)  # the layers whose numbers stand below
every_layer = pytest.mark.parametrize("kind", FUSIONS)  # a new one too
with_and_without_maps = pytest.mark.parametrize("maps", [True, False])


def inputs(width=32, patches=16, words=9, seed=0):
    "Four items; the second has two words, the last all."
    g = torch.Generator().manual_seed(seed)
    keep = torch.arange(words) < torch.tensor([[words - 3], [2], [5], [words]])
    return torch.randn(4, patches, width, generator=g), torch.randn(4, words, width, generator=g), keep


def build(kind, width=32, heads=4, seed=0, **settings):
    return build_fusion(kind=kind, hidden_size=width, num_heads=heads, seed=seed, **settings)


# ---- contract ----


def test_the_names_are_the_promised_ones():
    assert {*KINDS, "fixed_gate"} <= {*FUSIONS}  # a new layer may stand beside them
    assert type(build_fusion(hidden_size=32, num_heads=4)) is BidirectionalFusion


@every_layer
@with_and_without_maps
def test_shapes(kind, maps):
    layer, batch = build(kind).eval(), inputs()
    out = layer(*batch, return_maps=maps)
    assert isinstance(out, FusionOutput) and out.fused.shape == (4, layer.output_size)
    summaries = [x for x in (out.gate, out.image_summary, out.text_summary) if x is not None]
    assert all(x.shape == (4, 32) for x in summaries)
    drawn = [x for x in (out.image_to_text, out.text_to_image) if x is not None]
    assert maps or not drawn
    assert all(x.shape[:2] == (4, 4) and torch.allclose(x.sum(-1), torch.ones(())) for x in drawn)


@every_kind
@with_and_without_maps
def test_fields(kind, maps):
    layer, (image, text, keep) = build(kind).eval(), inputs()
    out = layer(image, text, keep, return_maps=maps)
    assert layer.output_size == (64 if kind == "late_average" else 32)
    expected = FIELDS[kind] - (set() if maps else {"image_to_text", "text_to_image"})
    assert {name for name, value in out._asdict().items() if value is not None} == {"fused"} | expected
    one = kind == "bidirectional_vectors"
    for name, shape in (("image_to_text", (16, 9)), ("text_to_image", (9, 16))):
        if name in expected:
            assert getattr(out, name).shape == (4, 4, *((1, 1) if one else shape))


@every_layer
def test_with_and_without_maps_give_the_same(kind):
    layer, batch = build(kind).eval(), inputs()
    assert torch.allclose(layer(*batch, return_maps=True).fused, layer(*batch, return_maps=False).fused, atol=1e-6)


@every_layer
def test_no_mask_is_a_mask_that_keeps_all(kind):
    layer, (image, text, keep) = build(kind).eval(), inputs()
    assert torch.allclose(layer(image, text).fused, layer(image, text, torch.ones_like(keep)).fused, atol=1e-6)


@every_layer
@with_and_without_maps
def test_what_padding_holds_does_not_matter(kind, maps):
    layer, (image, text, keep) = build(kind).eval(), inputs()
    out = layer(image, text, keep, return_maps=maps)
    for filler in (1e4, float("nan"), float("inf")):
        other = layer(image, text.masked_fill(~keep[..., None], filler), keep, return_maps=maps)
        assert all(a is b or torch.equal(a, b) for a, b in zip(out, other))


@every_layer
@with_and_without_maps
def test_how_long_padding_is_does_not_matter(kind, maps):
    layer, (image, text, keep) = build(kind).eval(), inputs()
    out = layer(image, text, keep, return_maps=maps).fused
    longer = layer(image, F.pad(text, (0, 0, 0, 20), value=7.0), F.pad(keep, (0, 20)), return_maps=maps).fused
    assert torch.allclose(longer, out, atol=1e-6)
    assert torch.allclose(layer(image[1:2], text[1:2, :2], return_maps=maps).fused, out[1:2], atol=1e-6)


@every_layer
@with_and_without_maps
def test_padding_gets_no_gradient_even_when_it_is_nan(kind, maps):
    layer, (image, text, keep) = build(kind).eval(), inputs()
    text = text.masked_fill(~keep[..., None], float("nan")).requires_grad_()
    layer(image, text, keep, return_maps=maps).fused.square().sum().backward()
    assert (text.grad[~keep] == 0).all() and text.grad[keep].abs().max() > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


@every_layer
@with_and_without_maps
def test_an_item_without_words_is_no_nan_and_touches_no_other(kind, maps):
    layer, (image, text, keep) = build(kind), inputs()
    layer.eval()
    empty = keep.clone()
    empty[2] = False
    one, two = (layer(image, text, k, return_maps=maps).fused for k in (keep, empty))
    assert two.isfinite().all() and torch.allclose(one[[0, 1, 3]], two[[0, 1, 3]], atol=1e-6)
    two.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


@every_layer
def test_both_sides_reach_the_result_and_each_item_stands_alone(kind):
    layer, (image, text, keep) = build(kind).eval(), inputs()
    out = layer(image, text, keep).fused
    shift = torch.linspace(-2, 2, 32)
    assert (layer(image + shift, text, keep).fused - out).abs().amax(1).min() > 1e-3
    assert (layer(image, text + shift, keep).fused - out).abs().amax(1).min() > 1e-3
    assert torch.allclose(layer(image[2:3], text[2:3], keep[2:3]).fused, out[2:3], atol=1e-6)


# ---- residual paths ----


@pytest.mark.parametrize("kind", KINDS[2:])
@with_and_without_maps
def test_a_silent_perceptron_hands_the_sides_on(kind, maps):
    layer, (image, text, keep) = build(kind).eval(), inputs()
    for mlp in (part for part in layer.children() if isinstance(part, MLP)):
        torch.nn.init.zeros_(mlp[-1].weight)
        torch.nn.init.zeros_(mlp[-1].bias)
    words = torch.stack([tokens[kept].mean(0) for tokens, kept in zip(text, keep)])
    u, v = F.layer_norm(image.mean(1), (32,)), F.layer_norm(words, (32,))
    out = layer(image, text, keep, return_maps=maps)
    g = out.gate
    expected = {
        "image_reads_text": lambda: out.image_summary,
        "text_reads_image": lambda: out.text_summary,
        "gated": lambda: g * u + (1 - g) * v,
        "sum": lambda: u + v,
        "concatenation": lambda: u + v,
        "late_average": lambda: torch.cat([u, v], -1),
    }[kind]()
    assert torch.allclose(out.fused, expected, atol=1e-6)


@every_kind
@pytest.mark.parametrize("seed", range(3))
def test_every_kind_starts_with_a_spread_that_a_head_can_read(kind, seed):
    g = torch.Generator().manual_seed(seed)
    sides = [
        F.layer_norm(torch.randn(64, 1, 64, generator=g) + 0.7 * torch.randn(64, n, 64, generator=g), (64,))
        for n in (64, 24)
    ]
    assert 0.5 < build(kind, 64, seed=seed).eval()(*sides).fused.std() < 1.6


# ---- seeds, dropout, gradients ----


@every_layer
def test_a_seed_gives_the_same_weights_and_leaves_the_generator_alone(kind):
    torch.manual_seed(5)
    first, state = build(kind, seed=3).state_dict(), torch.get_rng_state()
    torch.manual_seed(5)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(6)
    again, other = build(kind, seed=3).state_dict(), build(kind, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@every_layer
def test_dropout_acts_in_training_only_and_as_set(kind):
    batch = inputs()
    layer = build(kind, dropout=0.5).train()
    torch.manual_seed(0)
    noisy = layer(*batch).fused
    torch.manual_seed(0)
    assert torch.equal(noisy, layer(*batch).fused) and not torch.equal(noisy, layer(*batch).fused)
    assert torch.equal(layer.eval()(*batch).fused, build(kind, dropout=0.0).train()(*batch).fused)


@every_kind
@with_and_without_maps
def test_gradients_reach_every_parameter_that_they_can(kind, maps):
    layer, batch = build(kind).eval(), inputs()
    weight = torch.randn(layer.output_size, generator=torch.Generator().manual_seed(1))
    (layer(*batch, return_maps=maps).fused * weight).sum().backward()
    for name, p in layer.named_parameters():
        if kind == "bidirectional_vectors" and (".query." in name or ".key." in name):
            assert not p.grad.any(), f"{name}: attention over one key asks nothing"
        elif name.endswith("key.bias"):
            assert p.grad.abs().max() < 1e-5, f"{name}: it shifts all scores of a query alike"
        else:
            assert p.grad.abs().max() > 1e-5, name


@every_layer
def test_two_training_steps_are_equal_to_the_last_bit(kind):
    def steps():
        layer, batch = build(kind), inputs()
        optimiser = torch.optim.AdamW(layer.parameters(), lr=0.01)
        torch.manual_seed(0)
        for _ in range(2):
            optimiser.zero_grad()
            layer(*batch, return_maps=False).fused.square().mean().backward()
            optimiser.step()
        return layer.state_dict()

    first, second = steps(), steps()
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_layer
def test_the_dropout_setting_reaches_the_layer(kind):
    rates = {part.p for part in build(kind, dropout=0.3).modules() if isinstance(part, torch.nn.Dropout)}
    assert rates == {0.3} and {part.p for part in build(kind).modules() if isinstance(part, torch.nn.Dropout)} == {0.1}


@pytest.mark.parametrize("kind", ["bidirectional", "bidirectional_vectors"])
def test_both_sides_drop_what_they_read(kind):
    layer, (image, text, keep) = build(kind, dropout=1.0).train(), inputs()
    out, other = layer(image, text, keep), layer(image + 1, text, keep)
    assert torch.equal(out.text_summary, other.text_summary)
    assert torch.equal(out.image_summary, layer(image, text + 1, keep).image_summary)


# ---- the numbers ----


@pytest.mark.parametrize(
    "kind, count",
    [  # D = 32, worked out by hand; the output biases of the perceptrons are in it
        ("bidirectional", 10_656),
        ("bidirectional_vectors", 10_656),
        ("image_reads_text", 4_320 + 97 * 65),
        ("text_reads_image", 4_320 + 97 * 65),
        ("gated", 2_272 + 64 * 130),
        ("sum", 192 + 80 * 130),
        ("concatenation", 160 + 108 * 97),
        ("late_average", 192 + 80 * 130),
    ],
)
def test_parameters_by_hand(kind, count):
    assert sum(p.numel() for p in build(kind).parameters()) == count


@every_kind
@pytest.mark.parametrize("width, heads", [(32, 1), (32, 4), (64, 4), (64, 8), (384, 6), (384, 12), (768, 8), (768, 12)])
def test_parameters_match_within_two_percent(kind, width, heads):
    count = sum(p.numel() for p in build(kind, width, heads).parameters())
    target = 10 * width**2 + 13 * width
    assert bidirectional_parameters(width) == target
    assert abs(count / target - 1) < 0.02
    if kind in ("bidirectional", "bidirectional_vectors"):
        assert count == target


def test_the_hidden_width_is_the_nearest():
    for target in range(500, 700):
        hidden = matched_width(target=target, fixed=100, per_unit=37)
        assert abs(100 + 37 * hidden - target) <= 18.5
    assert matched_width(target=0, fixed=100, per_unit=37) == 1


def work(layer, width, patches, words, maps):
    "Multiply-adds of two items, as PyTorch counts them."
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layer(torch.zeros(2, patches, width), torch.zeros(2, words, width), return_maps=maps)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("D, heads, Ni, Nt", [(32, 4, 16, 9), (64, 8, 49, 1), (64, 1, 1, 24)])
@with_and_without_maps
def test_multiply_adds_by_hand(D, heads, Ni, Nt, maps):
    "Four maps and two products a direction, the gate, the weights of the perceptrons."
    layers = {kind: build(kind, D, heads).eval() for kind in KINDS}
    reads = 2 * (Ni + Nt) * D**2 + 2 * Ni * Nt * D
    mlps = {
        kind: sum(p.numel() for m in layer.modules() if isinstance(m, MLP) for p in m.parameters() if p.ndim > 1)
        for kind, layer in layers.items()
    }
    by_hand = dict(mlps) | {
        "bidirectional": 2 * reads + 2 * D**2,
        "bidirectional_vectors": 2 * (4 * D**2 + 2 * D) + 2 * D**2,
        "image_reads_text": reads + mlps["image_reads_text"],
        "text_reads_image": reads + mlps["text_reads_image"],
        "gated": 2 * D**2 + mlps["gated"],
    }
    assert {kind: work(layer, D, Ni, Nt, maps) for kind, layer in layers.items()} == {
        kind: 2 * count for kind, count in by_hand.items()
    }


@pytest.mark.parametrize("own_head", [False, True])
def test_a_new_layer_is_one_class_and_one_line(monkeypatch, own_head):
    from vbg.core.profiles import profile
    from vbg.models.vbg import build_model, multiply_adds, one_item

    class Product(torch.nn.Module):
        def __init__(self, *, hidden_size, num_heads, dropout=0.1, seed=None):
            super().__init__()
            self.output_size = hidden_size

        def forward(self, image_tokens, text_tokens, text_keep=None, return_maps=True):
            a, b = image_tokens.mean(1), masked_mean(text_tokens, text_keep)
            return FusionOutput(a * b, image_summary=a, text_summary=b)

    class Head(torch.nn.Module):
        def __init__(self, *, hidden_size, num_classes, dropout):
            super().__init__()
            self.linear = torch.nn.Linear(hidden_size, num_classes)

        def forward(self, fused):
            return self.linear(fused)

    if own_head:
        Product.head = Head
    monkeypatch.setitem(FUSIONS, "toy", Product)
    settings = profile("smoke", {"fusion": dict(kind="toy")})
    model = build_model(settings, num_classes=4, seed=0)
    plain = build_model(profile("smoke", {"fusion": dict(kind="sum")}), num_classes=4, seed=0)
    assert type(model.fusion) is Product and isinstance(model.head, Head) == own_head
    model(**one_item(64, 12, "cpu")).logits.sum().backward()
    weight = model.head.linear.weight if own_head else model.head[-1].weight
    assert weight.grad.any() and model.head_penalty() == 0.001 * weight.square().sum()
    item = one_item(64, 12, "cpu")
    perceptrons = sum(m.weight.numel() for m in plain.fusion.modules() if isinstance(m, torch.nn.Linear))
    assert multiply_adds(plain, item) - multiply_adds(model, item) == perceptrons


# ---- the late average ----


def late_head(classes=5, **settings):
    torch.manual_seed(0)
    return LateAverageHead(hidden_size=32, num_classes=classes, **{"init_std": 0.5} | settings)


def test_late_average_is_the_mean_of_two_softmaxes():
    head, fused = late_head().eval(), torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    logits = head(fused)
    one, two = head.image.weight, head.text.weight
    mean = ((fused[:, :32] @ one.T).softmax(-1) + (fused[:, 32:] @ two.T).softmax(-1)) / 2
    assert logits.shape == (6, 5) and torch.allclose(logits.softmax(-1), mean, atol=1e-6)
    assert torch.allclose(
        F.cross_entropy(logits, torch.arange(6) % 5),
        -mean.log()[torch.arange(6), torch.arange(6) % 5].mean(),
        atol=1e-6,
    )


def test_late_average_stays_finite_where_one_side_is_certain_and_wrong():
    head = late_head(classes=2, init_std=1.0).eval()
    fused = (1e5 * torch.randn(8, 64, generator=torch.Generator().manual_seed(1))).requires_grad_()
    logits = head(fused)
    assert logits.isfinite().all() and (logits.max(-1).values >= math.log(0.5) - 1e-6).all()
    F.cross_entropy(logits, torch.zeros(8, dtype=torch.long)).backward()
    assert fused.grad.isfinite().all()


def test_late_average_head_starts_as_set_and_gives_its_weights_to_a_penalty():
    head = late_head(classes=500, init_std=0.03)
    assert not head.image.bias.any() and not head.text.bias.any()
    weights = head.image.weight, head.text.weight
    assert all(abs(w.std() / 0.03 - 1) < 0.03 for w in weights) and not torch.equal(*weights)
    weight_penalty(head).backward()
    assert torch.equal(head.image.weight.grad, 2 * head.image.weight) and torch.equal(
        head.text.weight.grad, 2 * head.text.weight
    )
    assert head.image.bias.grad is None
    fused = torch.ones(3, 64)
    torch.manual_seed(0)
    assert not torch.equal(head(fused), head(fused)) and torch.equal(head.eval()(fused), head(fused))


# ---- errors ----


def test_unknown_kind_is_refused_with_the_names():
    with pytest.raises(ValueError) as error:
        build_fusion(kind="unknown", hidden_size=32, num_heads=4)
    assert "'unknown'" in str(error.value) and all(kind in str(error.value) for kind in KINDS)


@pytest.mark.parametrize("kind", ATTENTIVE)
def test_heads_that_do_not_divide_the_width_are_refused(kind):
    with pytest.raises(ValueError, match="not a multiple of num_heads"):
        build(kind, 32, 5)


@every_layer
def test_constructor_is_keyword_only(kind):
    with pytest.raises(TypeError):
        FUSIONS[kind](32, 4)
