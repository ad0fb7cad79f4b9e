"""Facts of vbg.results.verify that its notebook lacks: what a user sees of planted differences, and the exit code."""

import pandas as pd
import pytest

from vbg.core.places import committed_place, figures_place
from vbg.reports.command import main as command
from vbg.results.publish import group_of, save_table
from vbg.results.tables import Column, numbers_beside, table_of
from vbg.runs.manifest import write_manifest
from vbg.stats.intervals import Estimate

SUMMARY = {
    "data set": ["MET, rendered", "MET, rendered", "MS COCO, rendered"],
    "model": ["VBG", "without GAN", "VBG"],
    "accuracy, %": ["70.1 [63.3, 76.8]", "69.7 [62.5, 76.7] (83)", "82.8 [78.1, 87.2]"],
    "difference, points": ["–", "-0.4 [-5.0, 4.0]", "–"],
    "verdict": ["–", "smaller than the noise", "–"],
    "seconds to fit": ["12", "13", "14"],
}
LEDGER = {
    "id": ["fusion-better", "faster-met", "table3-met-vbg-hours", "first"],
    "claim": ["fusion gains", "VBG is faster", "hours of VBG", "VBG is first"],
    "ours": ["3.1 points [0.2, 6.0]", "-7.2 s [-8.0, -6.4]", "21.0 s [19.0, 23.6]", "no: third"],
    "verdict": ["reproduced", "reproduced", "needs the real data", "inconclusive"],
}
COUNTS = {"data set": ["MET, rendered"], "images": ["2,400"]}
TIMES = {"size": ["mini"], "share of peak": ["0.42"]}
TABLES = {"summary": SUMMARY, "audit": LEDGER, "table1_datasets": COUNTS, "step_cost": TIMES}


def with_cell(name, row, column, value):
    "The tables with one cell changed."
    cells = TABLES[name][column]
    changed = [value if k == row else cell for k, cell in enumerate(cells)]
    return TABLES | {name: TABLES[name] | {column: changed}}


@pytest.fixture
def verified(tmp_path, monkeypatch, capsys):
    "Plant a run and committed tables; exit code and words of the command, and the lines of its csv by cell."
    monkeypatch.setenv("VBG_HOME", str(tmp_path))

    def call(mine, committed=TABLES):
        for name, table in committed.items():
            place = tmp_path / committed_place("mini", *group_of(name))
            place.mkdir(parents=True, exist_ok=True)
            numbers_beside(pd.DataFrame(table)).to_csv(place / f"{name}.csv", index=False)
        for name, table in mine.items():
            save_table(pd.DataFrame(table), name, "mini", {})
        code = command(["verify", "--against", str(tmp_path / committed_place("mini"))])
        lines = pd.read_csv(tmp_path / "runs/mini/verify.csv", dtype=str, keep_default_na=False)
        return code, capsys.readouterr().out, lines.set_index(["row", "column"]).outcome.to_dict(), lines

    return call


def test_the_same_run_agrees_and_its_seconds_do_not_count(verified):
    mine = TABLES | {"summary": SUMMARY | {"seconds to fit": ["1", "2", "3"]}, "step_cost": TIMES | {"size": ["other"]}}
    code, said, cells, lines = verified(mine)
    assert code == 0 and said.splitlines()[-1] == "runs/mini/verify.csv runs/mini/verify.md"
    assert set(lines.outcome) == {"same bytes", "same digits", "same"} and "The run agrees" in said
    assert not lines.table.str.contains("step_cost").any() and not lines.row.str.contains("faster|hours").any()
    assert cells["MET, rendered | without GAN", "accuracy, %"] == "same digits"


@pytest.mark.parametrize("text, said", [("64.0 [60.0, 70.0]", "inside"), ("63.2 [60.0, 70.0]", "outside")])
def test_an_estimate_lies_inside_or_outside_the_committed_interval(verified, text, said):
    code, printed, cells, _ = verified(with_cell("summary", 0, "accuracy, %", text))
    assert cells["MET, rendered | VBG", "accuracy, %"] == said and code == (said == "outside")
    listed = f"summary: MET, rendered | VBG: accuracy, %: 70.1 [63.3, 76.8] -> {text}"
    assert (listed in printed) == (said == "outside")


@pytest.mark.parametrize(
    "name, row, verdict, said",
    [
        ("audit", 0, "not reproduced", "turned"),
        ("audit", 0, "inconclusive", "undecided"),
        ("audit", 3, "reproduced", "undecided"),
        ("summary", 1, "worse", "undecided"),
    ],
)
def test_a_verdict_turns_or_becomes_undecided(verified, name, row, verdict, said):
    code, printed, _, lines = verified(with_cell(name, row, "verdict", verdict))
    found = lines[(lines.kind == "verdict") & (lines.mine == verdict) & (lines.outcome != "same")]
    assert found.outcome.tolist() == [said] and code == (said == "turned")
    size = {("audit", 0): "3.1 points", ("audit", 3): "no: third", ("summary", 1): "-0.4 [-5.0, 4.0]"}[name, row]
    assert found["size"].iloc[0].startswith(size) and f"-> {verdict} ({size}" in printed


def test_the_verdict_behind_an_estimate_counts_too(verified):
    committed = TABLES | {"summary": SUMMARY | {"difference, points": ["–", "-9.0 [-14.3, -3.8]: worse", "–"]}}
    code, _, _, lines = verified(
        TABLES | {"summary": SUMMARY | {"difference, points": ["–", "-8.0 [-12, 9]: better", "–"]}}, committed
    )
    assert code == 1 and lines[lines.outcome == "turned"].committed.tolist() == ["worse"]


def test_rows_and_tables_of_one_side_are_listed_and_are_no_disagreement(verified):
    fewer = {name: cells[:2] for name, cells in SUMMARY.items()}
    code, said, cells, lines = verified({"summary": fewer, "audit": LEDGER, "per_class": COUNTS})
    assert code == 0 and cells["MS COCO, rendered | VBG", ""] == "committed alone"
    assert "summary: MS COCO, rendered | VBG: committed alone" in said
    alone = lines[lines.kind == "artefact"].set_index("table").outcome.to_dict()
    assert alone["paper/per_class/per_class.csv"] == "mine alone"
    assert alone["paper/table1_datasets/table1_datasets.csv"] == "committed alone"
    assert "paper/table1_datasets/table1_datasets.csv: committed alone" in said


def test_an_estimate_that_became_a_dash_is_listed(verified):
    _, said, cells, _ = verified(with_cell("summary", 1, "difference, points", "–"))
    assert "without GAN: difference, points: committed alone" in said


def test_a_table_without_estimates_is_compared_by_its_bytes(verified):
    code, said, _, lines = verified(with_cell("table1_datasets", 0, "images", "2,401"))
    assert code == 0 and lines[lines.outcome == "other bytes"].table.tolist() == [
        "paper/table1_datasets/table1_datasets.csv"
    ]
    assert "Tables without estimates or verdicts, with other bytes (1)\n  paper/table1_datasets" in said


def test_a_row_that_moved_is_still_the_same_row(verified):
    turned = {name: cells[::-1] for name, cells in SUMMARY.items()}
    code, _, cells, lines = verified(TABLES | {"summary": turned})
    assert code == 0 and (lines[lines.kind == "estimate"].outcome == "same digits").all()


@pytest.mark.parametrize("mean, said", [(0.701, "same digits"), (0.701 + 1e-12, "same number"), (0.7014, "inside")])
def test_numbers_count_where_both_sides_have_them_and_else_the_text(verified, mean, said):
    "Committed tables from before the columns of numbers have the text alone."
    columns = [Column("model", "model"), Column("accuracy, %", "accuracy")]
    mine, committed = (
        table_of([dict(model="VBG", accuracy=Estimate(value, 0.633, 0.768))], columns) for value in (mean, 0.701)
    )
    assert verified({"summary": mine}, {"summary": committed})[2]["VBG", "accuracy, %"] == said
    for sides in ((mine, committed.map(str)), (mine.map(str), committed)):
        assert verified(*({"summary": side} for side in sides))[2]["VBG", "accuracy, %"] == "same digits"


@pytest.mark.parametrize("title, before", [("estimate", ""), ("ours", "ours: ")])
def test_the_ledger_may_have_its_numbers_in_columns(verified, title, before):
    mean = f"{before}value" if before else title
    held = {
        mean: ["3.1", "-7.2", "21", ""],
        f"{before}low": ["0.2", "-8", "19", ""],
        f"{before}high": ["6", "-6", "23", ""],
    }
    code, _, cells, lines = verified({"audit": LEDGER | held | {mean: ["6.1", "", "", ""]}}, {"audit": LEDGER | held})
    assert code == 1 and cells["fusion-better", title] == "outside" and "first" in set(lines.row)
    assert verified({"audit": LEDGER | held}, {"audit": LEDGER})[0] == 0


@pytest.mark.parametrize("against", [False, True])
def test_without_a_run_or_tables_beside_it_the_message_says_what_to_do(tmp_path, monkeypatch, capsys, against):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    if against:
        save_table(pd.DataFrame(SUMMARY), "summary", "mini", {})
    assert command(["verify", "--against", str(tmp_path / "nothing")]) == 1
    said = capsys.readouterr().err
    wanted = (
        f"{tmp_path / 'nothing'} holds no table of this run"
        if against
        else "no results in runs/mini/figures: make reproduce PROFILE=mini"
    )
    assert said == wanted + "\n" and not (tmp_path / figures_place("mini").parent / "verify.csv").exists()


def test_a_table_of_other_settings_is_told(tmp_path, verified):
    for settings, folder in ((1, figures_place("mini")), (2, committed_place("mini"))):
        run = dict(run="runs/mini/classifiers/met/vbg/seed0", inputs=dict(settings=settings), files={})
        entries = {"paper/summary/summary": dict(made_from=[run], environment={}, files={"summary.csv": ""})}
        write_manifest(tmp_path / folder, entries, "mini")
    _, said, _, _ = verified({"audit": LEDGER})
    assert "The runs behind 1 of the tables had other settings: these are no repetition." in said
