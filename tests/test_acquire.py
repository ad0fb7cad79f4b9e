"""Acquisition of real objects, against a server as bad as the real ones; what comes is read with the real readers."""

import csv
import errno
import functools
import hashlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bad_server import BadServer
from conftest import ROOT
from PIL import Image

from vbg.core.files import DataError, RunError
from vbg.data.acquire import coco, met
from vbg.data.acquire.coco import COCO_BASE, acquire_coco
from vbg.data.acquire.manifest import Manifest
from vbg.data.acquire.met import MEDIA, MET_HOSTS, OBJECT, POINTER, acquire_met
from vbg.data.acquire.web import Manners, Refused, Web, opened
from vbg.data.coco import coco_categories, read_coco
from vbg.data.met import MET_COLUMNS, read_met
from vbg.reports import command
from vbg.runs.version import checksum

QUICK = Manners(interval=0, block=0.02, blocks=3, tries=3, backoff=0, timeout=0.25, slowest=100)
KINDS = ("Paintings", "Ceramics", "Lacquer")
CLASSES = ["painting", "ceramics", "lacquerware"]
OBJECTS = range(101, 125)
PATIENCE = 120  # seconds for a process; on a busy machine it takes 50 to start


def jpeg(k, side=48):
    "A photograph of noise, so that half of it is half of it."
    made, rng = io.BytesIO(), np.random.default_rng(k)
    Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8)).save(made, "JPEG", quality=60)
    return made.getvalue()


def place(url):
    "Path of a published file on the mirror."
    return "/" + url.removeprefix("https://")


def table_of(objects, **more):
    made = io.StringIO()
    rows = csv.DictWriter(made, MET_COLUMNS, restval="")
    rows.writeheader()
    for k in objects:
        kind = KINDS[k % 3]
        row = {"Object ID": k, "Is Public Domain": "True", "Classification": kind, "Object Name": kind[:-1]}
        rows.writerow(row | {"Title": f'{kind} "{k}", with\na lid', "Medium": "Öl"} | more)
    return made.getvalue().encode("utf-8-sig")


def lfs(content):
    oid = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()


def image_of(k):
    return f"https://images.metmuseum.org/CRDImages/as/web-large/DT {k}.jpg"


@functools.cache
def museum():
    "The mirror of a museum of 24 objects in three classes."
    table = table_of(OBJECTS)
    tree = {place(POINTER.format("master")): lfs(table), place(MEDIA.format("master")): table}
    for k in OBJECTS:
        told = dict(objectID=k, isPublicDomain=True, primaryImage="", primaryImageSmall=image_of(k))
        tree |= {place(OBJECT.format(k)): json.dumps(told).encode(), place(image_of(k)): jpeg(k)}
    return tree


@functools.cache
def split():
    "The mirror of a split of COCO of 20 images in two supercategories; image 20 has no annotation."
    names = [f"{k:012}.jpg" for k in range(1, 21)]
    address = "http://farm1.staticflickr.com/1/{}_z.jpg"
    images = [dict(id=k, file_name=n, license=k % 2 + 1, flickr_url=address.format(k)) for k, n in enumerate(names, 1)]
    box = dict(bbox=[0, 0, 9, 9], area=81, iscrowd=0)
    boxes = [dict(box, id=k, image_id=k, category_id=(17, 18, 44)[k % 3]) for k in range(1, 20)]
    licences = [dict(id=1, name="Attribution-NonCommercial", url="by-nc"), dict(id=2, name="Attribution", url="by")]
    shown = dict(images=images, annotations=boxes, categories=coco_categories().to_dict("records"), licenses=licences)
    said = [dict(id=9 * k + j, image_id=k, caption=f"Thing {k} {j}") for k in range(1, 21) for j in range(5)]
    photos = {f"val2017/{name}": jpeg(k) for k, name in enumerate(names, 1)}
    notes = {"annotations/instances_val2017.json": json.dumps(shown).encode()}
    notes["annotations/captions_val2017.json"] = json.dumps(dict(images=images, annotations=said)).encode()
    tree = {coco.ANNOTATIONS: packed(notes), "zips/val2017.zip": packed(photos)} | photos
    return {place(f"{COCO_BASE}/{name}"): content for name, content in tree.items()}


def packed(members):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as f:
        for name, content in members.items():
            f.writestr(name, content)
    return made.getvalue()


@pytest.fixture
def server():
    made = BadServer({**museum(), **split()})
    yield made
    made.close()


@pytest.fixture(autouse=True)
def checksums(monkeypatch):
    "Those of the archives on the mirror."
    tree = {name.removeprefix(place(COCO_BASE) + "/"): content for name, content in split().items()}
    made = {name: f"sha1:{hashlib.sha1(tree[name]).hexdigest()}" for name in (coco.ANNOTATIONS, "zips/val2017.zip")}
    monkeypatch.setattr(coco, "CHECKSUMS", made)


@pytest.fixture
def lines():
    return []


@pytest.fixture
def ask(server, tmp_path, lines):
    "Acquire from the mirror into one folder."
    how = dict(manners=QUICK, server=server.url, say=lines.append)
    return lambda n=12, **more: acquire_met(tmp_path / "met", n, **dict(dict(classes=CLASSES), **how) | more)


@pytest.fixture
def ask_coco(server, tmp_path, lines):
    how = dict(manners=QUICK, server=server.url, say=lines.append)
    return lambda **more: acquire_coco(tmp_path / "coco", **how | more)


def is_whole(folder, images="images"):
    "No parts, each file as its row tells, each image in the manifest."
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert not [name for name in files if "part" in name], files
    rows = {row["file"]: row for row in Manifest(folder).rows.values() if row["file"]}
    for name, row in rows.items():
        assert checksum(folder / name) == row["sha256"] and int(row["bytes"]) == (folder / name).stat().st_size
        assert row["rights"] and row["source"] and time.strptime(row["date"], "%Y-%m-%dT%H:%M:%SZ")
    assert {name for name in files if name.startswith(f"{images}/")} <= rows.keys()
    return rows


# ---- the Met


def test_what_is_acquired_is_what_the_reader_reads(server, ask, lines, tmp_path):
    examples, folder = ask(), tmp_path / "met"
    read = read_met(folder, label_set="fine")
    assert read.table.equals(examples.table) and len(read) == 12 and set(read.table.label) == set(CLASSES)
    assert read.table.text.str.startswith(('Paintings "', 'Ceramics "', 'Lacquer "')).all()
    rows = is_whole(folder)
    assert rows["published/MetObjects.csv"]["source"] == MEDIA.format("master")
    for ident in read.table.id:
        row = rows[f"images/{ident}.jpg"]
        assert row["rights"].startswith("CC0 1.0") and row["source"] == image_of(ident)
        assert (folder / row["file"]).read_bytes() == jpeg(int(ident))
    with open(folder / "MetObjects.csv", encoding="utf-8-sig", newline="") as f:
        kept = {row["Object ID"]: row for row in csv.DictReader(f)}
    published = {r["Object ID"]: r for r in csv.DictReader(io.StringIO(table_of(OBJECTS).decode("utf-8-sig")))}
    assert kept == {ident: published[ident] for ident in read.table.id}
    assert len(server.asked) == 2 + 2 * 12
    said = "\n".join(lines)
    assert "12 images to come: about 1.3 MB in" in said and "12 objects in" in said


def test_a_second_call_asks_for_nothing_and_a_larger_one_for_the_rest(server, ask):
    first = set(ask().table.id)
    server.asked.clear()
    assert set(ask().table.id) == first and not server.asked
    assert first < set(ask(20).table.id) and len(server.asked) == 2 * 8
    assert set(ask().table.id) == first, "the smaller choice can be had again"


ONCE = "blocked 403,page 200,page unlike one,page called image,too many 429,error 502,silent,stall,drip,cut".split(",")
ONCE += "cut unsaid,length too short,length too long,hangs up,pointer,half an image,moved".split(",")


@pytest.mark.parametrize("fault", ONCE)
def test_an_image_that_is_spoilt_once_comes_whole(server, ask, lines, fault, tmp_path):
    wanted = next(iter(ask(2).table.id))
    (tmp_path / "met" / "images" / f"{wanted}.jpg").unlink()
    server.faults[place(image_of(wanted))], server.asked[:] = [fault], []
    server.tree[place(image_of(wanted)) + ".moved"] = jpeg(int(wanted))
    assert wanted in set(ask(2).table.id)
    asked = [path for path, _ in server.asked if path.startswith("/images")]
    assert len(asked) == 2 and (tmp_path / "met" / "images" / f"{wanted}.jpg").read_bytes() == jpeg(int(wanted))
    is_whole(tmp_path / "met")
    blocks = [line for line in lines if "wait" in line]
    assert bool(blocks) == (fault in ("blocked 403", "too many 429") or fault.startswith("page"))


@pytest.mark.parametrize(
    "fault", ["blocked 403", "page 200", "error 502", "cut", "silent", "pointer", "hangs up", "other"]
)
def test_an_answer_of_the_api_that_is_spoilt_once_is_asked_for_again(server, ask, fault):
    for k in OBJECTS:
        server.faults[place(OBJECT.format(k))] = [fault]
    assert len(ask(2)) == 2 and not any("without image" in path for path in server.paths())
    assert len(server.asked) == 2 + 2 * 3


@pytest.mark.parametrize("fault", ["cut", "stall", "cut unsaid", "length too short", "length too long"])
def test_the_table_goes_on_where_it_was_cut_off(server, ask, fault, tmp_path):
    media = place(MEDIA.format("master"))
    server.faults[media] = [fault]
    assert len(ask(2)) == 2
    spans = [span for path, span in server.asked if path == media]
    rest = f"bytes={len(server.tree[media]) // 2}-"
    assert spans == [""] + [rest] * (fault != "length too long"), (
        "too long a length: all is there, and fits its checksum"
    )
    assert (tmp_path / "met" / "published" / "MetObjects.csv").read_bytes() == server.tree[media]
    is_whole(tmp_path / "met")


def test_a_table_that_changes_while_it_comes_is_no_mixture(server, ask, tmp_path):
    media, pointer = place(MEDIA.format("master")), place(POINTER.format("master"))
    newer = table_of(range(101, 125), Culture="Cretan")
    server.faults[media] = ["cut"]
    inner = server.tree.__class__.get

    class Renewed(dict):
        def get(self, path, default=None):
            if [p for p, _ in server.asked].count(media) == 2:  # the second request finds the new one
                self.update({media: newer, pointer: lfs(newer)})
            return inner(self, path, default)

    server.tree = Renewed(server.tree)
    assert len(ask(2)) == 2
    assert (tmp_path / "met" / "published" / "MetObjects.csv").read_bytes() == newer
    assert server.paths()[:5].count("MetObjects.csv") == 5, "pointer, cut, rest; pointer, all"


@pytest.mark.parametrize("fault", ["always other", "always longer", "always half an image"])
def test_a_table_that_never_fits_its_checksum_is_refused(server, ask, fault, tmp_path):
    server.faults[place(MEDIA.format("master"))] = [fault]
    with pytest.raises(RunError, match="published one|in place of|broke off"):
        ask(2)
    assert not (tmp_path / "met" / "published" / "MetObjects.csv").exists()
    assert not (tmp_path / "met" / "MetObjects.csv").exists()


@pytest.mark.parametrize("fault", ["always pointer", "always gone 410", "always denied 403"])
def test_the_lfs_server_is_asked_where_the_media_address_fails(server, ask, fault, tmp_path):
    signed = "https://github-cloud.githubusercontent.com/alambic/media/1/ab/cd?X-Amz-Signature=77&expires=1"
    answer = {"objects": [{"actions": {"download": {"href": signed}}}]}
    server.tree[place(met.LFS)] = json.dumps(answer).encode()
    server.tree[place(signed.partition("?")[0])] = table_of(OBJECTS)
    server.faults[place(MEDIA.format("master"))] = [fault]
    assert len(ask(2)) == 2
    row = Manifest(tmp_path / "met").rows["MetObjects.csv"]
    assert row["source"] == signed.partition("?")[0], "the signature is nobody's business"


def test_a_repository_without_lfs_holds_the_table_itself(server, ask):
    server.tree[place(POINTER.format("master"))] = table_of(OBJECTS)
    assert len(ask(2)) == 2 and "media.githubusercontent.com" not in str(server.asked)


def test_objects_without_an_image_are_replaced_by_others_and_not_asked_for_again(server, ask, lines, tmp_path):
    chosen = ask().table.id.tolist()
    answers = [dict(isPublicDomain=False), dict(primaryImageSmall=""), dict(primaryImageSmall=None, primaryImage=None)]
    for ident, answer in zip(chosen, answers):
        told = json.loads(museum()[place(OBJECT.format(ident))])
        server.tree[place(OBJECT.format(ident))] = json.dumps(told | answer).encode()
    server.faults[place(OBJECT.format(chosen[3]))] = ["always gone 410"]
    for path in (tmp_path / "met").rglob("*.*"):
        path.unlink()
    second = ask().table
    assert len(second) == 12 and not set(chosen[:4]) & set(second.id) and set(chosen[4:]) < set(second.id)
    rows = Manifest(tmp_path / "met").rows
    told = [rows[i]["problem"] for i in chosen[:4]]
    assert told == ["not in the public domain any more", "no image", "no image", "status 410"]
    assert any(line.startswith("without image: no image 2") for line in lines)
    ask(24)
    server.asked.clear()
    ask(24)
    assert not server.asked


def test_shares_stay_as_chosen_when_objects_fail(server, ask):
    for k in range(103, 112, 3):  # three of one class
        server.faults[place(OBJECT.format(k))] = ["always gone 410"]
    assert ask(12, share="equal").table.label.value_counts().to_dict() == dict.fromkeys(CLASSES, 4)


def test_what_failed_is_asked_for_again_by_the_next_call(server, ask, tmp_path):
    every = len(OBJECTS)
    server.faults[place(image_of(110))] = ["always error 502"]
    with pytest.raises(RunError, match=r"1 failed for now \(status 502\): give the same command again"):
        ask(every)
    assert len(read_met(tmp_path / "met", label_set="fine")) == every - 1
    assert Manifest(tmp_path / "met").rows["110"]["problem"] == "status 502"
    server.faults.clear()
    server.asked.clear()
    assert len(ask(every)) == every and server.paths() == ["110", "DT 110.jpg"]
    is_whole(tmp_path / "met")


def test_three_failures_in_a_row_end_it_and_what_came_is_kept(server, ask, lines, tmp_path):
    for k in range(112, 125):
        server.faults[place(image_of(k))] = ["always hangs up"]
    with pytest.raises(RunError, match="nothing comes any more.*give the same command again later"):
        ask(24)
    failed = [row for row in Manifest(tmp_path / "met").rows.values() if row["problem"]]
    assert 3 <= len(failed) < 13
    with suppress(DataError):  # a class of one is left out of the table
        assert set(read_met(tmp_path / "met", label_set="fine").table.id.astype(int)) <= set(range(101, 112))
    is_whole(tmp_path / "met")


def test_a_block_that_does_not_end_ends_the_acquisition_with_growing_waits(server, ask, lines, tmp_path):
    first = set(ask(6).table.id)
    for path in server.tree:
        if path.startswith("/collectionapi"):
            server.faults[path] = ["always blocked 403"]
    lines.clear()
    with pytest.raises(RunError, match="the server blocks us"):
        ask(12, manners=replace(QUICK, block=1.0, longest=0.05))
    assert len([line for line in lines if "wait 0 s" in line]) == 3
    assert set(read_met(tmp_path / "met", label_set="fine").table.id) == first, "what came is readable"
    server.faults.clear()
    server.asked.clear()
    assert len(ask(12)) == 12 and len(server.asked) == 2 * 6


def test_the_guard_of_the_museum_is_waited_for(server, ask, lines):
    server.most = 30
    assert len(ask(24, manners=replace(QUICK, block=0.3))) == 24
    assert sum("blocked (status 403, a web page): wait 0 s, then slower" in line for line in lines) == 1
    assert len(server.asked) == 2 + 2 * 24 + 1, "what was blocked is asked for again, and nothing else"


def test_one_request_a_second_to_each_host_by_default(server, ask, monkeypatch):
    assert Manners().interval == 1.0 and Manners().block == 60.0
    waits, now = [], [0.0]
    monkeypatch.setattr("vbg.data.acquire.web.time.monotonic", lambda: now[0])
    monkeypatch.setattr("vbg.data.acquire.web.time.sleep", lambda s: (waits.append(s), now.__setitem__(0, now[0] + s)))
    ask(4, manners=replace(QUICK, interval=1.0))
    hosts = [path.split("/")[1] for path, _ in server.asked]
    assert len(waits) == len(hosts) == 10
    assert sum(waits) == pytest.approx(9.0), "on the mirror all hosts are one"


def test_a_redirect_to_another_host_is_refused_and_nothing_is_asked_there(server, ask, tmp_path):
    other = BadServer(museum())
    server.elsewhere, chosen = other.url, ask(6).table.id.tolist()
    (tmp_path / "met" / "images" / f"{chosen[0]}.jpg").unlink()
    server.faults[place(image_of(chosen[0]))] = ["always to another host"]
    ask(6)
    assert "redirect away from the mirror" in Manifest(tmp_path / "met").rows[chosen[0]]["problem"]
    assert other.asked == []
    other.close()


def test_a_redirect_that_turns_in_a_circle_ends(server, ask, tmp_path):
    server.faults[place(MEDIA.format("master"))] = ["always to itself"]
    with pytest.raises(Refused, match="more than five redirects"):
        ask(2)


ADDRESSES = ["http://images.metmuseum.org/a.jpg", "https://images.example.org/a.jpg", "file:///etc/passwd", "//x/a.jpg"]


@pytest.mark.parametrize("address", [*ADDRESSES, "https://images.metmuseum.org@127.0.0.1/a.jpg"])
def test_an_address_on_another_host_is_not_asked(server, ask, address, tmp_path):
    told = dict(objectID=110, isPublicDomain=True, primaryImageSmall=address)
    server.tree[place(OBJECT.format(110))] = json.dumps(told).encode()
    with pytest.raises(RunError, match="1 failed for now"):
        ask(len(OBJECTS))
    assert "only https to" in Manifest(tmp_path / "met").rows["110"]["problem"]
    assert "a.jpg" not in server.paths()


def test_without_a_mirror_only_https_to_named_hosts(monkeypatch):
    web, asked = Web(MET_HOSTS, QUICK), []

    def request(method, target, **how):
        asked.append((target, how["allow_redirects"]))
        raise ConnectionError

    monkeypatch.setattr(web.session, "request", request)
    for url in ADDRESSES:
        with pytest.raises(Refused):
            opened(web, url)
    with pytest.raises(RunError, match="no answer"):
        opened(web, OBJECT.format(1))
    assert asked == [(OBJECT.format(1), False)] and web.session.verify is True


def test_an_answer_without_end_is_left(server, ask, monkeypatch):
    server.faults[place(image_of(110))] = ["always never ends"]
    wanted = met.image_wanted
    monkeypatch.setattr(met, "image_wanted", lambda *words: replace(wanted(*words), limit=10**6))
    with pytest.raises(RunError, match=r"1 failed for now \(more than 1,000,000 bytes\)"):
        ask(len(OBJECTS))


def test_a_file_that_was_changed_or_lost_here_comes_again(server, ask, tmp_path):
    one, two, three, *_ = ask().table.id
    images = tmp_path / "met" / "images"
    (images / f"{one}.jpg").write_bytes(b"x" * len(jpeg(int(one))))
    (images / f"{two}.jpg").unlink()
    (images / f"{three}.jpg").write_bytes(jpeg(int(three))[:100])
    server.asked.clear()
    assert len(ask()) == 12 and sorted(server.paths()[1::2]) == sorted(f"DT {k}.jpg" for k in (one, two, three))
    is_whole(tmp_path / "met")


def test_an_image_put_there_by_hand_is_taken_and_a_broken_one_replaced(server, ask, tmp_path):
    images = tmp_path / "met" / "images"
    images.mkdir(parents=True)
    Image.new("RGB", (40, 40), "red").save(images / "105.png")
    (images / "106.jpg").write_bytes(b"<html>saved by mistake")
    ask(24)
    rows = Manifest(tmp_path / "met").rows
    assert rows["105"]["source"] == "found in the folder" and "DT 105.jpg" not in server.paths()
    assert (images / "106.jpg").read_bytes() == jpeg(106)
    is_whole(tmp_path / "met")


def test_a_table_at_hand_takes_the_place_of_the_published_one(server, ask, tmp_path):
    mine = tmp_path / "mine.csv"
    mine.write_bytes(table_of(range(101, 107)))
    assert set(ask(9, table=mine).table.id.astype(int)) == set(range(101, 107))
    assert "MetObjects.csv" not in server.paths()


@pytest.mark.parametrize(
    "how, said",
    [
        (dict(classes=["vases"]), "no label set has the classes vases.*amulet"),
        (dict(share="even"), "natural or equal"),
        (dict(n=1), "no class has two objects"),
    ],
)
def test_a_choice_that_cannot_be_is_told(server, ask, how, said):
    with pytest.raises(ValueError, match=said):
        ask(**how)
    assert not [path for path, _ in server.asked if path.startswith("/collectionapi")]


# ---- a full disk


@contextmanager
def small_disk(folder, size=200_000):
    "A disk of this size, where one may be made; else a stand-in that fails as one does."
    folder.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() == 0 and sys.platform == "linux" and not subprocess.run(words, capture_output=True).returncode:
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    with pytest.MonkeyPatch.context() as patch:

        def fsync(number):
            if sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) > size:
                raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "fsync", fsync)
        yield


@pytest.mark.parametrize("what", ["image", "table", "archive"])
def test_a_full_disk_leaves_nothing_half_written(server, tmp_path, lines, what, monkeypatch):
    monkeypatch.setattr("vbg.data.acquire.met.require_room", lambda *words: None)  # it is told beforehand: see below
    monkeypatch.setattr("vbg.data.acquire.coco.require_room", lambda *words: None)
    folder, how = tmp_path / "disk", dict(manners=QUICK, server=server.url, say=lines.append)
    big = {"image": place(image_of(110)), "table": place(MEDIA.format("master"))}
    if what == "table":
        table = table_of(OBJECTS, Provenance="") if False else table_of(range(101, 2000))
        server.tree |= {big[what]: table, place(POINTER.format("master")): lfs(table)}
    elif what == "image":
        server.tree[big[what]] = jpeg(110, 700)
    with small_disk(folder, 400_000 if what == "archive" else 200_000):
        if what == "archive":
            filler = folder / "filler"
            filler.write_bytes(b"x" * (400_000 - 30_000))
            call = functools.partial(acquire_coco, folder / "coco", **how)
        else:
            call = functools.partial(acquire_met, folder / "met", 24, classes=CLASSES, **how)
        with pytest.raises(DataError, match="the disk is full.*make room"):
            call()
        left = [p for p in folder.rglob("*") if p.is_file() and p.name != ".acquire.lock"]
        assert not [p for p in left if "part" in p.name], left
        is_whole(folder / ("coco" if what == "archive" else "met"))
        if what == "image":
            assert not (folder / "met" / "images" / "110.jpg").exists()
            server.tree[big[what]] = jpeg(110)
        elif what == "archive":
            filler.unlink()
        else:
            server.tree |= {big[what]: table_of(OBJECTS), place(POINTER.format("master")): lfs(table_of(OBJECTS))}
        assert len(call()) == (19 if what == "archive" else 24)
        is_whole(folder / ("coco" if what == "archive" else "met"), "val2017" if what == "archive" else "images")


def test_a_manifest_on_a_full_disk_keeps_its_last_whole_line(tmp_path, monkeypatch):
    manifest = Manifest(tmp_path)
    manifest.add("1", file="1.jpg")
    before, real = manifest.path.read_bytes(), open

    class Full:
        def __init__(self, *words):
            self.file = real(*words)

        def __enter__(self):
            return self

        def __exit__(self, *words):
            self.file.close()

        def write(self, content):
            self.file.write(content[:5])
            self.file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        "builtins.open", lambda path, mode="r", *w, **k: (Full if mode == "ab" else real)(path, mode, *w, **k)
    )
    with pytest.raises(OSError):
        manifest.add("2", file="2.jpg")
    assert manifest.path.read_bytes() == before and list(manifest.rows) == ["1"]


def test_too_little_room_is_told_before_anything_is_asked_for(server, ask, monkeypatch):
    monkeypatch.setattr("vbg.data.acquire.download.shutil.disk_usage", lambda folder: os.terminal_size((0, 0)) and FREE)
    with pytest.raises(DataError, match="are needed, and 0 MB are free"):
        ask()
    assert "collectionapi" not in str(server.asked)


class FREE:
    free = 2_000


# ---- stopped, killed


def command_line(server, folder, *words, interval="0.02"):
    call = [
        sys.executable,
        "-m",
        "vbg.reports.command",
        "acquire",
        "met",
        "--server",
        server.url,
        "--folder",
        str(folder),
    ]
    call += ["--interval", interval, "--n", "24", "--classes", ",".join(CLASSES), *words]
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    return subprocess.Popen(call, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(server, process, condition):
    "Until the server has seen enough."
    end = time.monotonic() + PATIENCE
    while not condition(server.asked) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()


def images_in(asked):
    return sum(path.startswith("/images") for path, _ in asked)


def test_killed_in_the_table_stopped_among_the_images_then_finished(server, tmp_path):
    folder, media = tmp_path / "met", place(MEDIA.format("master"))
    server.faults[media] = ["stall", "stall"]  # what came is on disk after the first; the second holds it there
    with command_line(server, folder) as process:
        wait_for(server, process, lambda asked: media in [path for path, _ in asked])
        part = folder / "published" / "MetObjects.csv.part"
        wait_for(server, process, lambda _: part.exists() and part.stat().st_size)
        process.kill()
    (folder / "images").mkdir()
    (folder / "images" / "999.jpg.part").write_bytes(b"left by a killed process")
    assert not (folder / "published" / "MetObjects.csv").exists() and not (folder / "MetObjects.csv").exists()

    server.faults.pop(media, None)  # of the two stalls, the one that the killed process did not come to
    server.asked.clear()
    with command_line(server, folder, interval="0.3") as process:
        wait_for(server, process, lambda asked: images_in(asked) >= 8)
        process.send_signal(signal.SIGINT)
        said, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "the same command goes on" in told and "Traceback" not in told
    assert [span for path, span in server.asked if path == media] == [f"bytes={len(server.tree[media]) // 2}-"]
    there = is_whole(folder)
    came = [name for name in there if name.startswith("images/")]
    assert 7 <= len(came) < 24
    assert len(read_met(folder, label_set="fine")) in (len(came), len(came) - 1), "what came is readable as it lies"

    server.asked.clear()
    with command_line(server, folder) as process:
        said, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    assert "24 objects in" in said and f"{len(came)} are there" in said
    assert images_in(server.asked) == 24 - len(came) and media not in [path for path, _ in server.asked]
    assert len(read_met(folder, label_set="fine")) == 24
    is_whole(folder)


def test_two_at_once_in_one_folder_are_refused(server, ask, tmp_path, monkeypatch):
    said = []

    def second(line):
        with pytest.raises(RunError, match="another process acquires"):
            ask()
        said.append(line)

    ask(say=second)
    assert said


# ---- COCO


def test_coco_is_read_as_it_lies(server, ask_coco, lines, tmp_path):
    examples, folder = ask_coco(n=6), tmp_path / "coco"
    assert read_coco(folder).table.equals(examples.table) and len(examples) == 6
    assert "val2017.zip" not in server.paths() and len(server.asked) == 1 + 6
    rows = is_whole(folder, "val2017")
    row = rows["val2017/000000000001.jpg"] if "val2017/000000000001.jpg" in rows else rows[sorted(rows)[-1]]
    assert row["rights"].startswith("Attribution") and "flickr.com/1/" in row["rights"]
    assert row["source"].startswith(f"{COCO_BASE}/val2017/")
    data = json.loads((folder / "annotations" / "instances_val2017.json").read_bytes())
    assert {i["id"] for i in data["images"]} == {a["image_id"] for a in data["annotations"]} and len(
        data["licenses"]
    ) == 2
    server.asked.clear()
    assert ask_coco(n=6).table.equals(examples.table) and not server.asked


def test_coco_whole_comes_as_the_archive_and_its_files_are_those_published(server, ask_coco, tmp_path):
    ask_coco(n=4)
    server.asked.clear()
    assert len(ask_coco()) == 19 and server.paths() == ["val2017.zip"]
    folder = tmp_path / "coco"
    kept = {p.name for p in (folder / "published").iterdir()}
    assert kept == {"annotations_trainval2017.zip", "instances_val2017.json", "captions_val2017.json"}
    is_whole(folder, "val2017")
    server.asked.clear()
    assert len(ask_coco()) == 19 and not server.asked


def test_categories_choose_images(server, ask_coco):
    every = ask_coco(categories=["animal"])
    assert set(every.table.label) == {"animal"} and len(every) == 13
    assert set(ask_coco(categories=["bottle"]).table.label) == {"kitchen"}
    with pytest.raises(DataError, match="no category 'kat'"):
        ask_coco(categories=["kat"])
    with pytest.raises(DataError, match="no labelled split 'test2017'"):
        ask_coco(split="test2017")


@pytest.mark.parametrize("fault", ["cut", "stall", "error 502", "blocked 403", "page 200", "hangs up"])
def test_an_archive_that_is_spoilt_once_comes_whole(server, ask_coco, fault, tmp_path):
    name = place(f"{COCO_BASE}/{coco.ANNOTATIONS}")
    server.faults[name] = [fault]
    assert len(ask_coco(n=4)) == 4
    spans = [span for path, span in server.asked if path == name]
    assert len(spans) == 2 and bool(spans[1]) == (fault in ("cut", "stall"))


def test_an_archive_that_changes_while_it_comes_is_no_mixture(server, ask_coco, monkeypatch, tmp_path):
    "Without a published checksum the version that the server names is all there is."
    monkeypatch.setattr(coco, "CHECKSUMS", {})
    name = place(f"{COCO_BASE}/{coco.ANNOTATIONS}")
    with zipfile.ZipFile(io.BytesIO(server.tree[name])) as f:
        server.newer = packed({n: f.read(n) + b" " * 999 for n in f.namelist()})
    server.faults[name] = ["cut and renewed"]
    assert len(ask_coco(n=4)) == 4
    assert (tmp_path / "coco" / "published" / "annotations_trainval2017.zip").read_bytes() == server.newer


def test_another_archive_than_the_published_one_is_refused(server, ask_coco, tmp_path):
    server.faults[place(f"{COCO_BASE}/{coco.ANNOTATIONS}")] = ["always other"]
    with pytest.raises(RunError, match="another file than the published one"):
        ask_coco(n=4)
    assert not list((tmp_path / "coco").rglob("*.zip*"))


@pytest.mark.parametrize(
    "name", ["../../evil.json", "/tmp/evil.json", "annotations/..\\..\\evil.json", "C:\\evil.json"]
)
def test_an_archive_with_a_member_that_leaves_its_folder_is_not_used(server, ask_coco, name, tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "CHECKSUMS", {})
    path = place(f"{COCO_BASE}/{coco.ANNOTATIONS}")
    with zipfile.ZipFile(io.BytesIO(server.tree[path])) as f:
        members = {n: f.read(n) for n in f.namelist()}
    server.tree[path] = packed(members | {name: b"evil"})
    with pytest.raises(DataError, match="would be written outside the folder"):
        ask_coco(n=4)
    assert not [p for p in tmp_path.rglob("*") if "evil" in p.name or p.suffix == ".json"]
    assert not Path("/tmp/evil.json").exists()


def test_a_damaged_member_is_told_and_leaves_nothing(server, ask_coco, tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "CHECKSUMS", {})
    path = place(f"{COCO_BASE}/{coco.ANNOTATIONS}")
    content = bytearray(server.tree[path])
    content[200] ^= 0xFF
    server.tree[path] = bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        ask_coco(n=4)
    assert not list((tmp_path / "coco").rglob("*.json*"))


def test_an_image_that_is_broken_in_the_archive_is_asked_for_by_itself(server, ask_coco, tmp_path, monkeypatch):
    path = place(f"{COCO_BASE}/zips/val2017.zip")
    with zipfile.ZipFile(io.BytesIO(server.tree[path])) as f:
        members = {n: f.read(n) for n in f.namelist()}
    members["val2017/000000000003.jpg"] = b"no photograph"
    del members["val2017/000000000004.jpg"]
    server.tree[path] = packed(members)
    monkeypatch.setattr(coco, "CHECKSUMS", {})
    assert len(ask_coco()) == 19
    assert server.paths()[-2:] and set(server.paths()[2:]) == {"000000000003.jpg", "000000000004.jpg"}
    is_whole(tmp_path / "coco", "val2017")


def test_a_file_name_that_leads_elsewhere_is_refused(server, ask_coco, tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "CHECKSUMS", {})
    path = place(f"{COCO_BASE}/{coco.ANNOTATIONS}")
    with zipfile.ZipFile(io.BytesIO(server.tree[path])) as f:
        members = {n: f.read(n).replace(b"000000000003.jpg", b"../../../evil.jpg") for n in f.namelist()}
    server.tree[path] = packed(members)
    with pytest.raises(Refused, match="no plain file name"):
        ask_coco()
    assert "evil.jpg" not in str(server.asked)


# ---- the command


def test_the_command_passes_on_what_it_is_told(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(met, "acquire_met", lambda folder, **how: asked.update(how, folder=folder))
    monkeypatch.setattr(coco, "acquire_coco", lambda folder, **how: asked.update(how, folder=folder))
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    words = ["acquire", "met", "--n", "5", "--classes", "ceramics, amulet", "--share", "equal", "--interval", "2"]
    assert command.main(words) == 0
    asked.pop("say")
    wanted = dict(n=5, classes=["ceramics", "amulet"], share="equal", manners=Manners(interval=2.0), server=None)
    assert asked == wanted | dict(folder=tmp_path / "data" / "met")
    asked.clear()
    assert command.main(["acquire", "coco", "--split", "train2017", "--categories", "hot dog,animal"]) == 0
    asked.pop("say")
    wanted = dict(split="train2017", categories=["hot dog", "animal"], manners=coco.COCO_MANNERS, server=None)
    assert asked == wanted | dict(folder=tmp_path / "data" / "coco")


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["met", "--split", "val2017"], 2, "--split is not for met"),
        (["coco", "--classes", "amulet"], 2, "--classes is not for coco"),
        (["met", "--n", "0"], 2, "a whole number of 1 or more"),
        (["met", "--interval", "-1"], 2, "must be seconds, 0 or more"),
        (["louvre"], 2, "invalid choice"),
        (["met", "--classes", "vases"], 2, "no label set has the classes vases"),
        (["coco", "--split", "test2017"], 2, "no labelled split"),
    ],
)
def test_a_wrong_word_ends_before_anything_is_asked_for(words, code, said, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("vbg.data.acquire.web.opened", lambda *words, **how: pytest.fail("a request"))
    try:
        ended = command.main(["acquire", *words, "--folder", str(tmp_path)])
    except SystemExit as end:
        ended = end.code
    assert ended == code
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "target, given, words",
    [
        ("data-met", [], "acquire met"),
        ("data-met", ["N=50", "CLASSES=ceramics,amulet"], "acquire met --n 50 --classes 'ceramics,amulet'"),
        ("data-coco", ["SPLIT=val2017"], "acquire coco --split 'val2017'"),
        ("data-coco", ["N=9", "CATEGORIES=hot dog,animal"], "acquire coco --n 9 --categories 'hot dog,animal'"),
    ],
)
def test_make_passes_its_words_on(target, given, words):
    of_caller = ("N", "CLASSES", "SPLIT", "CATEGORIES", "MAKEFLAGS", "MAKELEVEL")  # the tests run under make
    env = {k: v for k, v in os.environ.items() if k not in of_caller}
    said = subprocess.run(["make", "-n", target, *given], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    call = said.stdout.splitlines()[-1].partition("-m vbg.reports.command ")[2]
    assert shlex.split(call) == shlex.split(words)
