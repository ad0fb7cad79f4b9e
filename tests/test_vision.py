"""Checkpoints of every family, as the hub holds them: tokens, sizes, normalisation, refusals, layers, multiply-adds."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    BertConfig,
    CLIPConfig,
    DeiTConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    SwinConfig,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from vbg.core.chance import seeded
from vbg.core.files import DataError
from vbg.models.vision import (
    VisionEncoder,
    blocks_of,
    checkpoint_config,
    checkpoint_normalisation,
    load_checkpoint,
    to_pixel_values,
)

SIZES = dict(
    image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.2
)
FAMILIES = dict(
    vit=(ViTConfig(**SIZES, intermediate_size=64), 1),
    deit=(DeiTConfig(**SIZES, intermediate_size=64), 2),
    dinov2=(Dinov2Config(**SIZES, mlp_ratio=2), 1),
    registers=(Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, num_register_tokens=3), 4),
    swin=(
        SwinConfig(
            image_size=32,
            patch_size=2,
            embed_dim=8,
            depths=[2, 2, 1],
            num_heads=[1, 2, 4],
            window_size=4,
            initializer_range=0.2,
        ),
        0,
    ),
)
INTERPOLATING = [name for name in FAMILIES if name != "swin"]
SCRATCH = dict(
    image_size=32, patch_size=8, hidden_size=32, num_layers=3, num_heads=4, intermediate_size=64, init_std=0.2
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def every_family(function):
    return pytest.mark.parametrize("name", FAMILIES)(function)


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    "A checkpoint of each family with its classifier on top, and the mean and spread of ImageNet."
    folder = tmp_path_factory.mktemp("hub")
    for name, (config, _) in FAMILIES.items():
        with seeded(0):
            classifiers = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]  # DeiT has two
            model = (classifiers[0] if isinstance(classifiers, tuple) else classifiers)(config)
            with torch.no_grad():  # as if trained: no norm of ones, no position, token or bias of zeros
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
        model.save_pretrained(folder / name)
        ViTImageProcessor(image_mean=MEAN, image_std=STD).save_pretrained(folder / name)
    return folder


@pytest.fixture
def own(hub, tmp_path):
    "A private copy of one checkpoint, to be damaged."

    def copy(name):
        return shutil.copytree(hub / name, tmp_path / name)

    return copy


def bytes_of(height=32, width=32, items=2):
    return torch.randint(
        0, 256, (items, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def library(hub, name):
    "The library's own model, and what it wants to be given."
    model = MODEL_MAPPING[type(FAMILIES[name][0])].from_pretrained(hub / name).eval()
    return model, lambda pixels: to_pixel_values(pixels, MEAN, STD)


# ---- tokens ----


@every_family
@torch.no_grad()
def test_the_tokens_are_the_librarys_without_those_before_the_patches(hub, name):
    encoder, (model, normalise) = VisionEncoder(checkpoint=str(hub / name)).eval(), library(hub, name)
    tokens, theirs = encoder(to_pixel_values(bytes_of())), model(normalise(bytes_of())).last_hidden_state
    assert tokens.shape == (2, 16, 32) and encoder.hidden_size == 32 and encoder.image_size == 32
    assert theirs.shape[1] - 16 == FAMILIES[name][1]
    assert torch.allclose(tokens, theirs[:, -16:], atol=1e-5)


@every_family
def test_changing_one_patch_changes_its_own_token_most(hub, name):
    "The tokens stand in the order of the patches: one that is off by a special token would answer for its neighbour."
    encoder = VisionEncoder(checkpoint=str(hub / name)).eval()
    images = torch.zeros(1, 3, 32, 32, requires_grad=True)
    if name == "swin":  # windows mix 4 x 4 patches: look at the first stage alone
        embedded = encoder.transformer.embeddings(images)[0]
        gradient = torch.autograd.grad(embedded[0, 16 * 5 + 3, 0], images)[0].abs().sum((0, 1))
        assert gradient.nonzero().min(0).values.tolist() == [10, 6] and gradient.nonzero().max(0).values.tolist() == [
            11,
            7,
        ]
        return
    gradient = torch.autograd.grad(encoder(images)[0, 9, :4].sum(), images)[0].abs().sum((0, 1))
    inside = gradient.unfold(0, 8, 8).unfold(1, 8, 8).sum((2, 3))
    assert inside.argmax() == 9


@pytest.mark.parametrize("name", INTERPOLATING)
@torch.no_grad()
def test_another_image_size_interpolates_the_positions(hub, name):
    encoder, (model, normalise) = VisionEncoder(checkpoint=str(hub / name), image_size=48).eval(), library(hub, name)
    extra = {} if name in ("dinov2", "registers") else dict(interpolate_pos_encoding=True)
    for height, width in ((48, 48), (48, 24)):
        pixels, n = bytes_of(height, width), height * width // 64
        tokens = encoder(to_pixel_values(pixels))
        assert tokens.shape == (2, n, 32)
        assert torch.allclose(tokens, model(normalise(pixels), **extra).last_hidden_state[:, -n:], atol=1e-5)
    assert encoder.image_size == 48
    assert torch.equal(
        encoder(to_pixel_values(bytes_of())),
        VisionEncoder(checkpoint=str(hub / name)).eval()(to_pixel_values(bytes_of())),
    )


@torch.no_grad()
def test_swin_takes_the_size_it_is_made_for_and_no_other(hub):
    model, normalise = library(hub, "swin")
    encoder = VisionEncoder(checkpoint=str(hub / "swin"), image_size=48).eval()
    theirs = model(normalise(bytes_of(48, 48))).last_hidden_state
    assert theirs.shape == (2, 36, 32) and torch.allclose(encoder(to_pixel_values(bytes_of(48, 48))), theirs, atol=1e-5)
    with pytest.raises(ValueError, match="32 x 32 pixels; this encoder is made for image_size 48"):
        encoder(to_pixel_values(bytes_of()))
    with pytest.raises(ValueError, match="the smallest it takes is 26"):
        VisionEncoder(checkpoint=str(hub / "swin"), image_size=24)
    VisionEncoder(checkpoint=str(hub / "swin"), image_size=26)(to_pixel_values(bytes_of(26, 26)))


@every_family
def test_an_image_that_is_no_whole_number_of_patches_is_refused(hub, name):
    with pytest.raises(ValueError, match="image_size 45 is not a multiple of patch_size"):
        VisionEncoder(checkpoint=str(hub / name), image_size=45)
    encoder = VisionEncoder(checkpoint=str(hub / name))
    with pytest.raises(ValueError, match="made for image_size 32" if name == "swin" else "45 is not a multiple"):
        encoder(torch.zeros(1, 3, 45, 48))


@pytest.mark.parametrize("cls", [True, False])
def test_an_encoder_from_scratch_takes_its_own_size_only(cls):
    with pytest.raises(ValueError, match="40 x 40 pixels; this encoder is made for image_size 32"):
        VisionEncoder(**SCRATCH, cls=cls)(torch.zeros(1, 3, 40, 40))


# ---- the layer ----


@pytest.mark.parametrize("norm", ["post", "pre"])
@torch.no_grad()
def test_each_norm_of_a_layer_stands_where_the_equation_puts_it(norm):
    "Eq. 6-7, and the pre-norm order."
    encoder, image = VisionEncoder(**SCRATCH, norm=norm, seed=0).eval(), to_pixel_values(bytes_of())
    before, after = (
        [getattr(layer, f"layernorm_{side}") for layer in encoder.transformer.layers] for side in ("before", "after")
    )
    generator = torch.Generator().manual_seed(1)
    for part in (*before, *after):  # as if trained: fresh norms are all alike
        part.weight.mul_(1 + 0.3 * torch.randn(32, generator=generator))
        part.bias.add_(torch.randn(32, generator=generator))
    z = encoder.transformer.embeddings(image)
    for layer, first, second in zip(encoder.transformer.layers, before, after):
        if norm == "post":
            z = first(z + layer.attention(z)[0])
            z = second(z + layer.mlp(z))
        else:
            z = z + layer.attention(first(z))[0]
            z = z + layer.mlp(second(z))
    assert torch.allclose(encoder(image), encoder.transformer.layernorm(z)[:, 1:], atol=1e-5)


# ---- sizes in the settings ----


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("vit", dict(hidden_size=64), "hidden_size is 32 in the checkpoint and 64 in the settings"),
        ("deit", dict(num_layers=1), "num_hidden_layers is 2 in the checkpoint and 1"),
        ("dinov2", dict(intermediate_size=128), "intermediate_size is 64 in the checkpoint and 128"),
        ("registers", dict(num_heads=2), "num_attention_heads is 4"),
        ("registers", dict(patch_size=4), "patch_size is 8"),
        ("swin", dict(hidden_size=8), "hidden_size is 32"),
        ("swin", dict(num_layers=5), "num_hidden_layers is 3"),
        ("swin", dict(patch_size=4), "patch_size is 2"),
    ],
)
def test_sizes_that_differ_from_the_checkpoint_are_refused(hub, name, change, message):
    with pytest.raises(DataError, match=message) as caught:
        VisionEncoder(checkpoint=str(hub / name), **change)
    assert name in str(caught.value) and "or to None" in str(caught.value)


@every_family
def test_sizes_that_are_the_checkpoints_are_taken(hub, name):
    sizes = dict(
        image_size=32, patch_size=2 if name == "swin" else 8, hidden_size=32, num_layers=3 if name == "swin" else 2
    )
    own = dict(num_heads=4, intermediate_size=64)  # Swin has a number for each stage: not compared
    given, none = VisionEncoder(checkpoint=str(hub / name), **sizes, **own), VisionEncoder(checkpoint=str(hub / name))
    assert all(torch.equal(a, b) for a, b in zip(given.parameters(), none.parameters()))
    config = given.transformer.config
    assert (
        len(
            getattr(given.transformer, "layers", None)
            or getattr(given.transformer.encoder, "layers", None)
            or given.transformer.encoder.layer
        )
        == config.num_hidden_layers
    )


@every_family
def test_dropout_of_the_settings_is_in_the_checkpoints_layers(hub, name):
    encoder = VisionEncoder(checkpoint=str(hub / name), dropout=0.25)
    rates = {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.25} and encoder.transformer.config.attention_probs_dropout_prob == 0.25


def test_an_encoder_from_scratch_needs_every_size():
    with pytest.raises(ValueError, match="hidden_size, intermediate_size: None is for a checkpoint"):
        VisionEncoder(**SCRATCH | dict(hidden_size=None, intermediate_size=None))


# ---- pixels ----


@every_family
def test_pixels_are_normalised_as_the_librarys_processor_does(hub, name):
    "`do_resize=False`: the processor's arithmetic alone."
    seen = []
    encoder = VisionEncoder(checkpoint=str(hub / name)).eval()
    encoder.transformer.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    encoder(to_pixel_values(bytes_of()))
    processor = ViTImageProcessor.from_pretrained(hub / name, do_resize=False)
    theirs = processor(images=list(bytes_of().permute(0, 3, 1, 2)), return_tensors="pt").pixel_values
    assert torch.allclose(seen[0], theirs, atol=1e-5) and (theirs - to_pixel_values(bytes_of())).abs().max() > 0.1


def test_the_normalisation_is_not_in_the_state(hub):
    encoder = VisionEncoder(checkpoint=str(hub / "vit"))
    assert {n.removeprefix("transformer.") for n in encoder.state_dict()} == set(encoder.transformer.state_dict())
    assert {n for n, _ in encoder.named_buffers()} == {"pixel_scale", "pixel_shift"}


@pytest.mark.parametrize(
    "settings, expected",
    [
        (None, ((0.5,) * 3, (0.5,) * 3)),
        ({}, ((0.5,) * 3, (0.5,) * 3)),
        (dict(image_mean=0.25, image_std=0.5), ((0.25,) * 3, (0.5,) * 3)),
        (dict(image_mean=MEAN, image_std=STD), (MEAN, STD)),
        (dict(image_mean=MEAN, image_std=STD, do_normalize=False), ((0.0,) * 3, (1.0,) * 3)),
    ],
)
def test_mean_and_spread_are_read_from_the_preprocessor_file(tmp_path, settings, expected):
    if settings is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    assert checkpoint_normalisation(str(tmp_path)) == expected


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"image_mean": "red"}', '{"image_mean": [0.5, 0.5]}', '{"image_std": [0.5, 0.5, 0]}']
)
def test_a_broken_preprocessor_file_is_refused(tmp_path, text):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(DataError, match="preprocessor_config.json"):
        checkpoint_normalisation(str(tmp_path))


def test_without_a_preprocessor_file_pixels_go_in_as_they_are(own):
    folder = own("vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.warns(UserWarning, match="mean 0.5 and spread 0.5") as said:
        encoder = VisionEncoder(checkpoint=str(folder)).eval()
    assert len(said) == 1 and str(folder) in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        VisionEncoder(checkpoint=str(folder))
    assert not list(encoder.named_buffers())
    image = to_pixel_values(bytes_of())
    assert torch.allclose(
        encoder(image), ViTModel.from_pretrained(folder).eval()(image).last_hidden_state[:, 1:], atol=1e-5
    )


# ---- how a checkpoint is stored and named ----


@every_family
@torch.no_grad()
def test_a_checkpoint_in_half_precision_computes_in_single(own, name):
    folder = own(name)
    model = MODEL_MAPPING[type(FAMILIES[name][0])].from_pretrained(folder).half()
    model.save_pretrained(folder)
    assert {v.dtype for v in load_file(folder / "model.safetensors").values() if v.is_floating_point()} == {
        torch.float16
    }
    for layers in (None, (1, 2)):
        encoder = VisionEncoder(checkpoint=str(folder), layers=layers, seed=0).eval()
        tokens = encoder(to_pixel_values(bytes_of()))
        assert (
            {p.dtype for p in encoder.parameters()}
            == {tokens.dtype}
            == {torch.nn.Linear(32, 4)(tokens).dtype}
            == {torch.float32}
        )
    tokens = VisionEncoder(checkpoint=str(folder)).eval()(to_pixel_values(bytes_of()))
    assert torch.allclose(
        tokens, model.float()(to_pixel_values(bytes_of(), MEAN, STD)).last_hidden_state[:, -16:], atol=1e-5
    )


@every_family
@torch.no_grad()
def test_a_folder_may_be_a_path(hub, name):
    image, (config, _) = to_pixel_values(bytes_of()), FAMILIES[name]
    one, two = (VisionEncoder(checkpoint=kind(hub / name), layers=(1, 2), seed=0).eval() for kind in (Path, str))
    assert torch.equal(one(image), two(image)) and one.pixel_scale is not None
    assert checkpoint_config(hub / name, (config.model_type,)).model_type == config.model_type
    assert checkpoint_normalisation(hub / name) == (MEAN, STD)
    with pytest.raises(DataError, match="absent"):
        VisionEncoder(checkpoint=Path("absent"))


# ---- checkpoints that cannot be used ----


@every_family
def test_missing_weights_are_refused(own, name):
    folder = own(name)
    weights = load_file(folder / "model.safetensors")
    lost = sorted(k for k in weights if "weight" in k and "norm" in k)[0]
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="1 weights are absent or of another shape"):
        VisionEncoder(checkpoint=str(folder))


@pytest.mark.parametrize("config", [BertConfig(), CLIPConfig()], ids=["bert", "clip"])
def test_another_family_is_refused_by_its_name(tmp_path, config):
    config.save_pretrained(tmp_path)
    families = "vit, deit, dinov2, dinov2_with_registers, swin"
    with pytest.raises(DataError, match=rf"its model_type is '{config.model_type}'; supported here: {families}"):
        VisionEncoder(checkpoint=str(tmp_path))


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"model_type": "zzz"}', "'zzz'"),
        ('{"hidden_size": 8}', "model_type is None"),
        ("{", "no usable"),
        (None, "absent or empty.*must hold config.json"),
        ('{"model_type": "vit", "hidden_size": "wide"}', "hidden_size"),
    ],
)
def test_a_folder_without_a_usable_config_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataError, match=message):
        VisionEncoder(checkpoint=str(tmp_path))


def test_pickled_and_truncated_weights_are_refused(own):
    file = own("swin") / "model.safetensors"
    torch.save(load_file(file), file.with_name("pytorch_model.bin"))
    whole = file.read_bytes()
    file.unlink()
    with pytest.raises(DataError, match="model.safetensors"):
        VisionEncoder(checkpoint=str(file.parent))
    file.write_bytes(whole[:3000])
    with pytest.raises(DataError, match="no usable SwinModel checkpoint"):
        VisionEncoder(checkpoint=str(file.parent))


def test_offline_an_absent_name_is_explained(monkeypatch):
    from huggingface_hub.constants import HF_HUB_CACHE

    for absent in (
        lambda: checkpoint_config("nobody/absent", ("vit",), offline=True),
        lambda: load_checkpoint(ViTModel, "nobody/absent", offline=True),
    ):
        with pytest.raises(DataError) as caught:
            absent()
        for part in (
            "nobody/absent",
            f"cache {HF_HUB_CACHE}",
            "`hf download nobody/absent`",
            "None to train from scratch",
        ):
            assert part in str(caught.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="hf download nobody/absent"):
        VisionEncoder(checkpoint="nobody/absent")


def test_a_name_in_the_cache_needs_no_network(hub, tmp_path, monkeypatch):
    "The cache as the hub's client lays it out."
    revision = "0" * 40
    model = tmp_path / "models--nobody--present"
    shutil.copytree(hub / "dinov2", model / "snapshots" / revision)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(revision)
    for place in ("huggingface_hub.constants.HF_HUB_CACHE", "huggingface_hub.file_download.constants.HF_HUB_CACHE"):
        monkeypatch.setattr(place, str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    named, folder = (
        VisionEncoder(checkpoint="nobody/present").eval(),
        VisionEncoder(checkpoint=str(hub / "dinov2")).eval(),
    )
    image = to_pixel_values(bytes_of())
    assert torch.equal(named(image), folder(image)) and named.pixel_scale is not None
    (model / "snapshots" / revision / "preprocessor_config.json").unlink()
    with pytest.warns(UserWarning, match="hf download nobody/present"):
        assert VisionEncoder(checkpoint="nobody/present").pixel_scale is None


# ---- several layers ----


def joined(encoder, tokens):
    return encoder.joint(torch.cat([F.layer_norm(t, t.shape[-1:]) for t in tokens], dim=-1))


@pytest.mark.parametrize("name", INTERPOLATING)
@torch.no_grad()
def test_several_layers_are_joined_patch_by_patch(hub, name):
    encoder, (model, normalise) = (
        VisionEncoder(checkpoint=str(hub / name), layers=(1, 2), seed=3).eval(),
        library(hub, name),
    )
    out = model(normalise(bytes_of()), output_hidden_states=True)
    assert not torch.allclose(out.hidden_states[2], out.last_hidden_state, atol=0.01)  # the final norm stands between
    expected = joined(encoder, [out.hidden_states[1][:, -16:], out.last_hidden_state[:, -16:]])
    assert torch.allclose(encoder(to_pixel_values(bytes_of())), expected, atol=1e-5)


@torch.no_grad()
def test_the_finer_maps_of_swin_are_averaged_onto_the_last_grid(hub):
    for size, grid in ((32, 4), (30, 4), (48, 6)):  # 30: grids of 15, 8 and 4, odd where it halves
        encoder = VisionEncoder(checkpoint=str(hub / "swin"), layers=(1, 2, 3), image_size=size, seed=3).eval()
        model, normalise = library(hub, "swin")
        out = model(
            normalise(bytes_of(size, size)), output_hidden_states=True, output_hidden_states_before_downsampling=True
        )
        first, second, last = out.reshaped_hidden_states[1:]
        assert first.shape == (2, 8, size // 2, size // 2) and last.shape == (2, 32, grid, grid)
        means = []
        for fine, step in ((first, 4), (second, 2)):
            cells = [
                [fine[:, :, r * step : (r + 1) * step, c * step : (c + 1) * step].mean((2, 3)) for c in range(grid)]
                for r in range(grid)
            ]
            means.append(torch.stack([cell for row in cells for cell in row], dim=1))
        tokens = encoder(to_pixel_values(bytes_of(size, size)))
        assert tokens.shape == (2, grid**2, 32) and torch.allclose(
            tokens, joined(encoder, [*means, out.last_hidden_state]), atol=1e-5
        )


@pytest.mark.parametrize(
    "options", [dict(), dict(norm="post", cls=False), dict(stem="conv", position="sincos")], ids=str
)
def test_several_layers_of_an_encoder_from_scratch(options):
    plain, several = (
        VisionEncoder(**SCRATCH, **options, seed=4).eval(),
        VisionEncoder(**SCRATCH, **options, layers=[3, 1], seed=4).eval(),
    )
    image, skip = to_pixel_values(bytes_of()), plain.num_special
    first = plain.transformer.layers[0](plain.transformer.embeddings(image))[:, skip:]
    assert several.layers == (3, 1) and skip == int(options.get("cls", True))
    assert torch.allclose(several(image), joined(several, [plain(image), first]), atol=1e-5)
    added = {n: p for n, p in several.named_parameters() if n not in dict(plain.named_parameters())}
    assert (
        set(added) == {"joint.weight", "joint.bias"}
        and added["joint.weight"].shape == (32, 64)
        and not added["joint.bias"].any()
    )
    assert abs(added["joint.weight"].std() - 0.2) < 0.02
    assert all(torch.equal(p, several.state_dict()[n]) for n, p in plain.state_dict().items())


@every_family
@torch.no_grad()
def test_one_layer_is_read_as_it_is_and_no_block_after_it_runs(hub, name):
    encoder, (model, normalise) = VisionEncoder(checkpoint=str(hub / name), layers=(1,)).eval(), library(hub, name)
    assert len(blocks_of(model)) == model.config.num_hidden_layers
    if name == "swin":  # its layers differ in width: they are mapped to that of the last
        assert encoder.joint is not None and encoder(to_pixel_values(bytes_of())).shape == (2, 16, 32)
        return
    states = model(normalise(bytes_of()), output_hidden_states=True).hidden_states[1]
    tokens = encoder(to_pixel_values(bytes_of()))
    assert torch.allclose(tokens, F.layer_norm(states[:, -16:], (32,)), atol=1e-5)
    assert len(blocks_of(encoder.transformer)) == 1 and encoder.joint is None and encoder.hidden_size == 32
    cls = VisionEncoder(checkpoint=str(hub / name), layers=(1,), tokens="cls").eval()(to_pixel_values(bytes_of()))
    assert torch.allclose(cls, F.layer_norm(states[:, :1], (32,)), atol=1e-5)


def test_swin_has_no_cls_token(hub):
    with pytest.raises(ValueError, match=r"no \[CLS\] token: set tokens to 'patches'"):
        VisionEncoder(checkpoint=str(hub / "swin"), tokens="cls")


@pytest.mark.parametrize(
    "layers", [(0,), (4,), (-1,), (1, 1), (), (1, 2, 3, 4), ("last",), "last", 2, 1.0, [[1]]], ids=str
)
def test_a_layer_that_does_not_exist_is_refused(hub, layers):
    for settings in (SCRATCH, dict(checkpoint=str(hub / "swin"))):  # both have three
        with pytest.raises(ValueError, match="different numbers from 1 to 3"):
            VisionEncoder(**settings, layers=layers)


# ---- training ----


@every_family
@pytest.mark.parametrize("layers", [None, (1, 2)], ids=["last", "two"])
def test_gradients_reach_every_parameter(hub, name, layers):
    if name == "swin" and layers:
        layers = (1, 2, 3)
    encoder = VisionEncoder(checkpoint=str(hub / name), layers=layers, seed=0)
    target = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0))
    (encoder(to_pixel_values(bytes_of())) * target).sum().backward()
    without = {n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()}
    keys = {
        n for n in without if n.endswith(("key.bias", "k_proj.bias"))
    }  # softmax takes no notice of what all scores share
    assert {n.rsplit(".", 1)[-1] for n in without - keys} <= {"mask_token"}, (
        without
    )  # of DINOv2's training, in no image


@every_family
def test_the_same_seed_gives_the_same_bits(hub, name):
    image = to_pixel_values(bytes_of())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with torch.no_grad():
        one, two, three = (VisionEncoder(checkpoint=str(hub / name), layers=(1, 2), seed=s).eval() for s in (5, 5, 6))
        assert torch.equal(one(image), two(image)) and not torch.equal(one.joint.weight, three.joint.weight)
        assert torch.equal(one(image), one(image))
    assert torch.equal(before, torch.get_rng_state())


@every_family
def test_an_items_tokens_do_not_depend_on_its_batch(hub, name):
    encoder, image = (
        VisionEncoder(checkpoint=str(hub / name), layers=(1, 2), seed=0).eval(),
        to_pixel_values(bytes_of(items=3)),
    )
    with torch.no_grad():
        assert torch.allclose(encoder(image)[1:2], encoder(image[1:2]), atol=1e-5)


# ---- multiply-adds ----


def measured(encoder):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.eval()(torch.zeros(1, 3, encoder.image_size, encoder.image_size))
    return counter.get_total_flops() / 2


def by_hand(encoder):
    "Stem, layers and joint map of one image, from their sizes alone."
    config, patches = encoder.transformer.config, (encoder.image_size // 8) ** 2
    D, tokens, side, total = config.hidden_size, patches + encoder.num_special, encoder.image_size, 0
    for module in encoder.transformer.embeddings.patch_embeddings.projection.modules():
        if isinstance(module, torch.nn.Conv2d):
            side //= module.stride[0]
            total += side**2 * module.weight.numel()
    M = getattr(config, "intermediate_size", None) or int(D * config.mlp_ratio)
    layers = config.num_hidden_layers * (4 * tokens * D**2 + 2 * tokens**2 * D + 2 * tokens * D * M)
    return total + layers + (patches * encoder.joint.weight.numel() if encoder.joint else 0)


@pytest.mark.parametrize("name", INTERPOLATING)
@pytest.mark.parametrize("options", [dict(), dict(image_size=48), dict(layers=(1, 2))], ids=str)
def test_multiply_adds_of_checkpoints_by_hand(hub, name, options):
    encoder = VisionEncoder(checkpoint=str(hub / name), **options)
    assert measured(encoder) == by_hand(encoder) > 0


@pytest.mark.parametrize("stem", ["linear", "conv"])
@pytest.mark.parametrize("cls", [True, False])
@pytest.mark.parametrize("layers", [None, (2,), (1, 3)], ids=str)
def test_multiply_adds_from_scratch_by_hand(stem, cls, layers):
    encoder = VisionEncoder(**SCRATCH, stem=stem, cls=cls, layers=layers)
    assert measured(encoder) == by_hand(encoder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_a_pointer_in_place_of_a_file_of_a_vision_checkpoint_is_named(own, name):
    folder = own("swin")
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 300\n")
    with pytest.raises(DataError, match=f"{name}: file is a Git LFS pointer.*Remedy: run `git lfs pull`"):
        VisionEncoder(checkpoint=str(folder))
