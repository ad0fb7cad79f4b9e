"""Words: spans land on their words among the tokens, relevance adds up, and a deciding word made by hand is found."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vbg.core.files import DataError
from vbg.core.profiles import profile as read_profile
from vbg.data.mini.met import CLASSES, TELLING, TOLD
from vbg.explain.restore import Restored, batch_of, fresh_model, ground_truth_of, items_of, open_sets
from vbg.explain.word_scores import (
    deciding,
    evidence_of_words,
    hide_words,
    most_relevant,
    pointing,
    score_relevance,
    share_by_attribute,
    span_alignment,
)
from vbg.explain.words import (
    alike,
    attention_maps,
    by_word,
    integrated_gradients,
    position,
    rarity,
    read_words,
    sample_items,
    told_attributes,
    word_evidence,
)
from vbg.models.text import tokenise

SPLITS = ("train", "validation", "test", "large", "balanced")


def untrained(dataset, variant="without_gan", **overrides):
    "A model of the smoke profile with fresh weights, and its data."
    settings = read_profile("smoke", overrides)
    sets, tokenizer, known = open_sets(settings, dataset)
    model = fresh_model(settings, variant, sets, tokenizer, known, 0)
    return Restored(SimpleNamespace(model=variant, seed=0), settings, model, tokenizer, sets, dataset)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    "Both rendered sets at the smoke size."
    patch = pytest.MonkeyPatch()
    patch.setenv("VBG_HOME", str(tmp_path_factory.mktemp("words")))
    yield {name: untrained(name) for name in ("met", "coco")}
    patch.undo()


# ---- spans ----
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("dataset", ["met", "coco"])
def test_tokens_of_a_span_spell_its_word(opened, dataset, split):
    found = opened[dataset]
    for text in range(items_of(found, split).input_ids.shape[1]):
        reading = read_words(found, split, text=text)
        assert reading.cut == 0 and len(reading.spans) > len(reading.data) / 2
        for i, words, word in reading.spans[["item", "words", "word"]].itertuples(index=False):
            ids = reading.data.input_ids[i, 0][np.isin(reading.word[i], words)]
            spelled = found.tokenizer.decode(ids.tolist()).replace(" ", "")
            assert spelled == word.lower().replace(" ", "") or "[UNK]" in spelled, (reading.data.ids[i], word, spelled)


def test_every_span_of_what_is_read_is_found(opened):
    for dataset, field in (("met", None), ("coco", "caption_1")):
        spans = ground_truth_of(opened[dataset], "balanced").spans
        wanted = spans if field is None else spans[spans["field"] == field]
        assert sorted(read_words(opened[dataset], "balanced").spans["word"]) == sorted(wanted["word"])


def test_another_text_raises_and_names_the_item(opened):
    for dataset in ("met", "coco"):
        found = opened[dataset]
        data = items_of(found, "balanced")
        texts = [list(t) for t in data.texts]
        texts[3][0] = "Something else stands here, nothing that was noted."
        other = tokenise(replace(data, texts=texts), found.tokenizer, data.input_ids.shape[2])
        broken = replace(found, sets=found.sets | {"balanced": other})
        with pytest.raises(DataError, match=f"item {data.ids[3]}"):
            read_words(broken, "balanced", np.array([0]))  # also where the item is not among those chosen
        with pytest.raises(DataError, match=f"item {data.ids[3]}: the tokenizer gives other tokens"):
            read_words(replace(found, sets=found.sets | {"balanced": replace(data, texts=texts)}), "balanced")


def test_words_beyond_the_longest_text_are_counted_and_not_told(opened):
    whole = opened["met"]
    short = 12
    sets = {
        name: tokenise(replace(data), whole.tokenizer, short) for name, data in whole.sets.items() if name != "folders"
    }
    cut = replace(whole, sets=sets)
    reading, full = read_words(cut, "balanced"), read_words(whole, "balanced")
    lost = sum(
        (full.word[i][short - 1 :] == w).sum()
        for i, words in zip(full.spans["item"], full.spans["words"])
        for w in words
        if (full.word[i] >= 0).sum() + 2 > short
    )
    assert reading.cut == lost > 0 and (reading.word >= 0).sum(1).max() == short - 2
    told, before = told_attributes(cut, "balanced", reading), told_attributes(whole, "balanced", full)
    assert ((told >= 0) & (before < 0)).sum().sum() == 0 and (told >= 0).sum().sum() < (before >= 0).sum().sum()
    assert (word_evidence(cut, "balanced", reading).to_numpy()[told.to_numpy() < 0] == 0).all()


# ---- relevance ----
@pytest.mark.parametrize("variant", ["without_gan", "without_vit_gan"])
def test_integrated_gradients_add_up(opened, variant):
    found = opened["coco"]
    model = fresh_model(found.settings, variant, found.sets, found.tokenizer, {}, 1)
    reading = read_words(found, "balanced", np.arange(0, 40, 8))
    classes = np.arange(5)
    relevance, delta = integrated_gradients(replace(found, model=model), reading, classes, batch_size=3)
    everything = np.ones(reading.there.shape, bool)
    hidden = hide_words(reading, everything, found.tokenizer.mask_token_id)
    with torch.no_grad():
        scores = [
            model(**batch_of(data), return_maps=False).logits[np.arange(5), classes].numpy()
            for data in (reading.data, hidden)
        ]
    change = scores[0] - scores[1]
    assert np.abs(change).max() > 1e-3
    np.testing.assert_allclose(relevance.sum(1), change, atol=0.01 * np.abs(change).max())
    np.testing.assert_allclose(relevance.sum(1) - change, delta, atol=1e-4)
    assert (relevance[reading.word < 0] == 0).all()


class Planted(torch.nn.Module):
    "Score of class 1: how many tokens are among some given ones, by an embedding of one feature; class 0 its opposite."

    def __init__(self, size, ids):
        super().__init__()
        self.vision, self.metadata = None, None
        table = torch.nn.Embedding(size, 1)
        with torch.no_grad():
            table.weight.zero_()[ids] = 1.0
        self.text = torch.nn.Module()
        self.text.table, self.text.transformer = table, SimpleNamespace(get_input_embeddings=lambda: table)
        self.text.forward = lambda input_ids, keep=None: table(input_ids)

    def forward(self, attention_mask=None, text_tokens=None, pixel_values=None, input_ids=None, return_maps=None):
        tokens = self.text.table(input_ids.long()) if text_tokens is None else text_tokens
        total = torch.tanh((tokens * attention_mask[..., None]).sum(1))
        return SimpleNamespace(logits=torch.cat([-total, total], 1))


def test_a_planted_word_is_found(opened):
    found = opened["met"]
    reading = read_words(found, "balanced")
    evidence = word_evidence(found, "balanced", reading)
    decides, most = deciding(evidence_of_words(reading, evidence))
    ids = np.unique(
        reading.data.input_ids[:, 0][np.take_along_axis(most, np.maximum(reading.word, 0), 1) & (reading.word >= 0)]
    )
    elsewhere = np.unique(
        reading.data.input_ids[:, 0][(reading.word >= 0) & ~np.take_along_axis(most, np.maximum(reading.word, 0), 1)]
    )
    ids = np.setdiff1d(ids, elsewhere)  # words that are most decisive wherever they stand
    model = replace(found, model=Planted(len(found.tokenizer), ids))
    relevance, delta = integrated_gradients(model, reading, np.ones(len(reading.data), int))
    told = by_word(relevance, reading)
    there = np.nan_to_num(told).max(1) > 0
    assert there.sum() >= 5 and np.abs(delta).max() < 1e-3
    scores = score_relevance(reading, told, evidence)
    assert (scores["most"][there] == 1).all() and np.allclose(scores["share"][there], 1)
    against = score_relevance(reading, -told, evidence)
    assert (against["most"][there] < 1).all()


def test_attention_does_not_see_the_other_items_of_a_batch(opened):
    found = opened["coco"]
    reading = read_words(found, "balanced")
    read, look = attention_maps(found, reading)
    for i in (0, 17):
        alone_read, alone_look = attention_maps(found, read_words(found, "balanced", np.array([i])))
        np.testing.assert_allclose(alone_read[0], read[i], atol=1e-6)
        np.testing.assert_allclose(alone_look[0][reading.word[i] >= 0], look[i][reading.word[i] >= 0], atol=1e-6)


def test_rarity_reads_the_training_split_alone(opened):
    found = opened["met"]
    reading, data = read_words(found, "balanced"), found.sets["natural"]
    train = data.select("train")
    once = rarity(train, reading)
    changed = data.input_ids.copy()
    changed[data.split != "train"] = 7
    np.testing.assert_array_equal(rarity(replace(data, input_ids=changed).select("train"), reading), once)
    n = len(train.texts)
    comma = found.tokenizer.convert_tokens_to_ids(",")
    count = sum(comma in set(row[0].tolist()) for row in train.input_ids)
    np.testing.assert_allclose(once[reading.data.input_ids[:, 0] == comma], np.log((1 + n) / (1 + count)))


# ---- evidence and scores ----
def test_evidence_is_bayes_rule_by_hand(opened):
    found = opened["met"]
    for split, uniform in (("balanced", True), ("test", False), ("large", False)):
        reading = read_words(found, split)
        evidence = word_evidence(found, split, reading)
        prior = (
            np.full(len(CLASSES), 0.1)
            if uniform
            else np.array([n for _, n in CLASSES.values()]) / sum(n for _, n in CLASSES.values())
        )
        for i in range(0, len(reading.data), 7):
            row, truth = reading.items.iloc[i], list(CLASSES).index(reading.items["label"][i])
            own = set(reading.spans[reading.spans["item"] == i]["attribute"]) & set(TOLD)

            def posterior(attributes):
                p = prior.copy()
                for a in attributes:
                    values, table = TELLING[a]
                    p = p * table[:, values.index(row[a])]
                return np.log(p[truth] / p.sum())

            for a in TOLD:
                expected = posterior(own) - posterior(own - {a}) if a in own else 0
                assert abs(evidence[a][i] - expected) < 1e-9
        assert not set(evidence) & {"culture", "age", "colour"}


def test_chance_is_the_share_of_the_words(opened):
    for found in opened.values():
        reading = read_words(found, "balanced")
        decides, _ = deciding(evidence_of_words(reading, word_evidence(found, "balanced", reading)))
        share = decides.sum(1) / reading.there.sum(1)
        scores = score_relevance(reading, alike(reading), word_evidence(found, "balanced", reading))
        np.testing.assert_allclose(scores["decides"], np.where(share > 0, share, np.nan))
        drawn = np.random.default_rng(0).random((500, *decides.shape)) * alike(reading)
        np.testing.assert_allclose(
            np.stack([pointing(d, decides) for d in drawn])[:, share > 0].mean(0), share[share > 0], atol=0.1
        )
        for values in (alike(reading), position(reading)):
            np.testing.assert_allclose(np.nansum(list(share_by_attribute(reading, values).values()), 0), 1)


def test_hiding_replaces_whole_words_and_nothing_else(opened):
    reading = read_words(opened["met"], "balanced")
    hidden = most_relevant(position(reading), 2)
    changed = (
        hide_words(reading, hidden, opened["met"].tokenizer.mask_token_id).input_ids[:, 0]
        != reading.data.input_ids[:, 0]
    )
    np.testing.assert_array_equal(changed, np.isin(reading.word, [0, 1]))


def test_a_map_on_its_region_scores_one_and_an_even_map_scores_the_area(opened):
    found = opened["coco"]
    reading = read_words(found, "balanced", text=3)
    patches = 64
    even = span_alignment(reading, np.full((*reading.word.shape, patches), 1 / patches))
    np.testing.assert_allclose(even["share"], even["area"])
    np.testing.assert_allclose(even["beyond"].dropna(), 0, atol=1e-12)
    sure = {
        name: np.kron(mask.reshape(len(mask), 8, 8, 8, 8).all((2, 4)), np.ones((1, 8, 8), bool))
        for name, mask in reading.masks.items()
    }
    look = np.zeros((*reading.word.shape, patches))
    for i, region, words in reading.spans[["item", "region", "words"]].itertuples(index=False):
        inside = sure[region][i, ::8, ::8].ravel().astype(float)
        look[i, np.isin(reading.word[i], words)] = inside / max(inside.sum(), 1)
    exact = span_alignment(replace(reading, masks=sure), look)
    np.testing.assert_allclose(exact["share"], 1)
    others = exact["share"] - exact["beyond"]
    assert len(others.dropna()) > 20 and others.dropna().max() == 0  # things and ground do not overlap


def test_sample_is_the_same_for_all_and_balanced(opened):
    data = items_of(opened["met"], "train")
    chosen = sample_items(data, 3)
    assert (
        np.bincount(data.label[chosen], minlength=data.num_classes)
        == np.minimum(np.bincount(data.label, minlength=data.num_classes), 3)
    ).all()
    assert (np.diff(chosen) > 0).all()
