"""The category-attribute table and the texts that cannot leave it."""

import numpy as np
import pytest
import torch

from vbg.core.files import DataError
from vbg.data.store import ExampleData
from vbg.gan.attributes import AttributeTable, has_letter, learn_table, split_words
from vbg.gan.text import TextGenerator, fit_text_generator, generate_texts, load_text_generator, save_text_generator
from vbg.models.text import tokenise, train_tokenizer

NOUNS = [["cup", "bowl", "vase"], ["horse", "camel", "crane"], ["mirror", "bell", "sword"]]


def catalogue(n, split, seed):
    "Three classes with nouns of their own; '14th' begins like the number 14."
    rng = np.random.default_rng(seed)
    label, noun, colour, year = (
        rng.integers(3, size=n),
        rng.integers(3, size=n),
        rng.integers(4, size=n),
        rng.integers(10, 20, size=n),
    )
    texts = [
        [
            f"A {('blue', 'green', 'white', 'black')[c]} {NOUNS[k][j]}, {y}th century.",
            f"{NOUNS[k][j]} (H. {y}.5 cm); rim chipped",
        ]
        for k, j, c, y in zip(label, noun, colour, year)
    ]
    return ExampleData(
        pixels=np.zeros((n, 1, 1, 3), np.uint8),
        label=label,
        ids=np.array([f"{split}-{i}" for i in range(n)], object),
        texts=texts,
        split=np.array([split] * n, object),
        class_names=["vessel", "animal", "bronze"],
    )


@pytest.fixture(scope="module")
def study():
    train, validation = catalogue(150, "train", 0), catalogue(40, "validation", 1)
    scraps = [" ".join(text[i : i + 3] for i in range(0, len(text), 3)) for texts in train.texts for text in texts]
    tokenizer, table = train_tokenizer(scraps, 220), learn_table(train, minimum=3)  # words of several pieces
    for data in (train, validation):
        tokenise(data, tokenizer, 40)
    assert max(len(tokenizer.tokenize(word)) for word in table.words) > 2
    fit = fit_text_generator(
        train=train,
        validation=validation,
        table=table,
        tokenizer=tokenizer,
        settings=dict(epochs=50, hidden_size=48),
        seed=0,
    )
    untrained = TextGenerator(vocab_size=len(tokenizer), num_rows=3, num_words=len(table.words), hidden_size=48, seed=1)
    return dict(
        train=train, validation=validation, tokenizer=tokenizer, table=table, trained=fit.generator, untrained=untrained
    )


@pytest.mark.parametrize("which", ["untrained", "trained"])
def test_ten_thousand_texts_lie_inside_the_table(study, which):
    table, tokenizer, rows = study["table"], study["tokenizer"], np.arange(10_000) % 3
    allowed = [set() for _ in table.rows]  # found anew, not read from the table
    for row, texts in zip(study["train"].label, study["train"].texts):
        allowed[row].update(word for text in texts for word in split_words(text))
    texts = generate_texts(study[which], table, tokenizer, rows, max_length=24, seed=0)
    assert [t for r, t in zip(rows, texts) if {w for w in split_words(t) if has_letter(w)} - allowed[r]] == []
    assert [t for r, t in zip(rows, texts) if table.outside(r, t)] == []
    assert (
        sum(bool(table.outside((r + 1) % 3, t)) for r, t in zip(rows, texts)) > 2500
    )  # the check can fail: it does under the wrong row
    ids = tokenizer(texts)["input_ids"]
    assert all(texts) and max(map(len, ids)) <= 24 and not any({0, 1, 4} & set(one) for one in ids)
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == texts


def test_a_planted_item_is_refused_by_name(study):
    planted = study["train"].take(np.arange(20))
    planted.split, planted.ids = planted.split.copy(), planted.ids.copy()
    planted.split[7], planted.ids[7] = "test", "planted"
    liar = planted.take(np.arange(20))
    liar.split = np.array(["train"] * 20, object)
    rest = dict(validation=study["validation"], table=study["table"], tokenizer=study["tokenizer"], settings={}, seed=0)
    for given in (dict(train=planted), dict(train=liar, whole=planted)):
        with pytest.raises(
            DataError, match="the category-attribute table may see the training split only: item 'planted'"
        ):
            learn_table(**{"train": given["train"], "whole": given.get("whole")})
        with pytest.raises(DataError, match="the text generator may see the training split only: item 'planted'"):
            fit_text_generator(**given, **rest)


def test_asked_words_stand_or_are_refused(study):
    table, rows = study["table"], np.zeros(200, int)
    asked = np.zeros((200, len(table.words)))
    asked[:, table.words.index("bowl")] = 1
    texts = generate_texts(study["trained"], table, study["tokenizer"], rows, asked=asked, max_length=40, seed=0)
    free = generate_texts(study["trained"], table, study["tokenizer"], rows, max_length=40, seed=0)
    assert sum("bowl" in split_words(t) for t in texts) > 190 > 2 * sum("bowl" in split_words(t) for t in free)
    asked[5, table.words.index("camel")] = 1
    with pytest.raises(DataError, match="category 'vessel' has no attribute 'camel'"):
        generate_texts(study["trained"], table, study["tokenizer"], rows, asked=asked, max_length=40, seed=0)


def test_texts_depend_on_the_seed_and_on_nothing_else(study, tmp_path):
    def write(seed, generator=study["trained"]):
        torch.rand(3)  # the global generator has no say
        return generate_texts(
            generator, study["table"], study["tokenizer"], np.arange(60) % 3, max_length=40, seed=seed
        )

    assert write(0) == write(0) != write(1)
    assert write(0, load_text_generator(save_text_generator(study["trained"], tmp_path))) == write(0)


def test_a_row_that_cannot_be_written_is_an_error(study):
    empty = AttributeTable(class_names=["vessel"], rows=[(0, "")], words=["cup"], seen=[[]], counts=np.array([1]))
    net = TextGenerator(vocab_size=len(study["tokenizer"]), num_rows=1, num_words=1, seed=0)
    with pytest.raises(DataError, match="category 'vessel' has no word to write with"):
        generate_texts(net, empty, study["tokenizer"], np.zeros(2, int), max_length=10, seed=0)
    joined = AttributeTable(
        class_names=["vessel"], rows=[(0, "")], words=["cup"], seen=[["century"]], counts=np.array([1])
    )
    with pytest.raises(RuntimeError, match="raise max_length"):  # the only word is longer than the text
        generate_texts(net, joined, study["tokenizer"], np.zeros(2, int), max_length=3, seed=0)
