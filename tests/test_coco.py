"What the notebook data/08_coco does not show: bad files, odd folders, several splits, the label by pycocotools."

import json

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
        (lambda b: b.replace('"area"', '"size"', 1), "has no 'area'"),
        (
            lambda b: b.replace('"supercategory": "person"', '"group": "person"', 1),
            "'categories' .id 1. has no 'supercategory'",
        ),
        (
            lambda b: b.replace('"id": 4, "width"', '"id": 1, "width"', 1),
            "id 1 stands twice in 'images'|has the file name",
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
        (lambda b: b.replace("000000000004.jpg", "000000000005.jpg", 1), "image 4 has the file name 000000000005.jpg"),
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
    assert reasons["image_id is not listed"] == ["annotation 1"]
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
