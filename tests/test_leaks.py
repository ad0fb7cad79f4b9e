"""The leak audit on the miniature MET: clean as rendered; planted leaks of all or some items, two sizes."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from vbg.core.profiles import profile
from vbg.data.leaks import leak_table, names_class, plain_text, probe_field, telling_words, words_of
from vbg.data.sets import study_data


@pytest.fixture(scope="module", params=["smoke", pytest.param("mini", marks=pytest.mark.slow)])
def met(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(tmp_path_factory.mktemp("leaks")))
        data = profile(request.param).data["met"]
        data["render"] |= dict(large=0, balanced_per_class=2, scarce_per_class=0)  # the natural set alone is read
        yield study_data(request.param, "met", data)["natural"]


SOME = re.compile(r"gives the label of some items: (\d+) %")


def shelved(data, mark, rest=False):
    "The data with one field beside the text, `mark(item, class)` of each item; with `rest`, beside all that there are."
    marks = [
        json.dumps((json.loads(a) if rest else {}) | {"Shelf": mark(k, c)})
        for k, (a, c) in enumerate(zip(data.attributes, data.label))
    ]
    return replace(data, attributes=np.array(marks, object))


def marked(data, unless=lambda k: False):
    "The data with a shelf mark that stands for the class: a leak that names no class."
    return shelved(data, lambda k, c: f"Q{7 * (0 if unless(k) else c) + 3}", rest=True)


def caught(table, field, low, high):
    "Whether this field, and no other, is said to give the label of so many percent of the items, rightly."
    table = table.set_index("field")
    found = SOME.fullmatch(table.leak[field])
    assert found and low <= int(found[1]) <= high, table.leak[field]
    assert table.coded_right[field] >= 0.95 and set(table.leak.drop(field)) == {"none found"}


def test_the_miniature_met_is_clean_in_every_field(met):
    table, held = leak_table(met), int((met.split == "validation").sum())
    assert table.field[0] == "text" and {"Medium", "Period", "Culture"} <= set(table.field)
    assert (
        set(table.leak) == {"none found"} and table.coded.max() < 0.03
    )  # codes: dates and sizes, which follow no class
    read = (held, "validation") if held >= 73 else (int((met.split != "test").sum()), "cross-validation")
    assert set(zip(table.n, table.judged_by)) == {read} and table.own_name.max() == 0
    assert table.majority[0] < table.accuracy[0] < 1


def test_a_class_name_in_one_text_of_twenty_is_caught(met):
    leaky = replace(
        met,
        texts=[
            [f"{t[0]} From the {met.class_names[c]} store."] if k % 20 == 0 else t
            for k, (t, c) in enumerate(zip(met.texts, met.label))
        ],
    )
    table = leak_table(leaky).set_index("field")
    assert table.leak["text"] == "names the class" and 0.03 < table.own_name["text"] < 0.07
    assert set(table.leak.drop("text")) == {"none found"}


def test_a_shelf_mark_that_stands_for_the_class_is_caught_and_it_alone(met):
    table = leak_table(marked(met)).set_index("field")
    assert table.leak["Shelf"] == "gives the label alone" and set(table.leak.drop("Shelf")) == {"none found"}
    assert "q3 (" in table.telling["Shelf"] and table.own_name["Shelf"] == 0


def test_a_shelf_mark_that_stands_for_the_class_of_half_the_items_is_caught(met):
    table = leak_table(marked(met, unless=lambda k: k % 2))
    caught(table, "Shelf", 30, 55)  # less than half: the mark of the first class says nothing
    assert table.set_index("field").high["Shelf"] < 0.9  # the accuracy of a bag of words would not have told


def test_marks_without_a_digit_are_caught(met):
    caught(leak_table(shelved(met, lambda k, c: "zq" + "abcdefghij"[c] if k % 2 else "")), "Shelf", 35, 65)


def test_inventory_numbers_of_which_no_two_are_alike_are_caught_by_their_prefix(met):
    caught(
        leak_table(shelved(met, lambda k, c: f"{'ABCDEFGHIJ'[c]}Z-{k:05d}" if k % 2 else f"{k:05d}")), "Shelf", 35, 65
    )


def test_a_mark_in_half_of_the_texts_is_caught(met):
    leaky = replace(
        met, texts=[[f"{t[0]} Store Q{c}."] if k % 2 else t for k, (t, c) in enumerate(zip(met.texts, met.label))]
    )
    caught(leak_table(shelved(leaky, lambda k, c: "")), "text", 35, 65)


def test_a_mark_that_is_wrong_in_one_item_of_three_gives_no_label(met):
    rng = np.random.default_rng(0)
    shift = np.where(rng.random(len(met.label)) < 1 / 3, rng.integers(1, 10, len(met.label)), 0)
    table = leak_table(shelved(met, lambda k, c: f"Q{(c + shift[k]) % 10}" if k % 2 else "")).set_index("field")
    assert table.leak["Shelf"] == "none found" and table.coded["Shelf"] < 0.1


def test_a_word_that_describes_is_counted_and_called_no_leak(met):
    "Half of the arms have a hilt, in text and in a field of its own: evidence, whose extent stands in the table."
    arms = met.class_names.index("arms")
    hilts = shelved(met, lambda k, c: "hilted" if c == arms and k % 2 else "plain")
    hilts = replace(
        hilts, texts=[[f"{t[0]} It is {json.loads(a)['Shelf']}."] for t, a in zip(met.texts, hilts.attributes)]
    )
    table = leak_table(hilts).set_index("field")
    assert (
        set(table.leak) == {"none found"}
        and 0.02 < table.told["Shelf"] < 0.07
        and table.told_right["Shelf"] == 1
        and table.coded["Shelf"] == 0
    )


def test_the_miniature_coco_is_clean(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    table = leak_table(study_data("smoke", "coco")["natural"])
    assert table.field.tolist() == ["text"] and table.leak.tolist() == ["none found"]


def test_where_no_leak_could_be_seen_none_is_ruled_out(met):
    few = np.concatenate([np.flatnonzero(met.split == "train")[:50], np.flatnonzero(met.split == "validation")[:20]])
    assert set(leak_table(met.take(few)).leak) == {"too few items to tell"}
    table = leak_table(marked(met).take(few)).set_index("field")
    assert SOME.fullmatch(table.leak["Shelf"]) and set(table.leak.drop("Shelf")) == {
        "too few items to tell"
    }  # a plain code is seen all the same


def test_a_leak_that_stands_in_test_items_only_is_not_looked_for(met):
    leaky = replace(
        met,
        texts=[
            [f"{t[0]} {met.class_names[c]}"] if s == "test" else t for t, c, s in zip(met.texts, met.label, met.split)
        ],
    )
    assert set(leak_table(leaky).leak) == {"none found"}


CLASSES = {  # names of three classes, and texts that name them within a sentence
    "Chinese": (["青花瓷", "铜钱", "灯"], "清代{}，出土于墓葬。"),
    "Japanese": (["ガラス", "はち", "茶碗"], "江戸時代の{}です。"),
    "Thai": (["เสื้อ", "ชาม", "ดาบ"], "นี่คือ{}เก่าแก่"),
    "Hindi": (["मूर्ति", "सिक्का", "दीपक"], "यह पुरानी {} है"),
    "Korean": (["꽃병", "동전", "등잔"], "조선시대 {}은 도자기이다"),
    "Arabic": (["مزهرية", "عملة", "مصباح"], "قطعة {} قديمة"),
    "Russian": (["ваза", "монета", "лампа"], "Древняя {}, найдена здесь"),
}


@pytest.mark.parametrize("script", CLASSES)
def test_a_class_name_is_found_in_a_text_of_any_script(script):
    names, sentence = CLASSES[script]
    label = np.arange(12) % 3
    found = names_class(np.array([sentence.format(names[c]) for c in label], object), label, names)
    assert found == dict(own=1.0, other=0.0)


@pytest.mark.parametrize("script", CLASSES)
def test_a_probe_reads_texts_of_any_script(script):
    names, sentence = CLASSES[script]
    label, split = np.arange(60) % 3, np.array(["train"] * 30 + ["validation"] * 30)
    values = np.array([f"{k % 7} {sentence.format(names[c])}" for k, c in enumerate(label)], object)
    assert probe_field(values, label, split)["accuracy"] == 1.0


def test_a_word_that_tells_the_class_is_named_in_a_text_without_blanks():
    names, sentence = CLASSES["Chinese"]
    label = np.arange(12) % 3
    told = telling_words(np.array([sentence.format(names[c]) for c in label], object), label, names)
    assert {"花瓷", "铜钱", "灯"} <= set(told.word)


@pytest.mark.parametrize("text", ["a lamp-stand", "lampshade", "clamp"])
def test_a_name_within_another_word_is_none(text):
    found = names_class(np.array([text], object), np.array([0]), ["lamp"])
    assert found["own"] == float(text == "a lamp-stand")


@pytest.mark.parametrize("one, other", [("कल", "कला"), ("は", "ば"), ("เสือ", "เสื้อ")])
def test_a_mark_makes_another_word(one, other):
    assert names_class(np.array([other], object), np.array([0]), [one])["own"] == 0.0


def test_names_in_another_unicode_form_are_found():
    assert names_class(np.array(["un cafe\u0301 noir"], object), np.array([0]), ["Café"])["own"] == 1.0


@pytest.mark.parametrize("name", ["$$", "?", "C++", "Notes $5-$10"])
def test_names_of_signs_are_looked_for_as_they_are(name):
    assert names_class(np.array([f"a {name} here"], object), np.array([0]), [name])["own"] == 1.0


def test_words_of_spaced_scripts_are_what_they_were():
    text = plain_text("A pale-green vase_2, c. 1790; Ru-kiln's No.5 Müller")
    assert words_of(text) == re.findall(r"\w+", text)
