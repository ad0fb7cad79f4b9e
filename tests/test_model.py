"""Encoders, fusion and model against files, seeds and hostile padding: what the notebooks do not show."""

import math
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertModel, ViTConfig, ViTForImageClassification, ViTModel

from vbg.core.chance import seeded
from vbg.core.files import DataError
from vbg.core.profiles import VARIANTS, Profile, profile
from vbg.data.store import ExampleData
from vbg.models.fusion import BidirectionalFusion
from vbg.models.text import SPECIAL_TOKENS, load_tokenizer, mask_tokens, tokenise, tokenizer_for, train_tokenizer, trim
from vbg.models.vbg import build_model, load_weights, save_weights
from vbg.models.vision import VisionEncoder, load_checkpoint, to_pixel_values

TINY = Profile(
    "tiny",
    vision=dict(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=64,
        stem="conv",
        position="sincos",
        init_std=0.1,
        checkpoint=None,
    ),
    text=dict(
        vocab_size=90,
        max_length=12,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=64,
        init_std=0.1,
        checkpoint=None,
    ),
    fusion=dict(num_heads=4, dropout=0.1),
    model=dict(head_dropout=0.5, head_l2=0.001, auxiliary_weight=0.5),
)
TRAINABLE = [name for name, variant in VARIANTS.items() if not variant.gan]


def batch(n=6, seed=0):
    "Images, words and a mask with every length from 2 to 12."
    g = torch.Generator().manual_seed(seed)
    keep = torch.arange(12) < torch.linspace(2, 12, n).long()[:, None]
    return (
        torch.randn(n, 3, 32, 32, generator=g),
        torch.randint(5, 90, (n, 12), generator=g).masked_fill(~keep, 0),
        keep,
    )


def words(n=600, letters="abcdefghijklmnop", seed=0):
    "Texts with many ties in their counts."
    r = random.Random(seed)
    vocabulary = ["".join(r.choice(letters) for _ in range(r.randint(2, 8))) for _ in range(300)]
    return [" ".join(r.choice(vocabulary) for _ in range(9)) for _ in range(n)]


def data(texts=None, n=30):
    "Examples with two texts each; every third is a test item."
    texts = texts or words(2 * n)
    return ExampleData(
        pixels=np.zeros((n, 4, 4, 3), np.uint8),
        label=np.zeros(n, np.int64),
        ids=np.array([str(i) for i in range(n)]),
        texts=[[texts[2 * i], texts[2 * i + 1]] for i in range(n)],
        class_names=["a"],
        split=np.array(["train", "validation", "test"] * (n // 3)),
    )


# ---- tokenizer ----


def test_the_same_texts_in_any_order_give_the_same_numbers():
    texts = words()
    first = train_tokenizer(texts, 300)
    for seed in range(4):
        again = list(texts)
        random.Random(seed).shuffle(again)
        assert train_tokenizer(again, 300).get_vocab() == first.get_vocab()
    assert len(first) <= 300 and first.convert_tokens_to_ids(SPECIAL_TOKENS) == [0, 1, 2, 3, 4]


def test_more_characters_than_the_vocabulary_can_hold():
    script = [chr(0x4E00 + i) for i in range(500)]
    texts = ["".join(script[i : i + 40]) for i in range(0, 460, 3)] * 2 + ["bronze 鼎"] * 200
    first = train_tokenizer(texts, 200)
    assert train_tokenizer(texts[::-1], 200).get_vocab() == first.get_vocab()
    assert len(first) <= 200 and first.tokenize("鼎") == ["鼎"]


def test_no_text_of_validation_or_test_reaches_the_vocabulary():
    clean = data()
    before = tokenizer_for(clean, 200)
    for i, split in enumerate(clean.split):
        if split != "train":
            clean.texts[i] = ["zzz qqq zzz", "Ωmega" * 9]
    assert tokenizer_for(clean, 200).get_vocab() == before.get_vocab()
    for i, split in enumerate(clean.split):
        if split == "train":
            clean.texts[i] = ["zzz qqq zzz", "zzz"]
    assert "zzz" in tokenizer_for(clean, 200).get_vocab()  # and the training text does
    with pytest.raises(DataError, match="no text"):
        tokenizer_for(clean.select("test"), 200)


def test_a_tokenizer_goes_through_json_and_only_json(tmp_path):
    tokenizer = train_tokenizer(words(), 300)
    tokenizer.save_pretrained(tmp_path)
    assert {p.suffix for p in tmp_path.iterdir()} == {".json"}
    again = load_tokenizer(tmp_path)
    sample = words(20, "abcdefghijklmnopqrstuvwxyz", 9) + ["", "[MASK] Amulet", "«ÉTUDE»"]
    assert again(sample)["input_ids"] == tokenizer(sample)["input_ids"]
    assert again.mask_token_id == 4 and again.pad_token_id == 0
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="tokenizer.json"):
        load_tokenizer(tmp_path, offline=True)
    with pytest.raises(DataError, match="hf download nobody/absent"):
        load_tokenizer("nobody/absent", offline=True)


def test_tokens_follow_their_items_through_a_selection():
    examples = data()
    tokenizer = tokenizer_for(examples, 200)
    tokenise(examples, tokenizer, 16)
    chosen = examples.select("test")
    assert chosen.input_ids.shape == (10, 2, 16)
    alone = tokenise(data().select("test"), tokenizer, 16)
    assert (chosen.input_ids == alone.input_ids).all() and (chosen.attention_mask == alone.attention_mask).all()


def test_empty_and_missing_texts_still_have_two_tokens():
    tokenizer = train_tokenizer(words(), 300)
    examples = tokenise(SimpleNamespace(texts=[["", "ab"], []]), tokenizer, 6)
    assert examples.input_ids[0, 0].tolist() == [2, 3, 0, 0, 0, 0] and examples.attention_mask[1].sum(1).tolist() == [
        2,
        2,
    ]


def test_masking_leaves_the_frame_alone():
    _, ids, keep = batch()
    ids[:, 0] = 2
    ids[torch.arange(6), keep.sum(1) - 1] = 3
    hidden = mask_tokens(ids, keep.long(), probability=1.0, mask_token_id=4, generator=torch.Generator())
    assert (hidden[:, 0] == 2).all() and (hidden[torch.arange(6), keep.sum(1) - 1] == 3).all()
    assert (hidden[~keep] == 0).all() and int((hidden == 4).sum()) == int(keep.sum()) - 12
    assert torch.equal(trim(ids[:3], keep[:3])[0], ids[:3, : int(keep[2].sum())])


# ---- seeds ----


def test_building_a_model_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_model(TINY, num_classes=3, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_the_global_seed_decides_where_no_seed_is_given():
    models = []
    for _ in range(2):
        torch.manual_seed(8)
        models.append(build_model(TINY, num_classes=3))
    assert all(torch.equal(a, b) for a, b in zip(models[0].state_dict().values(), models[1].state_dict().values()))


def test_a_seed_survives_an_error_inside():
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded(1):
        torch.rand(1)
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), state)


def train_steps(seed, steps=3):
    torch.manual_seed(seed)
    model = build_model(TINY, num_classes=3, seed=seed).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        output = model(*batch(seed=step))
        loss = F.cross_entropy(output.logits, torch.arange(6) % 3) + model.head_penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_three_training_steps_are_equal_to_the_last_bit():
    assert torch.equal(train_steps(0), train_steps(0))
    assert not torch.equal(train_steps(0), train_steps(1))


# ---- padding ----


@pytest.mark.parametrize("maps", [True, False])
def test_padding_gets_no_gradient(maps):
    fusion = BidirectionalFusion(hidden_size=32, num_heads=4, seed=0).eval()
    g = torch.Generator().manual_seed(0)
    image, text = torch.randn(6, 16, 32, generator=g), torch.randn(6, 12, 32, generator=g, requires_grad=True)
    keep = batch()[2]
    fusion(image, text, keep, return_maps=maps).fused.square().sum().backward()
    assert text.grad[~keep].abs().max() == 0 and text.grad[keep].abs().min() > 0


@pytest.mark.parametrize("maps", [True, False])
def test_an_item_without_any_word_is_no_nan_and_touches_no_other(maps):
    model = build_model(TINY, num_classes=3, seed=0).eval()
    image, ids, keep = batch()
    empty = keep.clone()
    empty[2] = False
    with torch.no_grad():
        one, two = (model(image, ids, k, return_maps=maps) for k in (keep, empty))
    assert two.logits.isfinite().all() and two.fused.isfinite().all()
    assert torch.allclose(one.logits[[0, 1, 3, 4, 5]], two.logits[[0, 1, 3, 4, 5]], atol=1e-5)
    if maps:
        assert two.image_to_text[2].abs().max() == 0


def test_types_of_ids_and_mask_do_not_matter():
    model = build_model(TINY, num_classes=3, seed=0).eval()
    image, ids, keep = batch()
    with torch.no_grad():
        expected = model(image, ids, keep).logits
        for other in (
            model(image, ids.int(), keep.long()),
            model(image, ids, keep.float()),
            model(image, ids.int(), keep.to(torch.uint8)),
        ):
            assert torch.equal(other.logits, expected)


def test_bfloat16_on_both_paths():
    model = build_model(TINY, num_classes=3, seed=0).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        slow, fast = (model(*batch(), return_maps=maps) for maps in (True, False))
    exact = model(*batch()).logits
    assert torch.allclose(slow.logits.float(), exact, atol=0.05) and torch.allclose(
        fast.logits.float(), exact, atol=0.05
    )
    assert slow.image_to_text.masked_select(~batch()[2][:, None, None]).abs().max() == 0


# ---- variants, settings, files ----


@pytest.mark.parametrize("variant", TRAINABLE)
def test_every_variant_learns_saves_and_reloads(variant, tmp_path):
    model = build_model(TINY, variant, num_classes=3, seed=0).train()
    output = model(*batch())
    (
        F.cross_entropy(output.logits, torch.arange(6) % 3)
        + sum(a.sum() for a in (output.auxiliary_logits or {}).values())
    ).backward()
    assert all(p.grad is not None for p in model.parameters())
    file = save_weights(model.eval(), tmp_path / "deep" / "model.safetensors")
    again = load_weights(build_model(TINY, variant, num_classes=3, seed=1), file)
    assert torch.equal(again(*batch()).logits, model(*batch()).logits) and not again.training
    assert math.isclose(F.cross_entropy(model(*batch()).logits, torch.arange(6) % 3).item(), math.log(3), abs_tol=0.3)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in TRAINABLE])
def test_variants_with_a_gan_are_built(variant):
    assert build_model(TINY, variant, num_classes=3, seed=0).eval()(*batch()).logits.shape == (6, 3)


@pytest.mark.parametrize("section", ["vision", "text", "fusion", "model"])
def test_unknown_settings_are_refused(section):
    broken = replace(TINY, **{section: getattr(TINY, section) | {"depht": 3}})
    with pytest.raises(ValueError, match=f"no setting of '{section}' is called 'depht'"):
        build_model(broken, num_classes=3)


@pytest.mark.parametrize(
    "section, change, message",
    [
        ("vision", {"patch_size": 7}, "not a multiple of patch_size"),
        ("vision", {"num_heads": 5}, "not a multiple of num_heads"),
        ("vision", {"stem": "deep"}, "stem is one of"),
        ("text", {"num_heads": 5}, "not a multiple of num_heads"),
        ("fusion", {"num_heads": 5}, "not a multiple of num_heads"),
    ],
)
def test_settings_that_do_not_fit_are_refused(section, change, message):
    with pytest.raises(ValueError, match=message):
        build_model(replace(TINY, **{section: getattr(TINY, section) | change}), num_classes=3)


def test_weights_that_are_absent_or_of_another_model(tmp_path):
    with pytest.raises(DataError, match="train the model again"):
        load_weights(build_model(TINY, num_classes=3), tmp_path / "absent.safetensors")
    file = save_weights(build_model(TINY, num_classes=3), tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="another model"):
        load_weights(build_model(TINY, num_classes=4), file)


def test_every_profile_builds():
    for name in ("smoke", "mini"):
        settings = profile(name)
        for variant in TRAINABLE:
            model = build_model(settings, variant, num_classes=10, seed=0).eval()
            size, length = settings.vision["image_size"], settings.text["max_length"]
            out = model(torch.zeros(2, 3, size, size), torch.full((2, length), 7), torch.ones(2, length))
            assert out.logits.shape == (2, 10)


# ---- checkpoints ----


@pytest.fixture
def checkpoints(tmp_path):
    "A ViT and a BERT as the hub holds them: whole models with heads, in the real format."
    with seeded(0):
        ViTForImageClassification(
            ViTConfig(
                image_size=32,
                patch_size=8,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                num_labels=7,
            )
        ).save_pretrained(tmp_path / "vit")
        BertForMaskedLM(
            BertConfig(
                vocab_size=90,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=20,
            )
        ).save_pretrained(tmp_path / "bert")
    train_tokenizer(words(), 90).save_pretrained(tmp_path / "bert")
    return tmp_path


def from_checkpoints(folder, **vision):
    return replace(
        TINY,
        vision=TINY.vision | dict(checkpoint=str(folder / "vit"), stem="linear", position="learned") | vision,
        text=TINY.text | dict(checkpoint=str(folder / "bert")),
    )


def test_a_model_from_checkpoints_computes_what_the_library_computes(checkpoints):
    model = build_model(from_checkpoints(checkpoints), num_classes=3, seed=0).eval()
    image, ids, keep = batch()
    with torch.no_grad():
        vit = ViTModel.from_pretrained(checkpoints / "vit").eval()(image).last_hidden_state[:, 1:]
        bert = BertModel.from_pretrained(checkpoints / "bert").eval()(ids, keep).last_hidden_state
        out = model(image, ids, keep)
    assert torch.allclose(out.image_features, vit.mean(1), atol=1e-5)
    assert torch.allclose(out.text_features[1], bert[1][keep[1]].mean(0), atol=1e-5)
    assert len(tokenizer_for(None, checkpoint=str(checkpoints / "bert"))) <= 90


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(hidden_size=64), "hidden_size is 32 in the checkpoint and 64 in the settings"),
        (dict(num_layers=3), "num_hidden_layers is 2"),
    ],
)
def test_a_checkpoint_of_other_sizes_is_refused(checkpoints, change, message):
    with pytest.raises(DataError, match=message):
        build_model(from_checkpoints(checkpoints, **change), num_classes=3)


def test_options_that_a_checkpoint_cannot_have_are_refused(checkpoints):
    for change in (dict(stem="conv"), dict(position="sincos"), dict(norm="post"), dict(cls=False)):
        with pytest.raises(ValueError, match="does not go with a checkpoint"):
            VisionEncoder(
                **{k: v for k, v in TINY.vision.items() if k not in ("stem", "position", "checkpoint")} | change,
                checkpoint=str(checkpoints / "vit"),
            )


def test_a_checkpoint_that_lacks_weights_is_refused(checkpoints):
    file = checkpoints / "vit" / "model.safetensors"
    weights = load_file(file)
    save_file(
        {k: v for k, v in weights.items() if "layers.1." not in k and "layer.1." not in k},
        file,
        metadata={"format": "pt"},
    )
    with pytest.raises(DataError, match="16 weights are absent"):
        load_checkpoint(ViTModel, str(checkpoints / "vit"))


def test_a_checkpoint_of_something_else_is_refused(checkpoints):
    with pytest.raises(DataError, match="take a checkpoint of a ViTModel"):
        load_checkpoint(ViTModel, str(checkpoints / "bert"))


def test_pickled_weights_are_not_read(checkpoints):
    file = checkpoints / "vit" / "model.safetensors"
    torch.save(load_file(file), checkpoints / "vit" / "pytorch_model.bin")
    file.unlink()
    with pytest.raises(DataError, match="pytorch_model.bin, and only model.safetensors"):
        load_checkpoint(ViTModel, str(checkpoints / "vit"))


def test_a_truncated_checkpoint_is_refused(checkpoints):
    file = checkpoints / "vit" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DataError, match="no usable ViTModel checkpoint"):
        load_checkpoint(ViTModel, str(checkpoints / "vit"))


def test_offline_the_error_names_checkpoint_cache_and_download():
    with pytest.raises(DataError) as caught:
        load_checkpoint(BertModel, "nobody/absent", offline=True)
    for part in ("nobody/absent", "hf download nobody/absent", "cache", "from scratch"):
        assert part in str(caught.value)


# ---- sizes of the paper ----


def test_the_paper_profile_is_table_2():
    settings = profile("paper", {"vision": {"checkpoint": None}, "text": {"checkpoint": None}})
    with torch.device("meta"):
        model = build_model(settings, num_classes=6)
    vit, bert = model.vision.transformer.config, model.text.transformer.config
    assert (vit.image_size, vit.patch_size, vit.hidden_size, vit.num_hidden_layers, vit.num_attention_heads) == (
        224,
        16,
        768,
        12,
        12,
    )
    assert (settings.text["max_length"], bert.hidden_size, bert.num_hidden_layers) == (128, 768, 12)
    assert sum(p.numel() for p in model.vision.parameters()) == 85_798_656


def test_pixels_of_a_checkpoint_with_its_own_mean():
    pixels = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    out = to_pixel_values(pixels, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert torch.allclose(
        out[0, :, 0, 0], torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    )
    assert (
        out.is_contiguous(memory_format=torch.channels_last) and out.dtype == torch.float32
    )  # no copy, and the faster order


def test_encoders_of_two_widths_are_brought_to_one():
    model = build_model(replace(TINY, text=TINY.text | {"hidden_size": 64}), num_classes=3, seed=0).eval()
    assert list(model.projection) == ["text"] and model(*batch()).fused.shape == (6, 32)


@pytest.mark.slow
def test_one_step_of_the_exact_table_2_model(tmp_path):
    "ViT-Base and BERT-Base in the real format, loaded by folder, and one training step with the printed batch of 32."
    from vbg.core.chance import seed_everything
    from vbg.train.fit import training_loss

    sizes = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ViTModel(ViTConfig(**sizes, image_size=224, patch_size=16), add_pooling_layer=False).save_pretrained(
            tmp_path / "vit"
        )
        BertModel(BertConfig(**sizes), add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    settings = profile(
        "paper", {"vision": {"checkpoint": str(tmp_path / "vit")}, "text": {"checkpoint": str(tmp_path / "bert")}}
    )
    seed_everything(0, threads=0)
    model = build_model(settings, num_classes=6, vocab_size=30522).train()
    vit = (
        3 * 16**2 * 768
        + 768
        + 197 * 768
        + 768
        + 12 * (4 * (768**2 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768)
        + 2 * 768
    )
    bert = (
        (30522 + 2 + 512) * 768 + 2 * 768 + 12 * (4 * (768**2 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768)
    )  # 512 places, 128 used
    assert (
        sum(p.numel() for p in model.parameters()) == vit + bert + 10 * 768**2 + 13 * 768 + 6 * 768 + 6 == 200_603_142
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    generator, label = torch.Generator().manual_seed(1), torch.arange(32) % 6
    pixels, ids = (
        torch.randn(32, 3, 224, 224, generator=generator),
        torch.randint(1000, 30522, (32, 128), generator=generator),
    )
    keep = torch.arange(128) < torch.randint(8, 129, (32, 1), generator=generator)
    before = [
        p.detach().clone() for p in (model.vision.transformer.layers[0].attention.q_proj.weight, model.head[-1].weight)
    ]
    loss = training_loss(model(pixels, ids, keep), label) + model.head_penalty()
    loss.backward()
    assert math.isclose(loss.item(), math.log(6), abs_tol=0.5)
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    optimizer.step()
    after = (model.vision.transformer.layers[0].attention.q_proj.weight, model.head[-1].weight)
    assert all(not torch.equal(a, b) for a, b in zip(before, after)) and all(torch.isfinite(p).all() for p in after)
