"""Facts of vbg.results.publish that its notebook lacks: bytes in another process, real data cards, bad input."""

import io
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import entry_of, saved, saved_files
from PIL import Image

from vbg.core.files import RunError, root
from vbg.core.fonts import fonts_with
from vbg.core.marks import md_cells, md_text
from vbg.core.profiles import PROFILES, profile
from vbg.reports.command import main as command
from vbg.results import publish as F
from vbg.results.classes import confusion_figure
from vbg.results.tables import Column, table_files, table_of
from vbg.runs.store import HISTORY, load_runs, predictions_table, write_run
from vbg.stats import verdicts as verdicts_module
from vbg.stats.intervals import estimate_values, summarise_runs
from vbg.stats.metrics import evaluate, one_hot


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    return tmp_path


def toy_run(dataset="met", model="without_gan", seed=0, skill=3.0, epochs=4, offset=0, settings="smoke"):
    rng, y = np.random.default_rng([seed, len(model)]), np.arange(60) % 4
    p = np.exp(skill * one_hot(y, 4) + rng.normal(size=(60, 4)))
    p /= p.sum(1, keepdims=True)
    tables = [
        predictions_table([f"{split}{offset + i}" for i in range(60)], split, y, p)
        for split in ("validation", "test", "balanced")
    ]
    history = pd.DataFrame({c: np.linspace(1, 0.2, epochs) + 0.1 * seed for c in HISTORY}).assign(
        epoch=np.arange(1, epochs + 1)
    )
    config = {"data": profile(settings).data, "train": {"flip": skill}}
    return write_run(
        profile="smoke",
        dataset=dataset,
        model=model,
        seed=seed,
        inputs={"code": "1"},
        history=history,
        predictions=pd.concat(tables),
        metrics={s: evaluate(y, p) for s in ("validation", "test", "balanced")},
        weights={},
        config=config,
        best_epoch=1,
        seconds=3.0,
    )


def test_printed_numbers_sum_to_what_the_paper_prints():
    "Sums over each printed column, taken from the paper's tables."
    sums = {
        "table3": {"met": [770, 6.83, 705, 698, 7.93, 112], "coco": [738, 6.62, 685, 676, 7.64, 112]},
        "table4": {"met": [607, 5.52, 578, 585, 6.22, 66], "coco": [589, 5.36, 553, 548, 6.03, 66]},
    }
    for name, parts in sums.items():
        table = F.paper_table(name)
        for dataset, printed in parts.items():
            part = table[table.dataset == dataset].drop(columns=["dataset", "model"]).sum()
            part[["accuracy", "f1", "recall"]] *= 100
            assert part.tolist() == pytest.approx(printed), (name, dataset)
    assert len(F.paper_table("table2")) == 13 and len(F.paper_table("table1")) == 2


def test_table_2_names_settings_that_exist_and_the_paper_profile_has_the_printed_values():
    table = F.hyperparameter_table({name: profile(name) for name in PROFILES})
    held = table[table.module.isin(["ViT", "BERT"])]
    assert len(held) == 9 and (held["printed"] == held["profile paper"]).all()
    flat = {f"{m}.{s}" for m, s in zip(table.module, table.setting)}
    for section in ("vision", "text", "fusion", "model", "train"):
        for key in getattr(profile("mini"), section):
            if key == "factors":  # a row for each data set, once they are found
                continue
            assert f"{section}.{key.replace('_', ' ')}" in flat or f"{section}.{key}" in set(
                F.paper_table("table2").path
            ), key


def test_table_2_names_the_learning_rates_that_were_found():
    found = profile("mini", {"train": dict(factors=dict(met=dict(resnet=3.0, vbg=1.0, textcnn=1 / 3)))})
    table = F.hyperparameter_table(dict(mini=found)).set_index("setting")
    assert table["profile mini"]["factors, met"] == "resnet 3, textcnn 0.333333"


def test_summary_puts_the_paper_order_first_and_says_rendered_and_ceiling():
    for dataset in ("coco", "met"):
        for model in F.MODALITY:
            toy_run(dataset, model)
    table = F.summary_table(load_runs("smoke"), {"met": {"natural": {"both": 0.97}, "balanced": {"both": 0.9}}})
    assert table["data set"].unique().tolist() == ["MET, rendered", "MS COCO, rendered"]
    assert table.model.tolist()[:3] == ["without GAN", "without BERT & GAN", "without ViT & GAN"]
    assert (
        table["best possible"].tolist()[0] == "97.0"
        and table[table.test == "class-balanced"]["best possible"].iloc[0] == "90.0"
    )
    assert all(re.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\]( \(n = 1\))?", v) for v in table["accuracy, %"])
    real = F.summary_table([r for r in load_runs("smoke", "met")])
    assert set(real["best possible"]) == {"–"}


def test_a_real_data_set_is_not_called_rendered():
    toy_run(settings="paper")
    assert F.summary_table(load_runs("smoke"))["data set"].unique().tolist() == ["MET"]


def test_gain_is_taken_over_the_better_modality_and_skips_sets_without_all_models():
    for model, skill in (("without_gan", 4.0), ("without_bert_gan", 1.0), ("without_vit_gan", 2.5)):
        toy_run(model=model, skill=skill)
    toy_run("coco")
    table = F.fusion_gain_table(load_runs("smoke"))
    assert table["data set"].unique().tolist() == ["MET, rendered"] and set(table.better) == {"text"}


def test_gain_refuses_models_tested_on_different_items():
    toy_run()
    toy_run(model="without_bert_gan", offset=1000)
    toy_run(model="without_vit_gan", offset=1000)
    with pytest.raises(ValueError, match="tested on different items"):
        F.fusion_gain_table(load_runs("smoke"))


def test_saved_bytes_are_the_same_in_another_process(store):
    toy_run(), toy_run(seed=1)
    script = """
from vbg.results.publish import *
from vbg.runs.store import load_runs
runs = load_runs("smoke")
save_table(summary_table(runs), "t", "smoke", runs)
save_figure(loss_curves(runs), "f", "smoke", runs)
"""
    seen = []
    for hashseed in ("1", "2"):
        env = dict(__import__("os").environ, PYTHONHASHSEED=hashseed, MPLBACKEND="agg", VBG_PRINT="1")
        subprocess.run([sys.executable, "-c", script], check=True, cwd=root(), env=env)
        manifest = (store / "runs/smoke/figures/manifest.json").read_bytes()
        pdf = (store / "runs/smoke/print/other/f/f.pdf").read_bytes()
        seen.append(saved_files(store) | {"manifest": manifest, "pdf": pdf})
    assert seen[0] == seen[1] and [*seen[0]] == ["f.png", "t.csv", "t.md", "manifest", "pdf"]
    image = Image.open(io.BytesIO(seen[0]["f.png"]))
    assert image.info["dpi"][0] >= 199 and set(image.info) == {"dpi"}
    assert not re.search(rb"Date|D:20", seen[0]["pdf"]) and str(store).encode() not in b"".join(seen[0].values())
    about = entry_of(store, "t")
    assert [m["run"] for m in about["made_from"]] == [
        "runs/smoke/classifiers/met/without_gan/seed0",
        "runs/smoke/classifiers/met/without_gan/seed1",
    ]
    assert {"python", "system", "packages"} == set(about["environment"]) and len(about["code"]) == 16


def test_every_row_of_a_csv_names_its_runs(store):
    "Its own where it names some, else all that the table was made from; data cards and settings are no runs."
    for seed in (0, 1):
        toy_run(seed=seed)
    runs = load_runs("smoke")
    plain = pd.DataFrame({"class": ["amulet", "arms"], "share": [0.25, 0.5]})
    own = table_of([{"class": "arms", "runs": runs[:1]}, {"class": "all"}], [Column("class", "class")])
    for table, made_from, named in (
        (plain, list(runs), ["smoke/classifiers/met/without_gan/seed0-1"] * 2),
        (plain, runs, ["smoke/classifiers/met/without_gan/seed0-1"] * 2),
        (own, list(runs), ["smoke/classifiers/met/without_gan/seed0", ""]),
        (plain, {"met": {"items": 3}}, None),
    ):
        F.save_table(table, "shares", "smoke", made_from)
        read = pd.read_csv(saved(store, "shares.csv"), keep_default_na=False)
        assert (read["runs"].tolist() if named else list(read.columns)) == (named or ["class", "share"])
        assert "runs" not in saved(store, "shares.md").read_text()


def test_a_changed_run_changes_what_the_manifest_says(store):
    toy_run()
    F.save_table(pd.DataFrame({"a": [1]}), "t", "smoke", load_runs("smoke"))
    first = entry_of(store, "t")
    toy_run(skill=1.0)
    F.save_table(pd.DataFrame({"a": [1]}), "t", "smoke", load_runs("smoke"))
    assert entry_of(store, "t") != first


def test_table_survives_tex_and_odd_values(store):
    table = pd.DataFrame(
        {"name_%": ["a & b", "50 %", None], "value": [0.12345, np.nan, 3.0]},
        index=pd.Index(["x", "y", "z"], name="class"),
    )
    F.save_table(table, "odd", "smoke", [store / "none"] if False else {"settings": profile("smoke")})
    (tex,) = (path.read_text() for path in F.print_tables("smoke"))
    assert r"name\_\%" in tex and r"a \& b" in tex and "0.123" in tex and "class" in tex
    assert pd.read_csv(saved(store, "odd.csv")).value[0] == 0.12345
    assert "| x       | a & b    | 0.123   |" in saved(store, "odd.md").read_text()


def test_loss_curves_of_one_and_two_data_sets_and_unequal_lengths():
    toy_run(), toy_run(seed=1, epochs=6)
    one = F.loss_curves(load_runs("smoke"))
    assert len(one.axes) == 2 and one.axes[0].get_title() == "MET, rendered (2 seeds)"
    assert len(one.axes[0].lines[0].get_xdata()) == 6
    toy_run("coco")
    two = F.loss_curves(load_runs("smoke"))
    assert [a.get_title() for a in two.axes[:2]] == ["MET, rendered (2 seeds)", "MS COCO, rendered (1 seed)"]
    with pytest.raises(ValueError, match="one model"):
        F.loss_curves([])


def test_beside_paper_keeps_models_that_only_one_side_has():
    toy_run(), toy_run(model="new_model")
    table = F.beside_paper(summarise_runs(load_runs("smoke")), F.paper_table("table4"))
    row = table[(table["data set"] == "MET") & (table.model == "without GAN")].iloc[0]
    assert (
        row["accuracy, %, paper"] == "83"
        and row["mAP, %, paper"] == "74"
        and row["seeds"] == 1
        and "[" in row["accuracy, %"]
    )
    assert table.iloc[-1].model == "new_model" and table.iloc[-1]["accuracy, %, paper"] == "–"
    assert len(table) == 15


def test_verdicts_on_the_paper_itself():
    paper = F.paper_table("table4").set_index(["dataset", "model"]).accuracy
    noise = 1e-5 * np.random.default_rng(0).normal(size=(1, 50))
    ours = {
        m: estimate_values(v + noise - noise.mean() + 1e-6 * k * noise) for k, (m, v) in enumerate(paper["met"].items())
    }
    assert verdicts_module.verdict_order(ours, paper["coco"]).verdict == "reproduced"
    assert verdicts_module.verdict_order(ours, -paper["coco"]).verdict == "not reproduced"
    assert (
        verdicts_module.verdict_level(0.9, 0.94, 0.92).verdict == "reproduced"
        and verdicts_module.verdict_level(0.9, 0.94, 0.92, rendered=True).verdict == "needs the real data"
    )
    assert (
        verdicts_module.verdict_sign(0.0, 0.1, 0.05).verdict == "inconclusive"
        and verdicts_module.verdict_sign(-0.2, -0.1, 0.05).verdict == "not reproduced"
    )
    assert {verdicts_module.verdict_sign(a, b, c).verdict for a, b, c in [(0.1, 0.2, 0.1), (-0.2, -0.1, -0.1)]} == {
        "reproduced"
    }


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> other\n", "[]", "{", '{"artefacts": {}}'])
def test_publish_deletes_nothing_where_the_committed_manifest_is_unreadable(store, text):
    toy_run()
    F.save_table(F.summary_table(load_runs("smoke")), "summary", "smoke", load_runs("smoke"))
    target = store / "committed"
    F.publish("smoke", target)
    (target / "manifest.json").write_text(text)
    (target / "paper/summary/other.png").write_bytes(b"")
    before = {p: p.read_bytes() for p in target.rglob("*.*")}
    with pytest.raises(RunError, match="is unreadable"):
        F.publish("smoke", target)
    assert {p: p.read_bytes() for p in target.rglob("*.*")} == before


@pytest.mark.parametrize("spoil", [lambda file: file.write_text("changed"), Path.unlink], ids=["changed", "absent"])
def test_publish_names_what_it_leaves_out(store, monkeypatch, capsys, spoil):
    toy_run()
    for name in ("summary", "summary_fusion_gain"):
        F.save_table(F.summary_table(load_runs("smoke")), name, "smoke", load_runs("smoke"))
    (changed,) = (store / "runs/smoke/figures").rglob("summary.csv")
    spoil(changed)
    monkeypatch.setattr(F, "committed_place", lambda profile: store / "committed")
    assert command(["publish", "--profile", "smoke"]) == 0
    assert "left out: a file of paper/summary/summary is" in capsys.readouterr().err
    assert not list((store / "committed").rglob("summary.csv"))
    assert list((store / "committed").rglob("summary_fusion_gain.csv"))


def test_command_line(store):
    toy_run()
    F.save_table(F.summary_table(load_runs("smoke")), "summary", "smoke", load_runs("smoke"))
    done = subprocess.run(
        [sys.executable, "-m", "vbg.reports.command", "show", "--profile", "smoke"],
        cwd=root(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "MET, rendered, natural test, without GAN, 1 seeds, 60 items" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "vbg.reports.command", "show", "--profile", "paper"],
        cwd=root(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "make reproduce PROFILE=paper" in done.stderr


def named_runs(names, missing=None):
    "A run on classes of these names; of one there may be no item in the test."
    rng = np.random.default_rng(0)
    y = np.repeat([c for c in range(len(names)) if c != missing], 10)
    p = rng.random((len(y), len(names))) + np.eye(len(names))[y]
    p /= p.sum(1, keepdims=True)
    write_run(
        profile="own",
        dataset="mine",
        model="without_gan",
        seed=0,
        inputs=dict(code="x"),
        history=pd.DataFrame([[1] + [0.5] * 8], columns=HISTORY),
        predictions=predictions_table([f"i{k}" for k in range(len(y))], "test", y, p),
        metrics={"test": evaluate(y, p)},
        class_names=list(names),
        config={},
        seconds=1.0,
    )
    return load_runs("own")


def drawn_names(figure):
    labels = [t for a in figure.axes for t in (*a.get_xticklabels(), *a.get_yticklabels())]
    return {t.get_text() for t in labels if not t.get_parse_math()}


@pytest.mark.parametrize("name", ["Notes $5-$10", "Ba$$in", r"$\alpha$", "a_b^c", r"C:\new", "a|b", "<i>", "50 %"])
def test_names_of_classes_stand_in_figures_as_they_are(name):
    runs = named_runs([name, "coin", "lamp"])
    figure = confusion_figure(runs)
    F.save_figure(figure, "fig6", "own", runs)
    assert name in drawn_names(figure)


ODD = [
    "Notes $5-$10",
    "a|b",
    "*rare*",
    "_x_",
    "<b>vase</b>",
    "&amp; co",
    r"C:\*new",
    "two\nlines",
    "without_vit",
    "a & b < c",
]


@pytest.mark.parametrize("name", ODD)
def test_a_name_is_one_cell_of_markdown_and_comes_back_as_it_was(name):
    assert md_cells(f"| {md_text(name)} | 1 |") == [name.replace("\n", " "), "1"]


@pytest.mark.parametrize("name", ["*rare*", "_x_", "<b>vase</b>", "&amp; co", r"C:\*new", "$5-$10"])
def test_marks_of_markdown_are_escaped(name):
    assert md_text(name) != name


@pytest.mark.parametrize("name", ["without_vit", "without ViT & GAN", "< 0.001", "1 - 2", "`runs/*_a`", r"C:\new"])
def test_what_markdown_reads_as_text_is_left_alone(name):
    assert md_text(name) == name


def test_csv_holds_names_as_they_are_and_tex_escapes_them():
    files = table_files(pd.DataFrame({"class": ODD[:2], "n|m": [1, 2]}))
    assert pd.read_csv(io.BytesIO(files["csv"]))["class"].tolist() == ODD[:2]
    tex = F.table_tex(files["md"].decode())
    assert r"Notes \$5-\$10 & 1" in tex and "a|b & 2" in tex and "n|m" in tex


def test_letters_without_a_glyph_are_told():
    runs = named_runs(["青花瓷", "铜钱", "coin"])
    with pytest.warns(UserWarning, match="figure fig6: no installed font has '瓷花钱铜青'.*Remedy: install a font"):
        F.save_figure(confusion_figure(runs), "fig6", "own", runs)


def test_letters_that_the_font_has_are_passed_over():
    runs = named_runs(["κύλιξ", "ваза", "œuvre"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        F.save_figure(confusion_figure(runs), "fig6", "own", runs)


def test_an_installed_font_with_the_letters_is_found(store, monkeypatch):
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib import font_manager

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((500, 0)), pen.lineTo((500, 700)), pen.closePath()
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", "blue"])
    made.setupCharacterMap({ord("青"): "blue"})
    made.setupGlyf({".notdef": pen.glyph(), "blue": pen.glyph()})
    made.setupHorizontalMetrics({".notdef": (600, 0), "blue": (600, 0)})
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable(dict(familyName="Own Han", styleName="Regular"))
    made.setupOS2(), made.setupPost(), made.save(store / "own.ttf")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    font_manager.fontManager.addfont(store / "own.ttf")
    fonts_with.cache_clear()
    runs = named_runs(["青", "coin", "lamp"])
    figure = confusion_figure(runs)
    assert F.fit_fonts(figure, "fig6") == ""
    labels = [t for t in figure.axes[0].get_xticklabels() if t.get_text() == "青"]
    assert [t.get_fontfamily() for t in labels] == [["DejaVu Sans", "Own Han"]]
    fonts_with.cache_clear()


def test_a_class_without_test_items_is_left_out_of_the_means():
    scores = named_runs(["a", "b", "c"], missing=2)[0].metrics["test"]
    assert (scores["classes"], scores["classes_present"]) == (3, 2)
    assert all(0 <= scores[name] <= 1 for name in ("auc", "map", "f1", "recall"))
