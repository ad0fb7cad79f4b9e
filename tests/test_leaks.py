"""The label-leak audit on the miniature MET: clean as rendered, caught with planted leaks."""
import json
from dataclasses import replace

import numpy as np
import pytest

from vbg.leaks import leak_table
from vbg.train import study_data


@pytest.fixture(scope="module")
def met(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(tmp_path_factory.mktemp("leaks")))
        yield study_data("smoke", "met")["natural"]


def test_the_miniature_met_is_clean_in_every_field(met):
    table = leak_table(met)
    assert table.field[0] == "text" and {"Medium", "Period", "Culture"} <= set(table.field) and set(table.leak) == {"none found"}
    assert table.own_name.max() == 0 and table.n.unique().tolist() == [(met.split == "validation").sum()]
    assert table.majority[0] < table.accuracy[0] < 1


def test_a_class_name_in_one_text_of_twenty_is_caught(met):
    leaky = replace(met, texts=[[f"{t[0]} From the {met.class_names[c]} store."] if k % 20 == 0 else t for k, (t, c) in enumerate(zip(met.texts, met.label))])
    table = leak_table(leaky).set_index("field")
    assert table.leak["text"] == "names the class" and 0.03 < table.own_name["text"] < 0.07
    assert set(table.leak.drop("text")) == {"none found"}


def test_a_shelf_mark_that_stands_for_the_class_is_caught_by_the_words_it_is_told_by(met):
    marks = [json.dumps(json.loads(a) | {"Shelf": f"Q{7 * c + 3}"}) for a, c in zip(met.attributes, met.label)]
    table = leak_table(replace(met, attributes=np.array(marks, object))).set_index("field")
    assert table.accuracy["Shelf"] == 1 and "q3 (" in table.telling["Shelf"]
    assert table.own_name["Shelf"] == 0 and (table.leak["Shelf"] == "gives the label alone") == (table.low["Shelf"] >= 0.95)


def test_a_leak_that_stands_in_test_items_only_is_not_looked_for(met):
    leaky = replace(met, texts=[[f"{t[0]} {met.class_names[c]}"] if s == "test" else t for t, c, s in zip(met.texts, met.label, met.split)])
    assert set(leak_table(leaky).leak) == {"none found"}
