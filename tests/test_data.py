"""Whole files through `vbg.data.store`: what breaks, what is skipped, what must not be left behind."""

import io
import json
import multiprocessing
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vbg.core.files import DataError
from vbg.data import store as module
from vbg.data.card import card_tables, show_card
from vbg.data.images import decode_image, near_pairs, read_image
from vbg.data.schema import SPLITS, Examples, check_examples
from vbg.data.splits import assign_splits, merge_tiny
from vbg.data.store import ExampleData, build_dataset, data_fingerprint, load_dataset_dir, load_examples


def make(folder, n=40, classes="ab", suffix="jpg", **more):
    "n images of smooth seeded noise and the table that names them."
    folder.mkdir(parents=True, exist_ok=True)
    rows = dict(
        id=[f"o{i:04}" for i in range(n)],
        image=[str(folder / f"{i}.{suffix}") for i in range(n)],
        text=[f"object {i}" for i in range(n)],
        label=[classes[i % len(classes)] for i in range(n)],
        row=range(2, n + 2),
    )
    for i, path in enumerate(rows["image"]):
        noise = np.random.default_rng(i).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((48, 40), Image.Resampling.BICUBIC).save(path)
    return Examples(pd.DataFrame(rows | more), files=[folder / "objects.csv"], name="made")


def card_of(folder):
    return json.loads((folder / "data_card.json").read_text())


def jpeg(size=(64, 48)):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize("keep", [0, 2, 20, 0.1, 0.5, 0.9, 0.99, "text", "pointer", "html"])
def test_a_broken_jpeg_is_named_with_its_row(tmp_path, keep):
    whole = jpeg()
    content = dict(
        text=b"no image", pointer=b"version https://git-lfs.github.com/spec/v1\n", html=b"<html>403</html>"
    ).get(keep)
    if content is None:
        content = whole[: int(keep * len(whole)) if isinstance(keep, float) else keep]
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.jpg, row 5: .*Remedy: .*") as error:
        read_image(tmp_path / "x.jpg", 32, 5)
    assert (error.value.row, error.value.file) == (5, tmp_path / "x.jpg")


@pytest.mark.parametrize(
    "mode,colour,expected",
    [
        ("L", 128, 128),
        ("1", 1, 255),
        ("P", 0, 0),
        ("CMYK", (0, 0, 0, 0), 255),
        ("LA", (0, 0), 255),
        ("RGBA", (0, 0, 0, 128), 127),
        ("I;16", 0x8000, 128),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, colour, expected):
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new(mode, (9, 7), colour).save(tmp_path / f"x.{suffix}")
    assert abs(int(decode_image(tmp_path / f"x.{suffix}", 4).mean()) - expected) <= 1


def test_float_pixels_are_refused(tmp_path):
    Image.new("F", (9, 7), 0.5).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match="mode F"):
        read_image(tmp_path / "x.tif", 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_stand_upright(tmp_path, orientation):
    upright = np.zeros((32, 32, 3), np.uint8)
    upright[:16, :16], upright[:16, 16:], upright[16:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    turn = {1: [], 2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}[orientation]  # how the camera stores it
    image, exif = Image.fromarray(upright), Image.Exif()
    for t in turn:
        image = image.transpose(Image.Transpose(t))
    exif[0x0112] = orientation
    image.save(tmp_path / "x.png", exif=exif)
    assert (decode_image(tmp_path / "x.png", 32) == upright).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0"])
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp"])
def test_a_damaged_exif_note_does_not_cost_the_image(tmp_path, name, exif):
    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / name, exif=exif, quality=90)
    assert np.abs(decode_image(tmp_path / name, 8) - np.array([200, 10, 10])).max() <= 4


@pytest.mark.parametrize("size", [48, 64, 200])
def test_a_large_jpeg_reduced_while_decoding_looks_like_one_that_is_not(tmp_path, size):
    y, x = np.mgrid[:900, :1200] / 1200
    photo = np.stack([x, (np.sin(100 * y) + 1) / 2, (np.sin(20 * x) + 1) / 2], -1)
    Image.fromarray((photo * 255).astype(np.uint8)).save(tmp_path / "x.jpg", quality=95)
    full = Image.open(tmp_path / "x.jpg").convert("RGB")
    middle = full.crop((150, 0, 1050, 900)).resize((size, size), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(middle).astype(int) - decode_image(tmp_path / "x.jpg", size))
    assert difference.mean() < 1 and difference.max() < 12


def test_missing_values_become_empty_text_not_the_word_nan():
    table = pd.DataFrame(dict(id=[1, 2], image=["a", "b"], text=["x", None], label=[np.nan, "l"]))
    made = Examples(table).table
    assert made.id.tolist() == ["1", "2"] and made.text.tolist() == ["x", ""] and made.label.tolist() == ["", "l"]
    with pytest.raises(DataError, match="text is empty"):
        check_examples(Examples(table))


def test_all_faults_at_once_are_counted_and_the_rest_survives(tmp_path):
    examples = make(tmp_path, 60)
    t = examples.table
    t.loc[3, "id"], t.loc[4, "text"], t.loc[5, "label"], t.loc[6, "label"] = "o0002", "\n ", " ", "lonely"
    Path(t.image[7]).unlink()
    Path(t.image[8]).write_bytes(Path(t.image[8]).read_bytes()[:200])
    Path(t.image[9]).write_text("version https://git-lfs.github.com/spec/v1\n")
    kept = assign_splits(check_examples(examples, lenient=True))
    folder = build_dataset(kept, 16, tmp_path / "cache", lenient=True)
    card, data = card_of(folder), load_examples(folder)
    assert card["items"] == len(data) == 53 and card["skipped"]["count"] == 7
    assert card["skipped"]["reasons"] == {
        "duplicate id": 1,
        "text is empty": 1,
        "label is empty": 1,
        "class has this item only": 1,
        "image file is absent": 1,
        "image cannot be read": 1,
        "file is a Git LFS pointer, not the file itself": 1,
    }
    skipped = pd.read_csv(folder / "skipped.csv")
    assert sorted(skipped.row) == [5, 6, 7, 8, 9, 10, 11]
    image = t.set_index("id").image
    assert all((data.pixels[i] == decode_image(image[k], 16)).all() for i, k in enumerate(data.ids) if k != "o0002")


def test_nothing_left_is_an_error_with_reasons(tmp_path):
    examples = make(tmp_path, 4)
    examples.table["text"] = ""
    with pytest.raises(DataError, match=r"no example is left.*text is empty \(4\)"):
        check_examples(examples, lenient=True)


def test_strict_build_leaves_nothing_behind(tmp_path):
    examples = assign_splits(make(tmp_path / "images"))
    Path(examples.table.image[20]).write_bytes(b"\xff\xd8 cut")
    with pytest.raises(DataError, match=r"20\.jpg, row 22"):
        build_dataset(examples, 16, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_crash_while_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    examples = assign_splits(make(tmp_path / "images"))
    monkeypatch.setattr(module, "data_card", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_dataset(examples, 16, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_same_data_elsewhere_are_the_same_bytes(tmp_path):
    built = [
        build_dataset(assign_splits(make(tmp_path / name)), 16, tmp_path / f"cache-{name}", workers=w)
        for name, w in (("one", 1), ("two", 4))
    ]
    assert built[0].name == built[1].name
    for file in ("data-00000-of-00001.arrow", "data_card.json", "state.json", "dataset_info.json"):
        assert (built[0] / file).read_bytes() == (built[1] / file).read_bytes()
    assert str(tmp_path) not in (built[0] / "data_card.json").read_text()
    assert data_fingerprint(built[0]) == built[0].name.split("-")[1]


@pytest.mark.parametrize("change", ["text", "pixels", "size", "order", "name"])
def test_whatever_shapes_the_set_changes_its_fingerprint(tmp_path, change):
    examples = assign_splits(make(tmp_path / "images"))
    first = build_dataset(examples, 16, tmp_path / "cache")
    if change == "text":
        examples.table.loc[0, "text"] += "!"
    if change == "pixels":
        Image.new("RGB", (48, 40)).save(examples.table.image[0])
    if change == "name":
        examples = replace(examples, name="other")
    second = build_dataset(
        examples,
        17 if change == "size" else 16,
        tmp_path / "cache",
        class_names=["b", "a"] if change == "order" else None,
    )
    assert first != second


def test_lenient_and_strict_sets_are_kept_apart(tmp_path):
    examples = assign_splits(make(tmp_path / "images"))
    Path(examples.table.image[0]).write_bytes(b"broken")
    build_dataset(examples, 16, tmp_path / "cache", lenient=True)
    with pytest.raises(DataError):
        build_dataset(examples, 16, tmp_path / "cache")


def test_a_set_without_its_card_is_built_again(tmp_path):
    examples = assign_splits(make(tmp_path / "images"))
    folder = build_dataset(examples, 16, tmp_path / "cache")
    (folder / "data_card.json").unlink()
    assert build_dataset(examples, 16, tmp_path / "cache") == folder and (folder / "data_card.json").exists()


def _build_in_process(job):
    return build_dataset(*job)


def test_two_processes_may_build_the_same_set(tmp_path):
    examples = assign_splits(make(tmp_path / "images"))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.map(_build_in_process, [(examples, 16, tmp_path / "cache")] * 4, chunksize=1)
    assert (
        len(set(folders)) == 1
        and len(list((tmp_path / "cache").iterdir())) == 1
        and len(load_examples(folders[0])) == 40
    )


def test_a_set_that_another_process_finishes_first_is_taken(tmp_path, monkeypatch):
    examples, write = assign_splits(make(tmp_path / "images")), module.write_atomic

    def interrupted(*arguments):
        monkeypatch.setattr(module, "write_atomic", write)
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", os.getppid)
            build_dataset(examples, 16, tmp_path / "cache")
        return write(*arguments)

    monkeypatch.setattr(module, "write_atomic", interrupted)
    folder = build_dataset(examples, 16, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [folder] and len(load_examples(folder)) == 40


def test_others_may_read_the_folder(tmp_path):
    folder = build_dataset(assign_splits(make(tmp_path / "images")), 16, tmp_path / "cache")
    assert folder.stat().st_mode & 0o055 == 0o055


def test_memory_mapped_pixels_are_the_file(tmp_path):
    folder = build_dataset(assign_splits(make(tmp_path / "images")), 16, tmp_path / "cache")
    mapped, ram = load_examples(folder, in_memory=False), load_examples(folder)
    assert not mapped.pixels.flags.owndata and not mapped.pixels.flags.writeable
    assert ram.pixels.flags.owndata and ram.pixels.flags.writeable and (ram.pixels == mapped.pixels).all()
    row = load_dataset_dir(folder)[0]
    assert row["image"] == ram.pixels[0].ravel().tolist() and row["id"] == ram.ids[0]


def test_many_labels_and_captions_come_back(tmp_path):
    several = [["cat"], ["cat", "dog"], ["dog"], ["bird"]] * 10
    examples = make(tmp_path / "images", labels=several, texts=[[f"a{i}", f"b{i}"] for i in range(40)])
    examples = replace(examples, label_names=["dog", "cat", "bird", "fish"])
    data = load_examples(build_dataset(assign_splits(examples), 16, tmp_path / "cache"))
    assert data.label_names == ["dog", "cat", "bird", "fish"] and data.targets.sum(0).tolist() == [20, 20, 10, 0]
    i = int(data.ids[0][1:])
    assert data.texts[0] == [f"a{i}", f"b{i}"] and data.text[0] == f"object {i}"
    assert [data.label_names[j] for j in np.flatnonzero(data.targets[0])] == sorted(
        several[i], key=data.label_names.index
    )


def test_second_test_set_takes_the_first_sets_classes(tmp_path):
    second = make(tmp_path / "images", classes="bc")
    examples = assign_splits(second, ratios=(0, 0, 1))
    data = load_examples(build_dataset(examples, 16, tmp_path / "cache", class_names=list("abcd")))
    assert (
        data.class_names == list("abcd")
        and set(data.label) == {1, 2}
        and set(data.split) == {"test"}
        and len(data.select("train")) == 0
    )
    with pytest.raises(DataError, match="label 'c' is none of the classes"):
        build_dataset(examples, 16, tmp_path / "cache", class_names=list("ab"))


def test_the_split_is_the_same_on_every_machine():
    table = pd.DataFrame(dict(id=[f"{i}" for i in range(50)], image="", text="t", label=["a", "b"] * 25))
    split = assign_splits(Examples(table)).table.split
    assert split[split == "test"].index.tolist() == [0, 29, 35, 36, 44]  # written down: the same on every machine


def test_a_class_of_one_group_goes_to_training_whole():
    table = pd.DataFrame(
        dict(
            id=[f"{i}" for i in range(60)],
            image="",
            text="t",
            label=["a"] * 40 + ["b"] * 20,
            group=[""] * 40 + ["one"] * 20,
        )
    )
    made = assign_splits(Examples(table)).table
    assert set(made[made.label == "b"].split) == {"train"}


def test_a_group_of_several_classes_stays_together():
    table = pd.DataFrame(
        dict(
            id=[f"{i}" for i in range(300)],
            image="",
            text="t",
            label=list("abc") * 100,
            group=[f"g{i // 6}" for i in range(300)],
        )
    )
    made = assign_splits(Examples(table)).table
    assert made.groupby("group").split.nunique().max() == 1 and set(made.split) == set(SPLITS)


def test_one_class_left_is_an_error():
    table = pd.DataFrame(dict(id=[f"{i}" for i in range(33)], image="", text="t", label=["a"] * 30 + ["b"] * 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match="fewer than two classes are left.*lower minimum=5"):
            assign_splits(Examples(table))
    with pytest.raises(ValueError, match="sum to 1"):
        assign_splits(Examples(table), ratios=(0.8, 0.1, 0.2))


def test_tiny_classes_join_an_other_that_is_there():
    labels = ["a"] * 30 + ["Other"] * 3 + ["b"] * 2
    table = pd.DataFrame(dict(id=[f"{i}" for i in range(35)], image="", text="t", label=labels))
    with pytest.warns(UserWarning, match="2 tiny classes, 5 items, merged into Other: Other, b"):
        assert merge_tiny(Examples(table)).table.label.value_counts()["Other"] == 5


def test_equal_and_similar_images_are_on_the_card(tmp_path):
    examples = make(tmp_path / "images")
    path = examples.table.image
    Path(path[1]).write_bytes(Path(path[0]).read_bytes())
    Image.open(path[2]).save(path[3], quality=60)
    card = card_of(build_dataset(assign_splits(examples), 32, tmp_path / "cache"))
    assert [sorted(p) for p in card["duplicates"]["exact"]["first"]] == [["o0000", "o0001"]]
    split = assign_splits(examples).table.set_index("id").split
    assert card["duplicates"]["exact"]["across_splits"] == int(split.o0000 != split.o0001)
    assert card["duplicates"]["near"]["across_splits"] == sum(
        split[a] != split[b] for a, b in card["duplicates"]["near"]["first"]
    )
    assert ["o0002", "o0003"] in [sorted(p) for p in card["duplicates"]["near"]["first"]]
    assert set(card_tables(card)) == {"classes", "text", "missing", "duplicates", "skipped", "tiny"}
    assert "nothing to list" in show_card(card).data and "made" in show_card(card).data


def test_near_pairs_of_nothing_and_of_equals():
    assert near_pairs([]).shape == (0, 2) and near_pairs([7]).shape == (0, 2)
    assert near_pairs([7, 7, 7]).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_take_keeps_items_together():
    data = ExampleData(
        pixels=np.arange(5 * 12, dtype=np.uint8).reshape(5, 2, 2, 3),
        label=np.arange(5),
        ids=np.array(list("abcde"), object),
        texts=[[c] for c in "abcde"],
        split=np.array(["train", "test", "train", "test", "test"], object),
        class_names=list("vwxyz"),
    )
    part = data.take([3, 0])
    assert (
        part.ids.tolist() == ["d", "a"]
        and part.texts == [["d"], ["a"]]
        and part.pixels[1, 0, 0, 0] == 0
        and part.class_names == list("vwxyz")
    )
    assert data.select("train").ids.tolist() == ["a", "c"] and data.select("test").label.tolist() == [1, 3, 4]
    assert data.take(data.label > 2).texts == [["d"], ["e"]] and data.take(slice(1, 3)).texts == [["b"], ["c"]]
    with pytest.raises(ValueError, match="no split is called 'val'"):
        data.select("val")


def test_absent_sets_are_named(tmp_path):
    with pytest.raises(DataError, match="build the set with build_dataset"):
        load_examples(tmp_path)
    with pytest.raises(DataError, match="folder is absent"):
        data_fingerprint(tmp_path / "none")
    with pytest.raises(DataError, match="call assign_splits first"):
        build_dataset(make(tmp_path / "images"), 16, tmp_path / "cache")


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid"), reason="POSIX only")
def test_home_is_the_default_place(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    folder = build_dataset(assign_splits(make(tmp_path / "images")), 16)
    assert folder.parent == tmp_path.resolve() / "data" / "cache"
