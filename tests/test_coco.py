"What the notebook data/08_coco does not show: bad files, odd folders, several splits, the label by pycocotools."

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from vbg.core.files import DataError
from vbg.data.coco import COCO, PER_IMAGE, SUPERCATEGORIES, areas, coco_categories, read_coco

IDS = coco_categories().set_index("name").id


def box(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def scene(images, seed=0, name="{:012d}.jpg"):
    "Random rectangles of random categories, some of them crowds."
    rng = np.random.default_rng(seed)
    annotations = []
    for image in images:
        for _ in range(rng.integers(1, 6)):
            x, y, w, h = (int(v) for v in rng.integers(1, 32, 4))
            crowd = bool(rng.random() < 0.1)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image,
                    category_id=int(rng.choice(IDS)),
                    area=w * h,
                    iscrowd=int(crowd),
                    bbox=[x, y, w, h],
                    segmentation=dict(size=[64, 64], counts=[0, w * h, 64 * 64 - w * h]) if crowd else box(x, y, w, h),
                )
            )
    return dict(
        images=[dict(id=i, width=64, height=64, file_name=name.format(i)) for i in images],
        annotations=annotations,
        categories=coco_categories().to_dict("records"),
    )


def speak(images, n=5):
    return [dict(id=100 * i + k, image_id=i, caption=f"Caption {k} of {i}") for i in images for k in range(n)]


def write(folder, block, captions, split="train2017", pictures=True):
    for name in ("annotations", split):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(block))
    (folder / "annotations" / f"captions_{split}.json").write_text(
        json.dumps(dict(images=block["images"], annotations=captions))
    )
    for image in block["images"] if pictures else ():
        (folder / split / image["file_name"]).touch()
    return folder


def lenient(folder, **how):
    "Random scenes may hold a class once: that is another test's matter."
    return read_coco(folder, lenient=True, **how)


def loaded(folder, split="train2017"):
    return COCO(str(folder / "annotations" / f"instances_{split}.json"))


IMAGES = list(range(1, 301, 3))


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "coco", scene(IMAGES), speak(IMAGES))


def test_categories_are_those_of_the_published_files():
    assert sum(map(len, SUPERCATEGORIES.values())) == 80 and len(SUPERCATEGORIES) == 12
    assert (IDS["person"], IDS["bench"], IDS["cake"], IDS["potted plant"], IDS["refrigerator"], IDS["teddy bear"]) == (
        1,
        15,
        61,
        64,
        82,
        88,
    )


@pytest.mark.parametrize("label", ["category", "supercategory"])
@pytest.mark.parametrize("crowd", [True, False])
def test_label_against_a_plain_loop(folder, label, crowd):
    coco, block = loaded(folder), json.loads((folder / "annotations" / "instances_train2017.json").read_text())
    name = {c["id"]: c["name" if label == "category" else "supercategory"] for c in block["categories"]}
    first = {}
    for c in block["categories"]:
        first.setdefault(name[c["id"]], c["id"])
    found = {i: x for i, x in areas(coco, label, crowd=crowd).drop_duplicates("image_id")[["image_id", "key"]].values}
    for image in IMAGES:
        total = {}
        for a in coco.imgToAnns[image]:
            if crowd or not a["iscrowd"]:
                total[name[a["category_id"]]] = total.get(name[a["category_id"]], 0) + a["area"]
        best = min(total, key=lambda k: (-total[k], first[k])) if total else None
        assert found.get(image) == best


def test_tie_goes_to_the_supercategory_with_the_lowest_id(tmp_path):
    "Also where the ids of a super-category are not consecutive, which no published file shows."
    block = scene([1, 2])
    block["categories"] = [dict(id=i, name=f"c{i}", supercategory=s) for i, s in ((1, "a"), (2, "b"), (4, "a"))]
    block["annotations"] = [
        dict(
            id=10 * i + c,
            image_id=i,
            category_id=c,
            area=50,
            iscrowd=0,
            bbox=[0, 0, 5, 10],
            segmentation=box(0, 0, 5, 10),
        )
        for i in (1, 2)
        for c in (2, 4)
    ]
    assert read_coco(write(tmp_path, block, speak([1, 2]))).table.label.tolist() == ["a", "a"]


def test_covered_area_is_the_union_of_masks(folder):
    coco = loaded(folder)
    got = areas(coco, "supercategory", "covered").set_index(["image_id", "key"]).area
    group = {c["id"]: c["supercategory"] for c in coco.dataset["categories"]}
    for (image, key), size in got.items():
        masks = [coco.annToMask(a) for a in coco.imgToAnns[image] if group[a["category_id"]] == key]
        assert size == np.maximum.reduce(masks).sum()
    total = areas(coco, "supercategory").set_index(["image_id", "key"]).area
    assert (got <= total[got.index]).all() and (got < total[got.index]).any()


def test_order_of_entries_does_not_matter(folder, tmp_path):
    block = scene(IMAGES)
    back = block | {k: block[k][::-1] for k in ("images", "annotations", "categories")}
    again = lenient(write(tmp_path / "back", back, speak(IMAGES)[::-1]), captions="random").table
    here = lenient(folder, captions="random").table
    for column in ("id", "label", "labels", "text"):
        assert again[column].tolist() == here[column].tolist()
    assert [list(t) for t in again.texts] == [list(t) for t in here.texts]


def test_captions(folder):
    one, every, draw = (lenient(folder, captions=c).table for c in ("one", "all", "random"))
    assert one.text.tolist() == draw.text.tolist() and "texts" not in one and "texts" not in every
    assert [len(t) for t in draw.texts] == [PER_IMAGE] * len(draw)
    assert all(t[0] == text for t, text in zip(draw.texts, draw.text))
    assert every.text[0] == " ".join(f"Caption {k} of {one.id[0]}." for k in range(5))


def test_reading_prints_nothing(folder, capsys):
    lenient(folder)
    assert capsys.readouterr().out == ""


def test_several_splits(tmp_path):
    a, b = [1, 2, 3, 4], [5, 6, 7, 8]
    write(tmp_path, scene(a), speak(a))
    write(tmp_path, scene(b, seed=1), speak(b), "val2017")
    assert len(lenient(tmp_path, split_name="val2017")) + len(lenient(tmp_path, split_name=["train2017"])) <= 8
    both = lenient(tmp_path)
    assert set(both.table.id) | set(both.skipped.id) == {str(i) for i in a + b} and len(both.files) == 4
    write(tmp_path, scene(a, name="COCO_train2014_{:012d}.jpg"), speak(a), "train2014")
    with pytest.raises(DataError, match="is in two splits.*2014 and 2017"):
        lenient(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b: b[: len(b) // 2], "not JSON"),
        (lambda b: "", "empty"),
        (lambda b: "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
        (lambda b: "[1, 2]", "no list 'images'"),
        (lambda b: b.replace('"annotations"', '"annotation"', 1), "no list 'annotations'"),
        (lambda b: b.replace('"image_id"', '"picture_id"', 1), "entry 1 of 'annotations' .id 1. has no 'image_id'"),
        (lambda b: b.replace('"name"', '"title"', 1), "entry 1 of 'categories' .id 1. has no 'name'"),
        (lambda b: b.replace('"file_name"', '"file"', 1), "entry 1 of 'images' .id 1. has no 'file_name'"),
        (
            lambda b: b.replace('"supercategory": "person"', '"group": "person"', 1),
            "'categories' .id 1. has no 'supercategory'",
        ),
        (
            lambda b: b.replace('"id": 4, "width"', '"id": 1, "width"', 1),
            "id 1 stands twice in 'images', with different entries",
        ),
        (
            lambda b: b.replace('"image_id": 1,', '"image_id": 999,', 1),
            "annotation 1 of image 999: image_id is not listed",
        ),
        (
            lambda b: b.replace('"category_id": ', '"category_id": 9', 1),
            "annotation 1 of image 1: category_id is not listed",
        ),
        (lambda b: b.replace('"area": ', '"area": -', 1), "annotation 1 of image 1: area is not a number"),
        (
            lambda b: b.replace('"area": ', '"area": "much", "old": ', 1),
            "annotation 1 of image 1: area is not a number",
        ),
        (
            lambda b: b.replace('{"id": 1, "width"', 'null, {"id": 1, "width"', 1),
            "entry 1 of 'images' is None, no object",
        ),
    ],
)
def test_bad_instances(folder, change, message):
    path = folder / "annotations" / "instances_train2017.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=f"(?s)instances_train2017.json.*({message}).*Remedy: "):
        read_coco(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b: b[:-9], "not JSON"),
        (lambda b: b.replace('"caption": ', '"text": ', 1), "entry 1 of 'annotations' .id 100. has no 'caption'"),
        (lambda b: b.replace('"image_id": 4,', '"image_id": 1,'), "no caption: id '4'"),
    ],
)
def test_bad_captions(folder, change, message):
    path = folder / "annotations" / "captions_train2017.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=f"captions_train2017.json.*{message}"):
        read_coco(folder, incomplete="error")


def test_bad_folder(folder, tmp_path):
    with pytest.raises(DataError, match="no annotations/instances_.*annotations_trainval2017.zip"):
        read_coco(tmp_path / "nowhere")
    with pytest.raises(DataError, match="the splits here are train2017"):
        read_coco(folder, split_name="val2017")
    (folder / "train2017" / "000000000007.jpg").unlink()
    with pytest.raises(DataError, match="image file is absent: id '7'"):
        read_coco(folder)
    assert "image file is absent" in set(lenient(folder).skipped.reason)
    (folder / "annotations" / "captions_train2017.json").unlink()
    with pytest.raises(DataError, match="captions_train2017.json: file is absent"):
        read_coco(folder)
    (folder / "train2017").rename(folder / "pictures")
    with pytest.raises(DataError, match="file is absent|unpack train2017.zip"):
        read_coco(folder)
    for wrong in (
        dict(label="thing"),
        dict(captions="five"),
        dict(area="big"),
        dict(incomplete="maybe"),
        dict(missing_image="no"),
    ):
        with pytest.raises(ValueError):
            read_coco(folder, **wrong)


def test_lenient_counts_every_skip(tmp_path):
    images = list(range(1, 61))
    block = scene(images)
    block["annotations"] = [a for a in block["annotations"] if a["image_id"] != 9]  # no annotation
    block["annotations"][0]["image_id"] = 999  # unknown image
    captions = [c for c in speak(images) if c["image_id"] != 12]  # no caption
    folder = write(tmp_path, block, captions)
    (folder / "train2017" / "000000000015.jpg").unlink()  # no image
    coco = lenient(folder, label="supercategory")
    reasons = coco.skipped.groupby("reason").id.agg(list).to_dict()
    assert (
        reasons["no annotation"] == ["9"]
        and reasons["no caption"] == ["12"]
        and reasons["image file is absent"] == ["15"]
    )
    assert reasons["image_id is not listed in 'images'"] == ["annotation 1"]
    assert not set(coco.table.id) & {"9", "12", "15"}
    assert len(coco) + coco.skipped.id.str.isdigit().sum() == 60


def test_images_with_crowds_only(tmp_path):
    block = scene([1, 2, 3, 4])
    for a in block["annotations"]:
        a.update(
            category_id=1,
            iscrowd=int(a["image_id"] == 1),
            segmentation=dict(size=[64, 64], counts=[0, a["area"], 4096 - a["area"]])
            if a["image_id"] == 1
            else a["segmentation"],
        )
    folder = write(tmp_path, block, speak([1, 2, 3, 4]))
    assert read_coco(folder).table.id.tolist() == ["1", "2", "3", "4"]
    for how in (dict(crowd=False), dict(area="single")):
        coco = read_coco(folder, **how)
        assert coco.table.id.tolist() == ["2", "3", "4"] and coco.skipped.id.tolist() == ["1"]


def test_images_in_an_images_folder(folder):
    (folder / "images").mkdir()
    (folder / "train2017").rename(folder / "images" / "train2017")
    assert lenient(folder).table.image.str.contains("images/train2017", regex=False).all()


def small(images=6, category=(18, 44)):
    "Images 1 to 6; a square of 100 pixels of either category in each: dog (animal), bottle (kitchen)."
    pictures = [dict(id=i, width=40, height=40, file_name=f"{i:012d}.jpg") for i in range(1, images + 1)]
    boxes = [dict(id=i, image_id=i, category_id=category[i % 2], area=100.0, bbox=[0, 0, 10, 10]) for i in range(1, 7)]
    entries = [b | dict(iscrowd=0, segmentation=box(0, 0, 10, 10)) for b in boxes]
    return dict(images=pictures, annotations=entries, categories=coco_categories().to_dict("records"))


def spoken(images=6):
    return [dict(id=i, image_id=i, caption=f"Thing {i} on a table") for i in range(1, images + 1)]


def changed(block, said, /, **how):
    "Change entries in place: list -> function of an entry."
    for name, change in how.items():
        for entry in said if name == "captions" else block[name]:
            change(entry)
    return block, said


WHOLE = ["kitchen", "animal"] * 3


@pytest.mark.parametrize(
    "name, change",
    [
        ("annotations", lambda a: a.update(area=str(a["area"]))),
        ("annotations", lambda a: a.update(area=[a["area"]])),
        ("annotations", lambda a: a.update(area=None)),
        ("annotations", lambda a: a.pop("area")),
        ("annotations", lambda a: (a.pop("area"), a.pop("segmentation"))),
        ("annotations", lambda a: (a.pop("area"), a.update(segmentation=[]))),
        ("annotations", lambda a: (a.pop("area"), a.update(segmentation=None, bbox=["0", "0", "10", "10.0"]))),
        ("annotations", lambda a: (a.pop("area"), a.pop("segmentation"), a.update(bbox="0 0 10 10"))),
        ("annotations", lambda a: (a.pop("area"), a.update(segmentation=["0 0"], bbox=[0, 0, 10, 10]))),
        ("annotations", lambda a: a.update(image_id=str(a["image_id"]), category_id=float(a["category_id"]))),
        ("annotations", lambda a: a.update(id=7)),
        ("annotations", lambda a: a.pop("id")),
        ("annotations", lambda a: a.pop("iscrowd")),
        ("annotations", lambda a: a.update(iscrowd="0")),
        ("annotations", lambda a: a.update(iscrowd=None)),
        ("images", lambda i: i.update(id=str(i["id"]))),
        ("images", lambda i: i.update(id=float(i["id"]))),
        ("images", lambda i: (i.pop("width"), i.pop("height"))),
        ("images", lambda i: i.update(license=None, date_captured=None)),
        ("images", lambda i: i.update(coco_url=f"http://images.cocodataset.org/{i.pop('file_name')}")),
        ("categories", lambda c: c.update(id=str(c["id"]))),
        ("categories", lambda c: c.update(name=f" {c['name']} ")),
        ("captions", lambda c: c.update(image_id=f" {c['image_id']}.0")),
        ("captions", lambda c: c.pop("id")),
        ("captions", lambda c: c.update(id=1)),
        ("captions", lambda c: c.update(caption=[c["caption"]])),
    ],
)
def test_other_spellings_give_the_same_examples(tmp_path, name, change):
    block, captions = small(), spoken()
    write(tmp_path, block, captions)
    folder = tmp_path / "annotations"
    block, captions = changed(*map(json.loads, map(json.dumps, (block, captions))), **{name: change})
    (folder / "instances_train2017.json").write_text(json.dumps(block))
    (folder / "captions_train2017.json").write_text(json.dumps(dict(annotations=captions)))
    for area in ("total", "covered"):
        read = read_coco(tmp_path, area=area).table
        assert read.label.tolist() == WHOLE and read.text.tolist() == [f"Thing {i} on a table." for i in range(1, 7)]
        assert [sum(json.loads(a)["areas"].values()) for a in read.attributes] == [100.0] * 6


@pytest.mark.parametrize(
    "outline",
    [
        [0, 0, 10, 0, 10, 10, 0, 10],
        [["0", "0", "10", "0", "10", "10", "0", "10"]],
        [[0, 0], [10, 0], [10, 10], [0, 10]],
        [[[0, 0], [10, 0], [10, 10], [0, 10]]],
        [[0, 0, 10, 0, 10, 10, 0, 10], [1, 1, 2, 2]],
        dict(size=["40", "40"], counts=["0", "100", "1500"]),
        dict(size=[40, 40], counts="0T3l^1"),
    ],
)
def test_an_outline_in_any_form_has_the_same_area(tmp_path, outline):
    block, captions = changed(small(), spoken(), annotations=lambda a: (a.pop("area"), a.update(segmentation=outline)))
    table = read_coco(write(tmp_path, block, captions), area="covered").table
    assert [sum(json.loads(a)["areas"].values()) for a in table.attributes] == [100.0] * 6


def test_run_lengths_of_another_size_are_refused(tmp_path):
    rle = dict(size=[64, 64], counts=[0, 100, 64 * 64 - 100])
    block, captions = changed(small(), spoken(), annotations=lambda a: a.update(segmentation=rle))
    folder = write(tmp_path, block, captions)
    with pytest.raises(DataError, match="annotation 1 of image 1: no outline or box of the image's size"):
        read_coco(folder, area="covered")
    assert read_coco(folder).table.label.tolist() == WHOLE  # the areas of the file need no outline


def test_categories_need_no_supercategory_where_the_label_is_the_category(tmp_path):
    block, captions = changed(small(), spoken(), categories=lambda c: c.pop("supercategory"))
    folder = write(tmp_path, block, captions)
    assert read_coco(folder, label="category").table.label.tolist() == ["bottle", "dog"] * 3
    with pytest.raises(DataError, match="has no 'supercategory'.*Remedy: pass label='category'"):
        read_coco(folder)


def test_ids_counted_anew_under_the_old_names(tmp_path):
    block, captions = changed(small(), spoken(), images=lambda i: i.update(file_name=f"{139 + i['id']:012d}.jpg"))
    table = read_coco(write(tmp_path, block, captions)).table
    assert table.label.tolist() == WHOLE and table.image.str.endswith("140.jpg").tolist()[0]


def test_ids_that_are_words(tmp_path):
    word = lambda key: lambda entry: entry.update({key: f"im-{entry[key]}"})
    block, captions = changed(
        small(), spoken(), images=word("id"), annotations=word("image_id"), captions=word("image_id")
    )
    assert read_coco(write(tmp_path, block, captions)).table.id.tolist() == [f"im-{i}" for i in range(1, 7)]


def test_words_and_numbers_as_ids(tmp_path):
    def rename(key):
        return lambda entry: entry.update({key: "x"}) if entry[key] == 2 else None

    block, captions = changed(
        small(), spoken(), images=rename("id"), annotations=rename("image_id"), captions=rename("image_id")
    )
    read = read_coco(write(tmp_path, block, captions)).table.set_index("id")
    assert read.label.to_dict() == dict(zip(["1", "x", *"3456"], WHOLE))


def test_an_entry_that_stands_twice_counts_once(tmp_path):
    block = small()
    block["annotations"] += block["annotations"][:1]
    block["images"] += block["images"][:1]
    table = read_coco(write(tmp_path, block, spoken())).table
    assert len(table) == 6 and json.loads(table.attributes[0])["areas"] == {"bottle": 100.0}


@pytest.mark.parametrize("caption", [None, "", " ", [], [None], float("nan")])
def test_an_image_without_caption_is_counted(tmp_path, caption):
    captions = spoken()
    captions[0]["caption"] = caption
    read = read_coco(write(tmp_path, small(), captions), lenient=True)
    assert read.skipped.values.tolist()[0][2:] == ["1", "no caption"] and "1" not in set(read.table.id)


def test_a_list_of_captions_is_several(tmp_path):
    captions = spoken()
    captions[0]["caption"] = ["a cat", "on a mat"]
    read = read_coco(write(tmp_path, small(), captions), captions="random").table
    assert list(read.texts[0]) == ["a cat", "on a mat"]


@pytest.mark.parametrize("caption", [5, True, {"en": "a cat"}])
def test_a_caption_that_is_no_text_is_named(tmp_path, caption):
    captions = spoken()
    captions[3]["caption"] = caption
    with pytest.raises(DataError, match="captions_train2017.json: caption 4 of image 4 is .*, no text"):
        read_coco(write(tmp_path, small(), captions))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_with_and_without_a_mark_of_byte_order(tmp_path, encoding):
    captions = spoken()
    captions[0]["caption"] = "Un café près du marché."
    folder = write(tmp_path, small(), captions)
    for path in (folder / "annotations").iterdir():
        path.write_bytes(json.dumps(json.loads(path.read_bytes()), ensure_ascii=False).encode(encoding))
    assert read_coco(folder).table.text[0] == "Un café près du marché."


def test_json_in_another_encoding_is_named(tmp_path):
    folder = write(tmp_path, small(), spoken())
    path = folder / "annotations" / "captions_train2017.json"
    path.write_bytes(path.read_text().replace("Thing 1", "Café").encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8: byte .* is 0xe9. Remedy: save it again with the encoding UTF-8"):
        read_coco(folder)


def test_json_with_a_slip_is_not_called_short(tmp_path):
    folder = write(tmp_path, small(), spoken())
    path = folder / "annotations" / "captions_train2017.json"
    path.write_text(path.read_text().replace(", ", ",, ", 1))
    with pytest.raises(DataError, match="not JSON: .*line 1 column .*Remedy: mend that place"):
        read_coco(folder)


def test_a_locale_that_is_not_utf8(tmp_path):
    captions = spoken()
    captions[0]["caption"] = "café"
    folder = write(tmp_path, small(), captions)
    for path in (folder / "annotations").iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding="utf-8")
    code = f"from vbg.data.coco import read_coco; print(ascii(read_coco({str(folder)!r}).table.text[0]))"
    env = os.environ | dict(PYTHONUTF8="0", LC_ALL="C", PYTHONCOERCECLOCALE="0")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "caf\\xe9." in done.stdout, done.stderr


@pytest.mark.parametrize(
    "name", ["train2017\\{}", "train2017/{}", "C:\\Users\\me\\{}", "./{}", "/data/coco/train2017/{}"]
)
def test_file_names_with_folders(tmp_path, name):
    block, folder = small(), write(tmp_path, small(), spoken())
    changed(block, [], images=lambda i: i.update(file_name=name.format(i["file_name"])))
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(block))
    assert read_coco(folder).table.image.tolist() == [str(folder / "train2017" / f"{i:012d}.jpg") for i in range(1, 7)]


def test_two_folders_with_the_same_file_name(tmp_path):
    block, folder = small(), write(tmp_path, small(), spoken(), pictures=False)
    changed(block, [], images=lambda i: i.update(file_name=f"{'ab'[i['id'] % 2]}\\{i['id'] // 2}.jpg"))
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(block))
    for image in block["images"]:
        path = folder / "train2017" / image["file_name"].replace("\\", "/")
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert read_coco(folder).table.image.nunique() == 6


def test_names_of_2014_crowds_and_an_image_without_annotation(tmp_path):
    block, captions = small(images=7), spoken(7)
    changed(block, [], images=lambda i: i.update(file_name=f"COCO_train2014_{i['id']:012d}.jpg"))
    block["annotations"][0] |= dict(iscrowd=1, segmentation=dict(size=[40, 40], counts=[0, 100, 1500]))
    block["annotations"][1].pop("iscrowd")
    read = read_coco(write(tmp_path, block, captions, "train2014"))
    assert read.table.label.tolist() == WHOLE and read.skipped.id.tolist() == ["7"]
