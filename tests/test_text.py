"""Text encoders and tokenizers of every family, in the format in which the hub holds them."""

import json
import sys
import unicodedata

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, trainers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertTokenizer,
    GPT2Config,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaTokenizer,
    XLMRobertaConfig,
    XLMRobertaTokenizer,
)

from vbg.core.chance import seeded
from vbg.core.files import DataError
from vbg.data.store import ExampleData
from vbg.models.text import (
    TEXT_FAMILIES,
    TextEncoder,
    load_tokenizer,
    mask_tokens,
    misread,
    text_family,
    tokenise,
    train_tokenizer,
    trim,
)
from vbg.models.vbg import last_parts
from vbg.models.vision import blocks_of

TEXTS = [
    "A bronze vessel with a taotie mask.",
    "Blue and white porcelain dish, lotus scroll.",
    "Vessel of crackled porcelain, Ru kiln.",
    "A bronze mirror with a lotus scroll, found in a tomb.",
] * 5
OPEN = dict(hidden_size=None, num_layers=None, num_heads=None, intermediate_size=None)
LONG = "Vessel of porcelain, crackled, with a lotus scroll and a mirror, found in a tomb"
LENGTH = 16  # texts of the tests; every model has exactly so many positions


def word_piece(folder):
    "vocab.txt and all, as a BERT checkpoint has it."
    vocabulary = train_tokenizer(TEXTS, 160).get_vocab()
    DistilBertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return len(vocabulary)


def byte_level_bpe(folder):
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        TEXTS, vocab_size=300, min_frequency=1, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    )
    trained.save_model(str(folder))
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text().splitlines()[1:]]
    RobertaTokenizer(vocab=json.loads((folder / "vocab.json").read_text()), merges=merges).save_pretrained(folder)
    return trained.get_vocab_size()


def unigram(folder):
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(vocab_size=80, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>"),
    )
    vocabulary = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["vocab"]] + [("<mask>", 0.0)]
    XLMRobertaTokenizer(vocab=vocabulary).save_pretrained(folder)
    return len(vocabulary)


def config_of(name, words):
    sizes = dict(
        vocab_size=words + 3,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.2,
    )
    if name == "distilbert":
        return DistilBertConfig(
            vocab_size=words + 3,
            max_position_embeddings=LENGTH,
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=64,
            initializer_range=0.2,
        )
    if name == "bert":
        return BertConfig(**sizes, max_position_embeddings=LENGTH)
    kind = RobertaConfig if name == "roberta" else XLMRobertaConfig
    return kind(
        **sizes, max_position_embeddings=LENGTH + 2, pad_token_id=1, bos_token_id=0, eos_token_id=2, type_vocab_size=1
    )


@pytest.fixture(scope="module", params=list(TEXT_FAMILIES))
def checkpoint(request, tmp_path_factory):
    "Family name and folder: a whole masked language model and its tokenizer."
    folder = tmp_path_factory.mktemp(request.param)
    words = dict(roberta=byte_level_bpe, **{"xlm-roberta": unigram}).get(request.param, word_piece)(folder)
    with seeded(0):
        AutoModelForMaskedLM.from_config(config_of(request.param, words)).save_pretrained(folder)
    return request.param, folder


def tokens(folder, length=LENGTH, texts=(["a bronze mask"], [LONG, "a lotus"], [""])):
    n = len(texts)
    data = ExampleData(
        pixels=np.zeros((n, 4, 4, 3), np.uint8),
        label=np.zeros(n, np.int64),
        ids=np.arange(n).astype(str),
        texts=list(texts),
        class_names=["a"],
        split=np.array(["train"] * n),
    )
    return tokenise(data, load_tokenizer(folder), length)


def rows(data, k=0):
    return torch.from_numpy(data.input_ids[:, k]), torch.from_numpy(data.attention_mask[:, k])


def encoder(folder, **change):
    return TextEncoder(
        **dict(vocab_size=len(load_tokenizer(folder)), max_length=LENGTH, **OPEN, checkpoint=str(folder)) | change
    ).eval()


# ---- tokenizers ----


def test_tokens_of_a_text_are_framed_and_padded_as_the_family_does_it(checkpoint):
    name, folder = checkpoint
    tokenizer, data = load_tokenizer(folder), tokens(folder)
    first, last, pad = (0, 2, 1) if "roberta" in name else (2, 3, 0)
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id is None) == (pad, False)
    assert data.input_ids.shape == data.attention_mask.shape == (3, 2, LENGTH)
    for ids, keep in zip(data.input_ids.reshape(-1, LENGTH), data.attention_mask.reshape(-1, LENGTH)):
        assert ids[0] == first and ids[keep][-1] == last and (ids[~keep] == pad).all() and (ids[keep] != pad).all()
        assert (np.diff(keep.astype(int)) <= 0).all()  # padding at the end
    assert data.input_ids[2, 0][data.attention_mask[2, 0]].tolist() == [first, last]  # an empty text
    assert data.attention_mask[1, 0].all()  # a long text is cut, at its end
    whole = tokenizer(LONG)["input_ids"]
    assert len(whole) > LENGTH and data.input_ids[1, 0].tolist() == [*whole[: LENGTH - 1], last]
    words = tokenizer.decode(data.input_ids[0, 0][data.attention_mask[0, 0]], skip_special_tokens=True)
    assert words.strip() == "a bronze mask"


def test_a_tokenizer_that_cuts_and_pads_on_the_left_does_so_on_the_right_here(checkpoint, tmp_path):
    name, folder = checkpoint
    load_tokenizer(folder).save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(truncation_side="left", padding_side="left")))
    assert load_tokenizer(tmp_path).truncation_side == load_tokenizer(tmp_path).padding_side == "left"
    assert (tokens(tmp_path).input_ids == tokens(folder).input_ids).all() and (
        tokens(tmp_path).attention_mask == tokens(folder).attention_mask
    ).all()


def test_only_words_are_hidden(checkpoint):
    name, folder = checkpoint
    tokenizer = load_tokenizer(folder)
    for k in (0, 1):
        ids, keep = rows(tokens(folder), k)
        hidden = mask_tokens(
            ids, keep, probability=1.0, mask_token_id=tokenizer.mask_token_id, generator=torch.Generator()
        )
        special = torch.isin(
            ids, torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id])
        )
        assert torch.equal(hidden == tokenizer.mask_token_id, ~special) and torch.equal(hidden[special], ids[special])


def test_a_tokenizer_without_padding_or_mask_is_named(tmp_path):
    bare = Tokenizer(models.WordPiece({"[UNK]": 0, "bronze": 1, "mask": 2}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="[UNK]").save_pretrained(tmp_path)
    with pytest.raises(DataError, match="no padding token"):
        tokens(tmp_path)
    with pytest.raises(DataError, match="no mask token"):
        mask_tokens(
            torch.ones(2, 4, dtype=torch.long),
            torch.ones(2, 4),
            probability=0.1,
            mask_token_id=load_tokenizer(tmp_path).mask_token_id,
            generator=torch.Generator(),
        )


def test_a_config_without_vocabulary_is_no_tokenizer(checkpoint, tmp_path):
    name, folder = checkpoint
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(DataError, match="no words|no tokenizer"):
        load_tokenizer(tmp_path)


def test_a_learnt_tokenizer_beside_a_model_is_read_as_it_was_learnt(tmp_path):
    learnt = train_tokenizer(TEXTS, 90)
    learnt.save_pretrained(tmp_path)
    config_of("bert", 90).save_pretrained(tmp_path)
    for text in ("A BRONZE mask", "étude, Ölbild", "[MASK] scroll", ""):
        assert load_tokenizer(tmp_path)(text)["input_ids"] == learnt(text)["input_ids"]


# ---- encoders ----


def test_tokens_are_those_of_the_model_itself(checkpoint):
    name, folder = checkpoint
    ids, keep = rows(tokens(folder))
    own = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        expected, found = own(ids.long(), attention_mask=keep.long()).last_hidden_state, encoder(folder)(ids, keep)
    assert text_family(str(folder)) == name and encoder(folder).hidden_size == 32 == found.shape[-1]
    assert torch.allclose(found[keep], expected[keep], atol=1e-5)
    assert found.std() > 0.1


def test_the_last_block_of_every_family_can_be_found(checkpoint):
    name, folder = checkpoint
    own = encoder(folder)
    assert len(blocks_of(own.transformer)) == 2
    learnt = {id(p) for part in last_parts(own, 1) for p in part.parameters()}
    names = {n for n, p in own.named_parameters() if id(p) in learnt}
    assert names == {n for n, _ in own.named_parameters() if ".layer.1." in n or ".layers.1." in n} and names


def test_padding_reaches_no_word(checkpoint):
    name, folder = checkpoint
    model, (ids, keep) = encoder(folder), rows(tokens(folder))
    with torch.no_grad():
        whole = model(ids, keep)
        short, mask = trim(ids[[0, 2]], keep[[0, 2]])
        assert short.shape[1] < LENGTH
        trimmed = model(short, mask)
        alone = model(ids[:1, : int(keep[0].sum())])
    assert torch.allclose(trimmed[mask], whole[[0, 2]][:, : short.shape[1]][mask], atol=1e-5)
    assert torch.allclose(alone[0], whole[0][keep[0]], atol=1e-5)


def test_sizes_that_differ_are_refused_under_the_names_of_the_family(checkpoint):
    name, folder = checkpoint
    distil = name == "distilbert"
    for setting, theirs, value in (
        ("hidden_size", "dim" if distil else "hidden_size", 64),
        ("num_layers", "n_layers" if distil else "num_hidden_layers", 3),
        ("num_heads", "n_heads" if distil else "num_attention_heads", 8),
        ("intermediate_size", "hidden_dim" if distil else "intermediate_size", 32),
        ("activation", "activation" if distil else "hidden_act", "relu"),
    ):
        with pytest.raises(DataError, match=f"^.*: {theirs} is .* in the checkpoint and {value} in the settings"):
            encoder(folder, **{setting: value})
    assert encoder(folder, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=64).hidden_size == 32


def test_every_position_can_be_used_and_not_one_more(checkpoint):
    name, folder = checkpoint
    ids, keep = rows(tokens(folder))
    assert keep[1].all() and torch.isfinite(encoder(folder, max_length=None)(ids, keep)).all()
    with pytest.raises(
        DataError, match=f"it has {LENGTH} positions, fewer than max_length {LENGTH + 1}. Remedy: lower max_length"
    ):
        encoder(folder, max_length=LENGTH + 1)


def test_the_vocabulary_must_hold_the_tokenizer(checkpoint):
    name, folder = checkpoint
    words = len(load_tokenizer(folder))
    assert encoder(folder, vocab_size=words + 3).transformer.config.vocab_size == words + 3
    encoder(folder, vocab_size=None)
    with pytest.raises(DataError, match=f"knows {words + 3} words and the tokenizer {words + 4}"):
        encoder(folder, vocab_size=words + 4)


def test_missing_weights_are_refused(checkpoint, tmp_path):
    name, folder = checkpoint
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    left = {key: value.clone() for key, value in weights.items() if "layer.1." not in key and "layers.1." not in key}
    assert len(left) == len(weights) - 16
    save_file(left, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="16 weights are absent"):
        plain(tmp_path)


def test_the_same_checkpoint_gives_the_same_bits(checkpoint):
    name, folder = checkpoint
    ids, keep = rows(tokens(folder))
    torch.manual_seed(1)
    first = encoder(folder)(ids, keep)
    torch.manual_seed(2)
    assert torch.equal(encoder(folder)(ids, keep), first)


def test_a_checkpoint_in_half_precision_computes_in_single(checkpoint, tmp_path):
    name, folder = checkpoint
    AutoModel.from_pretrained(folder).half().save_pretrained(tmp_path)
    assert {
        p.dtype for p in TextEncoder(vocab_size=None, max_length=None, **OPEN, checkpoint=str(tmp_path)).parameters()
    } == {torch.float32}


def test_work_is_half_of_what_the_profiler_counts(checkpoint):
    name, folder = checkpoint
    model = encoder(folder)
    for length in (3, LENGTH):
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            model(torch.full((1, length), 5))
        by_hand = 2 * (4 * length * 32**2 + 2 * length * 32 * 64 + 2 * length**2 * 32)
        assert counter.get_total_flops() == 2 * by_hand


# ---- what is refused ----


def test_another_kind_of_model_is_refused_by_name(tmp_path):
    GPT2Config(n_embd=32, n_layer=1, n_head=4).save_pretrained(tmp_path)
    known = "bert, distilbert, roberta, xlm-roberta"
    with pytest.raises(
        DataError, match=f"'gpt2', which is no text encoder known here. Remedy: take a checkpoint of {known}"
    ):
        TextEncoder(vocab_size=9, **OPEN, checkpoint=str(tmp_path))
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(DataError, match="model_type is None"):
        text_family(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="no config.json"):
        text_family(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(DataError, match="no config.json"):
        text_family(str(tmp_path))


def test_offline_the_error_names_checkpoint_cache_and_command():
    for read in (
        lambda: TextEncoder(vocab_size=9, checkpoint="nobody/absent"),
        lambda: load_tokenizer("nobody/absent", offline=True),
    ):
        with pytest.raises(DataError) as caught:
            read()
        for part in ("nobody/absent", "hf download nobody/absent", "hub"):
            assert part in str(caught.value)


def test_from_scratch_every_size_is_needed():
    with pytest.raises(ValueError, match="num_layers, max_length: without a checkpoint"):
        TextEncoder(vocab_size=9, num_layers=None, max_length=None)
    with pytest.raises(ValueError, match="33 is not a multiple of num_heads 4"):
        TextEncoder(vocab_size=9, hidden_size=33)


PAIRS = [
    ("ガラス", "カラス"),  # glass, crow
    ("はち", "ばち"),
    ("เสื้อ", "เสือ"),  # shirt, tiger
    ("मिट्टी", "मिटटी"),
    ("बेल", "बैल"),
    ("ໝາ", "ໝ່າ"),
    ("ma", "má"),
    ("кой", "кои"),
    ("בַּת", "בת"),
]


@pytest.mark.parametrize("one, other", PAIRS)
def test_marks_that_tell_words_apart_are_kept(one, other):
    learnt = train_tokenizer([word for pair in PAIRS for word in pair] * 6, 2000)
    assert learnt(one)["input_ids"] != learnt(other)["input_ids"]


@pytest.mark.parametrize("word", ["ガラス", "café", "เสื้อ", "한국"])
def test_both_unicode_forms_of_a_word_are_one(word):
    learnt = train_tokenizer([unicodedata.normalize("NFC", word)] * 6, 200)
    forms = [learnt(unicodedata.normalize(form, word))["input_ids"] for form in ("NFC", "NFD")]
    assert forms[0] == forms[1] and 1 not in forms[0]


def test_a_long_text_without_blanks_is_not_one_unknown_word():
    learnt = train_tokenizer(["เสื้อผ้าไหมไทยลายดอกไม้" * 8] * 6, 400)
    assert 1 not in learnt("เสื้อผ้าไหมไทยลายดอกไม้" * 8)["input_ids"]


def bert(folder, words=("bowl", "coin"), **more):
    "A small BERT with vocab.txt alone."
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), *words]
    model = BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **SMALL), add_pooling_layer=False)
    model.save_pretrained(folder, **more)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return model


SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)


def plain(folder):
    return TextEncoder(vocab_size=None, max_length=32, activation=None, checkpoint=str(folder), **OPEN)


def japanese(folder, splitter="basic", pieces="character", **more):
    "A small BERT as those for Japanese are stored: vocab.txt, and a tokenizer of the library's own class."
    bert(folder, ["茶", "碗", "青", "花", "##花", "の", "青花"])
    how = dict(tokenizer_class="BertJapaneseTokenizer", word_tokenizer_type=splitter, subword_tokenizer_type=pieces)
    (folder / "tokenizer_config.json").write_text(json.dumps(how | more))


@pytest.mark.parametrize("pieces, read", [("character", list("青花の茶碗")), ("wordpiece", ["青花", "の", "茶", "碗"])])
def test_a_japanese_bert_is_read_with_its_own_tokenizer(tmp_path, pieces, read):
    japanese(tmp_path, pieces=pieces)
    tokenizer, texts = load_tokenizer(tmp_path), [["青花 の 茶 碗" if pieces == "wordpiece" else "青花の茶碗"], ["茶"]]
    data = tokens(tmp_path, 12, texts)
    ids, keep = rows(data)
    assert tokenizer.convert_ids_to_tokens(ids[0][keep[0]].tolist()) == ["[CLS]", *read, "[SEP]"]
    assert ids[1][keep[1]].tolist() == [2, tokenizer.convert_tokens_to_ids("茶"), 3] and not ids[~keep].any()
    assert misread([text for (text,) in texts], tokenizer, "japanese") == ""
    with torch.no_grad():
        found = plain(tmp_path).eval()(ids, keep)
        alone = plain(tmp_path).eval()(ids[1:, :3])
    assert torch.allclose(found[1, :3], alone[0], atol=1e-5) and found.shape == (2, 12, 16)


def test_texts_that_a_japanese_bert_does_not_know_are_told_with_their_share(tmp_path):
    japanese(tmp_path)
    said = misread(["青花の皿", "茶碗"], load_tokenizer(tmp_path), "japanese")
    assert "17 % of the pieces of words (17 % of the characters) are unknown to its tokenizer. Remedy: take" in said


@pytest.mark.parametrize(
    "splitter, module, command",
    [
        ("mecab", "fugashi", "pip install fugashi unidic-lite ipadic"),
        ("sudachi", "sudachipy", "pip install sudachipy sudachidict-core"),
        ("jumanpp", "rhoknp", "pip install rhoknp"),
    ],
)
def test_what_a_japanese_tokenizer_lacks_is_named_with_the_command_that_brings_it(
    tmp_path, monkeypatch, splitter, module, command
):
    monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
    japanese(tmp_path, splitter)
    with pytest.raises(DataError, match=f"no tokenizer could be read here.*Remedy: run `{command}`, or take a check"):
        load_tokenizer(tmp_path)


SCRIPTS = ["青花の茶碗 蓮文", "مزهرية من الخزف", "ваза с цветами", "ชามเคลือบ ลายบัว", "a bowl with a lotus"]


def multilingual(folder):
    "A small XLM-R with words and letters of several scripts."
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    words = sorted({"▁" + word for text in SCRIPTS for word in text.split()})
    letters = sorted({letter for text in SCRIPTS for letter in text if letter.strip()})
    vocabulary = [*special, *((word, -2.0) for word in words), *((letter, -9.0) for letter in letters), ("<mask>", 0.0)]
    XLMRobertaTokenizer(vocab=vocabulary).save_pretrained(folder)
    with seeded(0):
        AutoModelForMaskedLM.from_config(config_of("xlm-roberta", len(vocabulary))).save_pretrained(folder)


def test_a_multilingual_checkpoint_reads_every_script_that_it_knows_and_tells_of_others(tmp_path):
    multilingual(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert misread(SCRIPTS, tokenizer, "many") == ""
    assert "% of the characters) are unknown" in misread(["κύπελλο με λωτό"], tokenizer, "many")
    data = tokens(tmp_path, texts=[[text] for text in SCRIPTS])
    ids, keep = rows(data)
    assert tokenizer.unk_token_id not in ids[keep] and len({tuple(row) for row in ids.tolist()}) == len(SCRIPTS)
    with torch.no_grad():
        found = encoder(tmp_path)(ids, keep)
    assert torch.isfinite(found[keep]).all() and found.shape == (len(SCRIPTS), LENGTH, 32)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 300\n"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "vocab.txt", "tokenizer.json"])
def test_a_pointer_in_place_of_a_file_is_named(tmp_path, file):
    bert(tmp_path)
    (tmp_path / file).write_text(POINTER)
    for read in (plain, load_tokenizer):
        with pytest.raises(DataError, match=f"{file}: file is a Git LFS pointer.*Remedy: run `git lfs pull`"):
            read(tmp_path)


def test_a_pointer_in_place_of_a_shard_is_named(tmp_path):
    bert(tmp_path, max_shard_size="5KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.write_text(POINTER)
    with pytest.raises(DataError, match=f"{shard.name}: file is a Git LFS pointer"):
        plain(tmp_path)


def test_shards_are_read(tmp_path):
    model = bert(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert all(torch.equal(v, plain(tmp_path).transformer.state_dict()[k]) for k, v in model.state_dict().items())


def test_gamma_and_beta_of_old_checkpoints_are_read(tmp_path):
    bert(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v + 1
        for k, v in weights.items()
    }
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    read = plain(tmp_path).transformer.state_dict()
    assert all(torch.equal(read[k], v + 1) for k, v in weights.items())


def test_vocab_txt_alone_is_a_tokenizer(tmp_path):
    bert(tmp_path)
    assert load_tokenizer(tmp_path).tokenize("bowl coin") == ["bowl", "coin"]


def test_weights_that_only_torch_reads_are_refused_with_the_command_that_turns_them(tmp_path):
    model = bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match="pytorch_model.bin, and only model.safetensors.*Remedy: .*save_pretrained"):
        plain(tmp_path)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    torch.save({}, tmp_path / "bert.pt")
    with pytest.raises(DataError, match="bert.pt: this is a file, not the folder of a checkpoint"):
        plain(tmp_path / "bert.pt")


@pytest.mark.parametrize("text", ["青花瓷の茶碗", "ชามเคลือบ", "مزهرية من الخزف", "ваза с цветами"])
def test_texts_of_another_script_are_told(tmp_path, text):
    bert(tmp_path)
    assert "100 % of the characters) are unknown" in misread([text], load_tokenizer(tmp_path), "english")


def test_words_spelled_letter_by_letter_are_told(tmp_path):
    letters = [*"вазсцетмиаo"]
    bert(tmp_path, [*letters, *("##" + c for c in letters)])
    assert "are spelled as single letters" in misread(["ваза с цветами"], load_tokenizer(tmp_path), "english")


def test_marks_that_a_tokenizer_strips_are_told(tmp_path):
    bert(tmp_path, ["カ", "##ラ", "##ス", "カラス"])
    lower = BertTokenizer.from_pretrained(tmp_path, do_lower_case=True)
    assert "strips marks that tell words apart, such as that of 'ガ'" in misread(["ガラス"], lower, "uncased")


def test_texts_that_the_tokenizer_knows_are_passed_over():
    assert misread(TEXTS, train_tokenizer(TEXTS, 300), "own") == ""
