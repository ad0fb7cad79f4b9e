"""The label-leak audit on the miniature MET: clean as rendered, caught with planted leaks, at the sizes of smoke and of mini."""
import json
from dataclasses import replace

import numpy as np
import pytest

from vbg.leaks import leak_table
from vbg.train import study_data


@pytest.fixture(scope="module", params=["smoke", "mini"])
def met(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(tmp_path_factory.mktemp("leaks")))
        yield study_data(request.param, "met")["natural"]


def marked(data, unless=lambda k: False):
    "The data with a shelf mark that stands for the class: a leak that names no class."
    marks = [json.dumps(json.loads(a) | {"Shelf": f"Q{7 * (0 if unless(k) else c) + 3}"}) for k, (a, c) in enumerate(zip(data.attributes, data.label))]
    return replace(data, attributes=np.array(marks, object))


def test_the_miniature_met_is_clean_in_every_field(met):
    table, held = leak_table(met), int((met.split == "validation").sum())
    assert table.field[0] == "text" and {"Medium", "Period", "Culture"} <= set(table.field)
    assert set(table.leak) == {"none found"}
    read = (held, "validation") if held >= 73 else (int((met.split != "test").sum()), "cross-validation")
    assert set(zip(table.n, table.judged_by)) == {read} and table.own_name.max() == 0
    assert table.majority[0] < table.accuracy[0] < 1


def test_a_class_name_in_one_text_of_twenty_is_caught(met):
    leaky = replace(met, texts=[[f"{t[0]} From the {met.class_names[c]} store."] if k % 20 == 0 else t for k, (t, c) in enumerate(zip(met.texts, met.label))])
    table = leak_table(leaky).set_index("field")
    assert table.leak["text"] == "names the class" and 0.03 < table.own_name["text"] < 0.07
    assert set(table.leak.drop("text")) == {"none found"}


def test_a_shelf_mark_that_stands_for_the_class_is_caught_and_it_alone(met):
    table = leak_table(marked(met)).set_index("field")
    assert table.leak["Shelf"] == "gives the label alone" and set(table.leak.drop("Shelf")) == {"none found"}
    assert "q3 (" in table.telling["Shelf"] and table.own_name["Shelf"] == 0


def test_a_shelf_mark_that_stands_for_the_class_of_half_the_items_is_not_the_label(met):
    assert leak_table(marked(met, unless=lambda k: k % 2)).set_index("field").leak["Shelf"] == "none found"


@pytest.mark.parametrize("planted", [False, True])
def test_where_no_leak_could_be_seen_none_is_ruled_out(met, planted):
    few = np.concatenate([np.flatnonzero(met.split == "train")[:50], np.flatnonzero(met.split == "validation")[:20]])
    table = leak_table((marked(met) if planted else met).take(few))
    assert set(table.leak) == {"too few items to tell"}


def test_a_leak_that_stands_in_test_items_only_is_not_looked_for(met):
    leaky = replace(met, texts=[[f"{t[0]} {met.class_names[c]}"] if s == "test" else t for t, c, s in zip(met.texts, met.label, met.split)])
    assert set(leak_table(leaky).leak) == {"none found"}
