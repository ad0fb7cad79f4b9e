"""Whole files through `vbg.data.images`: orientation, depth, format and size; inputs are made by code."""

import base64
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

import vbg.data.images as module
from vbg.core.files import DataError
from vbg.data.images import decode_image, image_suffixes, read_image

TURNS = {1: [], 2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # EXIF -> how the camera stores it
UPRIGHT = np.zeros((48, 48, 3), np.uint8)
UPRIGHT[:24, :24], UPRIGHT[:24, 24:], UPRIGHT[24:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def tiff(values, bits=16, order="<", zero=1, packed=False, **tags):
    "A TIFF of one strip, grey unless `values` has three axes; `tags` are `t<number>=value`."
    values, high = np.asarray(values), order == ">"
    height, width, *planes = values.shape
    if bits == 12:
        digits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(height, -1, 2), axis=2)[:, :, 4:]
        data = np.packbits(digits.reshape(height, -1), axis=1).tobytes()
    else:
        data = values.astype(f"{order}{values.dtype.kind}{bits // 8}").tobytes()
    data, planes = zlib.compress(data) if packed else data, planes[0] if planes else 1
    fields = {
        256: width,
        257: height,
        258: bits,
        259: 8 if packed else 1,
        262: zero,
        277: planes,
        278: height,
        279: len(data),
    }
    fields |= {int(name[1:]): value for name, value in tags.items()}
    fields[273] = 8 + 2 + 12 * (len(fields) + 1) + 4
    entries = b""
    for tag, value in sorted(fields.items()):
        short = struct.pack(f"{order}HH", value, 0) if value < 65536 else struct.pack(f"{order}I", value)
        entries += struct.pack(f"{order}HHI", tag, 3 if value < 65536 else 4, 1) + short
    head = (b"MM" if high else b"II") + struct.pack(f"{order}HI", 42, 8)
    return io.BytesIO(head + struct.pack(f"{order}H", len(fields)) + entries + b"\0\0\0\0" + data)


def saved(image, kind, **options):
    "The bytes of a file."
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def error_of(folder, content, name="x.jpg"):
    "What is said of a file that cannot be read."
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read_image(folder / name, 16, 5)
    text = str(error.value)
    assert f"{name}, row 5: " in text and "Remedy: " in text and " at 0x" not in text
    return text


# ---- orientation

STORES = dict(
    tiff=dict(kind="TIFF"),
    tiff_lzw=dict(kind="TIFF", compression="tiff_lzw"),
    tiff_jpeg=dict(kind="TIFF", compression="jpeg"),
    png=dict(kind="PNG"),
    webp=dict(kind="WEBP", lossless=True),
    jpeg=dict(kind="JPEG", quality=95),
    mpo=dict(kind="MPO", quality=95),
    avif=dict(kind="AVIF", quality=95),
)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("store", STORES)
def test_every_format_stands_upright(store, orientation):
    image, exif = Image.fromarray(UPRIGHT), Image.Exif()
    for turn in TURNS[orientation]:
        image = image.transpose(Image.Transpose(turn))
    exif[0x0112] = orientation
    content = saved(image, exif=exif, **STORES[store])
    assert np.abs(decode_image(io.BytesIO(content), 48).astype(int) - UPRIGHT).mean() < 8


def test_a_tall_tiff_is_cut_in_its_middle():
    exif, wide = Image.Exif(), np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40], exif[0x0112] = 255, 6
    assert decode_image(io.BytesIO(saved(wide, "TIFF", exif=exif)), 10)[2:-2].min() > 250


def test_a_wrong_orientation_leaves_the_image_as_it_is():
    exif = Image.Exif()
    exif[0x0112] = 9
    assert (decode_image(io.BytesIO(saved(UPRIGHT, "PNG", exif=exif)), 48) == UPRIGHT).all()


def test_orientation_is_read_from_xmp_as_well():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    content = saved(UPRIGHT[::-1, ::-1].copy(), "WEBP", lossless=True, xmp=xmp)
    assert (decode_image(io.BytesIO(content), 48) == UPRIGHT).all()


# ---- depth and colour


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("zero", [1, 0])
@pytest.mark.parametrize("packed", [False, True])
def test_greys_of_12_and_16_bits(bits, order, zero, packed):
    values = np.full((8, 8), 1 << (bits - 1))
    values[:4] = values[:4] // 2  # a quarter of white
    grey = decode_image(tiff(values, bits, order, zero, packed), 8)[..., 0]
    assert [int(grey[1, 1]), int(grey[6, 6])] == ([64, 128] if zero else [191, 127])


def test_12_bits_in_16_are_not_black():
    assert decode_image(tiff(np.full((8, 8), 2048)), 4).max() == 128


def test_a_largest_value_that_the_tiff_names_is_white():
    assert decode_image(tiff(np.full((8, 8), 8192), t281=16383), 4).max() == 128


def test_a_black_grey_of_16_bits_stays_black():
    assert decode_image(tiff(np.full((8, 8), 200)), 4).max() == 0


@pytest.mark.parametrize("zero", [1, 0])
def test_white_of_8_and_1_bits(zero):
    eight = decode_image(tiff(np.full((8, 8), 64), 8, zero=zero), 4)
    assert eight.max() == (64 if zero else 191)


def test_a_pgm_of_16_bits():
    content = b"P5 4 4 65535\n" + np.full((4, 4), 0x8000, ">u2").tobytes()
    assert decode_image(io.BytesIO(content), 4).max() == 128


def test_colours_of_16_bits():
    values = np.full((8, 8, 3), 0x8000)
    assert decode_image(tiff(values, zero=2, t258=16), 4).min() == 128


def test_a_grey_that_stands_for_transparency():
    image = Image.fromarray(np.full((4, 4), 0x1000, np.uint16))
    assert decode_image(io.BytesIO(saved(image, "PNG", transparency=0x1000)), 4).min() == 255


@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_transparency_of_a_palette_or_grey_lies_on_white(mode):
    image = Image.new(mode, (4, 4), 0)
    assert decode_image(io.BytesIO(saved(image, "PNG", transparency=0)), 4).min() == 255


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(decode_image(io.BytesIO(saved(image, kind)), 4) - np.array([255.0, 0, 0])).max() < 4


def test_lab():
    image = Image.new("LAB", (4, 4), (255, 128, 128))
    assert decode_image(io.BytesIO(saved(image, "TIFF")), 4).min() > 250


@pytest.mark.parametrize("kind,values,sample", [("F", np.full((8, 8), 0.5), 3), ("I", np.full((8, 8), 70000), 2)])
def test_a_depth_without_white_says_what_to_save(tmp_path, kind, values, sample):
    said = error_of(tmp_path, tiff(values, 32, t339=sample).getvalue(), "x.tif")
    assert f"mode {kind} have no known white" in said and "8 or 16 bits" in said


# ---- several pictures in one file


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_pictures_is_read_and_the_others_are_said(tmp_path, kind):
    first, more = Image.new("RGB", (8, 8), "red"), [Image.new("RGB", (8, 8), "blue")]
    (tmp_path / "x").write_bytes(saved(first, kind, save_all=True, append_images=more))
    with pytest.warns(UserWarning, match="x: .*several pictures; the first is read"):
        assert np.abs(read_image(tmp_path / "x", 4)[0] - np.array([255.0, 0, 0])).max() < 6


def test_a_telephones_second_picture_is_no_warning(tmp_path):
    first, more = Image.new("RGB", (8, 8), "red"), [Image.new("RGB", (8, 8), "blue")]
    (tmp_path / "x.jpg").write_bytes(saved(first, "MPO", save_all=True, append_images=more))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "x.jpg", 4)[0][0, 0, 0] > 250


def test_a_preview_before_the_picture_of_a_tiff_is_passed_over():
    first, more = Image.new("RGB", (4, 4), "blue"), [Image.new("RGB", (64, 64), "red")]
    content = saved(first, "TIFF", tiffinfo={254: 1}, save_all=True, append_images=more)
    page = Image.open(io.BytesIO(content))
    page.seek(1)
    if page.tag_v2.get(254, 0) & 1:  # Pillow gives the tags to every page
        content = bytearray(content)
        at = content.rindex(struct.pack("<HHI", 254, 4, 1))
        content[at + 8 : at + 12] = bytes(4)
    with pytest.warns(UserWarning, match="several pictures"):
        assert decode_image(io.BytesIO(bytes(content)), 8)[4, 4].tolist() == [255, 0, 0]


# ---- formats

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
CUT = {
    "JPEG": {},
    "progressive": dict(kind="JPEG", progressive=True),
    "MPO": {},
    "PNG": {},
    "GIF": {},
    "TIFF": {},
    "tiff_lzw": dict(kind="TIFF", compression="tiff_lzw"),
    "WEBP": {},
    "BMP": {},
    "JPEG2000": {},
    "AVIF": {},
    "PPM": {},
    "TGA": {},
    "QOI": {},
    "PCX": {},
    "SGI": {},
    "ICO": {},
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("part", [0.3, 0.9])
@pytest.mark.parametrize("kind", CUT)
def test_a_cut_file_is_an_error_with_its_row(tmp_path, kind, part):
    options = dict(kind=kind) | CUT[kind]
    whole = saved(PICTURE, **options)
    assert "cannot be read" in error_of(tmp_path, whole[: int(part * len(whole))], "x.bin")


SMALL_HEIC = (  # `UPRIGHT`, as libheif with x265 writes it
    b"c-muNV30{GsVvAy%}izhg51nBLl8SRGck>Ufw49>wIq=N0u(b+a*CjAhJwuG5(YG&l$nzcHpIn&fe{FSfN>#&1_CD_R?f`KO9S&j"
    b"qM|@fDif5KQI>27V)7MamgK^f{LL&VDge@VGYgXQfpi&AnKL6ZNN56Bk=zG{KYxGxU|`^9P5|nVaA4$N{Qn=MfElEM8HD6^F*zgx"
    b"CAFLw8PQ}GC^WK8d-Y`5&K(>X1`0qSW)Q)km;_YL=E8We_&_Jn65-_hoT9wsoC=^QF9TZxP)H=RxF8kkGY2TvNX|(Fxy%6Scrg9{"
    b"|Njp_nh8b&u|Pp)MJ7liGY1C;kdnwO$b|(mFx*%hnV4ByfNZbaltfS<+i5Va7jAeO`2W|U)!*MTd{}wRc+-c#zrOpI|K4BvT1D`G"
    b"ezjzU{6S}{=R5YF|Gj4VSF0Hd3}0-SyGQ#MgX8lz0Q*&OX#"
)


def test_heic_is_read(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(zlib.decompress(base64.b85decode(SMALL_HEIC)))
    assert np.abs(read_image(tmp_path / "IMG_1.HEIC", 48)[0].astype(int) - UPRIGHT).mean() < 8


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize(
    "content,what,remedy",
    [
        (HEIC + bytes(200), "HEIC", "export it again, or convert"),
        (b"\0\0\0\x1cftypavif" + bytes(40), "image cannot be read", "export or download"),
        (b"\0\0\0\x18ftypcrx " + bytes(40), "raw file", "convert"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "raw file", "convert"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(40), "raw file", "convert"),
        (b"\0\0\0\x14ftypqt  " + bytes(40), "film", "picture of it"),
        (b"\xff\x0a" + bytes(40), "JPEG XL", "convert"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "convert"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG", "convert"),
        (b"%PDF-1.7\n", "PDF", "convert"),
        (b"PK\3\4" + bytes(40), "archive", "unpack"),
        (b"\x1f\x8b" + bytes(40), "archive", "unpack"),
        (b"<!DOCTYPE html><title>403", "web page", "download the image itself"),
        (b'{"message": "no such image"}', "web page or message", "download the image itself"),
        (b"some words", "cannot be identified", "export or download"),
        (b"", "file is empty", "export or download"),
    ],
)
def test_what_is_no_readable_image_is_named_with_a_fitting_remedy(tmp_path, content, what, remedy):
    said = error_of(tmp_path, content)
    assert what in said.split("Remedy")[0] and remedy in said.split("Remedy")[1]


@pytest.mark.parametrize("tags", [dict(t50706=1), dict(t254=1, t330=8)])
def test_the_preview_of_a_raw_file_is_not_taken_for_the_picture(tmp_path, tags):
    said = error_of(tmp_path, tiff(np.full((8, 8), 99), 8, **tags).getvalue(), "x.dng")
    assert "raw file" in said and "export it as JPEG or TIFF" in said


@pytest.mark.parametrize("name", ["x.png", "x", "X.JPG", "x.txt", "x.2024"])
def test_the_name_of_a_file_says_nothing_of_its_format(tmp_path, name):
    (tmp_path / name).write_bytes(saved(PICTURE, "JPEG"))
    assert read_image(tmp_path / name, 16)[0].shape == (16, 16, 3)


def test_endings_are_of_formats_that_are_read():
    there = {".jpg", ".jpe", ".jfif", ".jpeg", ".mpo", ".png", ".tif", ".tiff", ".webp", ".jp2", ".avif", ".heic"}
    assert there < image_suffixes() and not {".pdf", ".eps", ".mpg", ".h5", ".wmf", ".txt"} & image_suffixes()


# ---- size


def test_too_large_is_not_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIXELS", 64 * 64 - 1)
    said = error_of(tmp_path, saved(PICTURE, "PNG"), "x.png")
    assert "too large (64 x 64 pixels)" in said and "Remedy: save it smaller" in said


def test_what_pillow_refuses_as_a_bomb_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "too large (Image size (4096 pixels)" in error_of(tmp_path, saved(PICTURE, "PNG"), "x.png")


def test_a_large_jpeg_is_decoded_at_a_reduced_scale(monkeypatch):
    monkeypatch.setattr(module, "PIXELS", 64 * 64 - 1)
    assert decode_image(io.BytesIO(saved(PICTURE, "JPEG")), 16).shape == (16, 16, 3)


def test_a_locked_file_is_named(tmp_path, monkeypatch):
    def locked(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x.png").write_bytes(saved(PICTURE, "PNG"))
    monkeypatch.setattr(type(tmp_path), "read_bytes", locked)
    with pytest.raises(DataError, match=r"x\.png, row 5: image cannot be opened \(Permission denied\)"):
        read_image(tmp_path / "x.png", 16, 5)
