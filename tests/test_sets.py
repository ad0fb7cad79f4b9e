"""The sets of a profile: how many items, which are tests alone, and that no test item is learnt from."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vbg.core.files import DataError
from vbg.core.plan import ACROSS, EXPERIMENTS, SPLITS, TEST_SETS
from vbg.core.profiles import profile
from vbg.data.sets import require_apart, shared_items, study_data
from vbg.train import jobs, rules


@pytest.fixture(scope="module", params=["met", "coco"])
def sets(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBG_HOME", str(tmp_path_factory.mktemp("sets")))
        yield study_data("smoke", request.param)


def test_sizes_of_the_profiles():
    asked = {name: profile(name).data["met"]["render"] for name in ("smoke", "mini")}
    assert asked["mini"] == profile("mini").data["coco"]["render"]
    assert asked["mini"] | dict(n=2400, large=2400, balanced_per_class=100) == asked["mini"]
    assert asked["smoke"] | dict(n=240, large=60, balanced_per_class=4) == asked["smoke"]
    assert not any("render" in d for d in profile("paper").data.values())


def test_the_test_sets_are_tests_alone(sets):
    sizes = {name: len(sets[name]) for name in ("natural", "large", "balanced", "scarce")}
    assert sizes == dict(natural=240, large=60, balanced=40, scarce=12)
    assert TEST_SETS == ("large", "balanced")
    assert all(set(sets[name].split) == {"test"} for name in TEST_SETS)
    assert all(sets[name].class_names == sets["natural"].class_names for name in TEST_SETS)
    share = lambda data: np.bincount(data.label, minlength=10) / len(data)
    assert np.abs(share(sets["large"]) - share(sets["natural"])).max() < 0.04  # the natural shares
    assert set(np.bincount(sets["balanced"].label)) == {4}


def test_no_picture_stands_in_two_sets(sets):
    for test in TEST_SETS:
        for other in ("natural", "scarce"):
            assert shared_items(sets[test], sets[other]) == dict(exact=0, near=0), (test, other)
    assert shared_items(sets["large"], sets["large"].take(np.arange(5)))["exact"] == 5  # it finds what is there


def test_a_test_item_among_those_learnt_from_is_refused(sets):
    natural, large = sets["natural"], sets["large"]
    require_apart(large, natural)
    require_apart(large, None)
    ids, pixels = natural.ids.copy(), natural.pixels.copy()
    ids[3], pixels[7] = large.ids[11], large.pixels[12]
    with pytest.raises(DataError, match=f"item '{large.ids[11]}' of the test set '{large.name}' is also in"):
        require_apart(large, replace(natural, ids=ids))
    with pytest.raises(DataError, match=f"item '{large.ids[12]}' of the test set"):
        require_apart(large, replace(natural, pixels=pixels))


def test_runs_predict_the_large_test_and_learn_from_training_items_alone(tmp_path, monkeypatch):
    """What the loops are given to learn from is recorded; every prediction of the large test is in the run."""
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    learnt, whole = [], jobs.fit

    def spy(*, train, validation, **more):
        learnt.append((train, validation))
        return whole(train=train, validation=validation, **more)

    monkeypatch.setattr(jobs, "fit", spy)
    (run,) = jobs.train_runs("smoke", "met", models="without_vit_gan", seeds=[0], overrides=dict(train=dict(epochs=1)))
    assert set(run.metrics) == set(SPLITS) == {"validation", "test", "large", "balanced"}
    sets = study_data("smoke", "met")
    ids, label, table = run.select("large")
    assert list(ids) == list(sets["large"].ids) and table.shape == (60, 10)
    assert (label == sets["large"].label).all()
    assert run.info["inputs"]["data"]["large"] == sets["large"].fingerprint
    ((train, validation),) = learnt
    assert list(train.ids) == list(sets["natural"].select("train").ids) and set(train.split) == {"train"}
    assert list(validation.ids) == list(sets["natural"].select("validation").ids)


def test_the_plan_asks_every_run_for_the_large_test():
    assert rules.SPLITS == SPLITS
    for name, asked in EXPERIMENTS.items():
        across = asked.splits == ACROSS and {"large", "large_target"} < {*ACROSS}
        assert across or asked.splits == ("validation",) or set(SPLITS) <= set(asked.splits), name
    withheld = {f"{test}_without_{side}" for test in ("test", *TEST_SETS) for side in ("image", "text")}
    assert set(EXPERIMENTS["missing"].splits) == {*SPLITS, *withheld}


def test_names_that_no_font_has_are_said_under_a_sheet():
    from matplotlib import font_manager
    from PIL import Image

    from vbg.data.mini.canvas import contact_sheet

    tile = [Image.new("RGB", (64, 64), "white")]
    with pytest.MonkeyPatch.context() as patch:
        dejavu = [f for f in font_manager.fontManager.ttflist if f.name == "DejaVu Sans"][:1]
        patch.setattr(font_manager.fontManager, "ttflist", dejavu)
        with pytest.warns(UserWarning, match="no font of this machine has 瓷花青"):
            contact_sheet(tile, ["青花瓷"], columns=1)
        one, two = (contact_sheet(tile, [name], columns=1).tobytes() for name in ("Греция", "Лампа"))
        assert one != two


def test_a_published_split_reaches_the_arrays_and_folds_deal_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    (tmp_path / "shop").mkdir()
    lines = ["id,image,title,description,category,part"]
    for n in range(24):
        Image.new("RGB", (20, 20), (10 * n, 0, 90)).save(tmp_path / f"shop/{n}.png")
        lines += [f"n{n:02},{n}.png,Title {n},Words,{'jar' if n % 2 else 'lamp'},{'test' if n < 10 else 'train'}"]
    (tmp_path / "shop/objects.csv").write_text("\n".join(lines))
    options = dict(label="category", id="id", split="part")
    described = dict(reader="collection", folder=str(tmp_path / "shop"), options=options)
    natural = study_data("smoke", "shop", data=described)["natural"]
    assert sorted(natural.ids[natural.split == "test"]) == [f"n{n:02}" for n in range(10)]
    assert (natural.split == "validation").sum() == 2, "none were published: a ninth of the 14"
    dealt = study_data("smoke", "shop", data=described | dict(folds=4, fold=0))["natural"]
    assert (dealt.split == "test").sum() == 6 and {*dealt.ids[dealt.split == "test"]} - {
        *natural.ids[natural.split == "test"]
    }
