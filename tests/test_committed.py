"""The figures that are committed: each file has the json of what made it; RESULTS.md names what has other settings than today's.

The settings stand in the json. Where it names only a file by its checksum, `gan_quality.csv` tells the epochs of a GAN, and `BY_CHECKSUM` what is known of other files.
RESULTS.md names the artefacts of earlier settings in the first column of the table under `HEADING`, in backticks, with `*` as in fnmatch."""

import csv
import functools
import hashlib
import json
import re
import shutil
import sys
from dataclasses import asdict
from fnmatch import fnmatchcase

import pytest
from conftest import ROOT

from vbg.core.plan import EXPERIMENTS, experiment_overrides, experiment_store
from vbg.core.profiles import PROFILES
from vbg.core.profiles import profile as read_profile
from vbg.data.sets import study_settings
from vbg.train.jobs import for_model

FIGURES = ROOT / "figures" / "mini"
HEADING = "Figures of earlier settings"
KINDS = {".png", ".pdf", ".csv", ".md", ".tex", ".html"}
TODAY = read_profile("mini")

# Files of which a json tells the checksum alone -> how they were made. A file that is made again has another checksum, and its entry is to go.
BY_CHECKSUM = {
    "132ef28e24508b79196f4aed8859af534470c9270115cab2ceac16d539d6e4a1": "runs/mini/cost/step.json, measured on 24 November by the code of then, on a machine that was not idle",
    "b4fe02d86f5b41cab70792f9a2357a74be5273794945565dbda0a31fc8d72213": "runs/mini/cost/gan.json, measured on 24 November by the code of then",
    "ad70f5e68a6592c4bf489280c28a5c6ee2cc10456d6baa7b7a8019e069adee60": "the GANs of gan_choice: 20 epochs, a third of the 60 of then; today 13, a third of 40",
}


def plain(value):
    return json.loads(json.dumps(value))


def parts(made_from, name=""):
    "What an artefact was made from: kind, record and, in a dict, its key. Numbers and words that are no such record are passed over."
    kinds = dict(
        run={"run", "inputs"},
        adapted={"inputs", "texts"},
        file={"file", "sha256"},
        card={"fingerprint"},
        profile={"vision", "text", "train"},
    )
    if isinstance(made_from, list):
        for part in made_from:
            yield from parts(part)
    elif isinstance(made_from, dict):
        kind = next((kind for kind, keys in kinds.items() if keys <= made_from.keys()), None)
        if kind:
            yield kind, made_from, name
        else:
            for key, part in made_from.items():
                yield from parts(part, key)


def unlike(found, wanted, path=""):
    "Settings in which two nested records differ, such as 'train.epochs 8, not 6'."
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted({*found, *wanted})
            for line in unlike(found.get(key, "absent"), wanted.get(key, "absent"), f"{path}.{key}" if path else key)
        ]
    return [] if found == wanted else [f"{path} {found}, not {wanted}"]


SEARCHED = {"mini"} | {
    experiment_store("mini", name, change)
    for name, asked in EXPERIMENTS.items()
    if asked.searched
    for change in asked.changes
}  # their rate is the one that the search found


@functools.cache
def allowed():
    "Folder of runs -> the overrides with which study and plan make them."
    rows = {
        experiment_store("mini", name, change): experiment_overrides("mini", name, change)
        for name, asked in EXPERIMENTS.items()
        for change in asked.changes
    }
    return rows | {"mini": {"balance": {"gan": TODAY.gan["gans"][0]}}}


@functools.cache
def wanted(store, dataset, model):
    "The settings of a run that would be made today."
    return plain(asdict(for_model(study_settings("mini", dataset, overrides=allowed()[store]), model)))


def of_run(record, _):
    "In what a run differs from one that would be made today."
    _, store, dataset, model, _ = record["run"].split("/")
    if store not in allowed():
        return [f"a run of {store}, of which the plan does not know"]
    found, today = plain(record["inputs"]["settings"]), wanted(store, dataset, model)
    tried = [change["train"]["learning_rate_factor"] for change in EXPERIMENTS["rate"].changes.values()]
    if store in SEARCHED and found["train"].get("learning_rate_factor") in tried:  # what the search found
        today = today | {"train": today["train"] | {"learning_rate_factor": found["train"]["learning_rate_factor"]}}
    sections = {*found, "vision", "text", "fusion", "model", "train", "balance"}
    return unlike(found, {name: today[name] for name in sections}) + of_card(
        dict(dataset=dataset, fingerprint=record["inputs"]["data"]["natural"]), ""
    )


def of_adapted(record, _):
    "In what an adapted language model differs from one that would be made today."
    found = {
        name: value for name, value in record["inputs"]["settings"].items() if name != "next_sentence"
    }  # which follows from the encoder
    return unlike(
        dict(adaptation=found, text=record["inputs"]["text"]), plain(dict(adaptation=TODAY.adaptation, text=TODAY.text))
    ) + of_card(record, "")


def of_card(record, _):
    "Whether the data are those of Table 1."
    dataset = record.get("dataset") or record["name"]
    card = json.loads((FIGURES / "table1_datasets.json").read_text())["made_from"][dataset]
    return (
        []
        if record["fingerprint"] == card["fingerprint"]
        else [f"data of {dataset} {record['fingerprint']}, not {card['fingerprint']}"]
    )


def gan_epochs():
    "Checksum of a GAN's `inputs.json` -> its epochs, which gan_quality.csv prints in the order of its json."
    made = [
        record
        for _, record, _ in parts(json.loads((FIGURES / "gan_quality.json").read_text())["made_from"])
        if record["file"].endswith("/inputs.json")
    ]
    with open(FIGURES / "gan_quality.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [record["file"].split("/")[-3:-1] for record in made] == [
        [row["asked for"], f"gan{row['GAN']}"] for row in rows
    ]
    return {record["sha256"]: int(row["epochs"]) for record, row in zip(made, rows)}


def of_file(record, _):
    "What is known of a file that a json names by its checksum, where it is not of today."
    epochs = gan_epochs().get(record["sha256"], TODAY.gan["epochs"])
    known = [BY_CHECKSUM[record["sha256"]]] if record["sha256"] in BY_CHECKSUM else []
    return known + ([] if epochs == TODAY.gan["epochs"] else [f"gan.epochs {epochs}, not {TODAY.gan['epochs']}"])


def of_profile(record, name):
    "In what a table of settings differs from one of today."
    today = plain(asdict(read_profile(name))) if name in PROFILES else {}
    return unlike(record, {section: today.get(section, "absent") for section in record})


OF = dict(run=of_run, adapted=of_adapted, file=of_file, card=of_card, profile=of_profile)


def earlier():
    "Artefact -> in what it differs from one that would be made today; those that do not are left out."
    told = {path.stem: json.loads(path.read_text())["made_from"] for path in sorted(FIGURES.glob("*.json"))}
    found = {
        name: sorted({line for kind, record, key in parts(made_from) for line in OF[kind](record, key)})
        for name, made_from in told.items()
    }
    return {name: lines for name, lines in found.items() if lines}


def listed(readme):
    "Patterns in the first column of the table of figures of earlier settings."
    section = re.search(rf"^#+ {re.escape(HEADING)}\n(.*?)(?=^#{{1,6}} |\Z)", readme, re.M | re.S)
    assert section, f"RESULTS.md has no heading '{HEADING}'"
    first = [line.split("|")[1] for line in section[1].splitlines() if line.startswith("|")]
    return [name.removeprefix("figures/mini/") for cell in first for name in re.findall(r"`([^`]+)`", cell)]


def disagreements(patterns, artefacts, old):
    "What RESULTS.md says and the json files do not, and the other way about."
    matched = {pattern: {name for name in artefacts if fnmatchcase(name, pattern)} for pattern in patterns}
    said = set().union(*matched.values())
    return (
        [f"`{pattern}` is listed and is not there" for pattern, names in matched.items() if not names]
        + [f"{name} is listed, and was made with the settings of today" for name in sorted(said - set(old))]
        + [f"{name} is not listed: {'; '.join(old[name][:3])}" for name in sorted(set(old) - said)]
    )


def unaccounted(folder):
    "Files without a json that tells how they were made, and those whose bytes are others than it tells."
    told = [pair for path in sorted(folder.glob("*.json")) for pair in json.loads(path.read_text())["files"].items()]
    there = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.suffix in KINDS and path.name != "RESULTS.md"
    }
    names = [name for name, _ in told]
    return sorted(
        {*there} ^ {*names}
        | {name for name in names if names.count(name) > 1}
        | {name for name, digest in told if there.get(name) != digest}
    )


@pytest.mark.parametrize("folder", ["mini", "collection-commons-museum"])
def test_every_file_has_the_json_of_what_made_it(folder):
    assert len(list((ROOT / "figures" / folder).glob("*.json"))) >= 2
    assert unaccounted(ROOT / "figures" / folder) == []


def test_results_page_names_exactly_the_figures_of_earlier_settings():
    artefacts = {path.stem for path in FIGURES.glob("*.json")}
    assert disagreements(listed((FIGURES / "RESULTS.md").read_text(encoding="utf-8")), artefacts, earlier()) == []


def test_what_is_known_by_checksum_is_still_there():
    files = {
        record["sha256"]
        for path in FIGURES.glob("*.json")
        for kind, record, _ in parts(json.loads(path.read_text())["made_from"])
        if kind == "file"
    }
    assert set(BY_CHECKSUM) <= files, (
        "made again: take its entry out of BY_CHECKSUM, and its row out of vbg/reports/results.md"
    )


@pytest.fixture
def changed(tmp_path, monkeypatch):
    "A function that saves a changed copy of an artefact's json and tells why it is not of today."
    for name in ("table1_datasets.json", "gan_quality.json", "gan_quality.csv"):
        shutil.copy(FIGURES / name, tmp_path)

    def change(name, edit):
        told = json.loads((ROOT / "figures" / "mini" / f"{name}.json").read_text())
        edit(told["made_from"])
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
        return earlier().get(name, [])

    monkeypatch.setattr(sys.modules[__name__], "FIGURES", tmp_path)
    return change


def test_a_run_of_other_settings_or_data_is_told_from_one_of_today(changed):
    def setting(section, key, value):
        def edit(runs):
            runs[-1]["inputs"]["settings"][section][key] = value

        return edit

    assert changed("fig5_loss_curves", lambda runs: None) == []
    assert changed("fig5_loss_curves", setting("train", "epochs", 8)) == ["train.epochs 8, not 6"]
    assert changed("fig5_loss_curves", setting("gan", "epochs", 60)) == ["gan.epochs 60, not 40"]
    assert changed("fig5_loss_curves", setting("train", "learning_rate_factor", 3.0)) == []  # the search may find it
    assert changed("fig5_loss_curves", setting("train", "learning_rate_factor", 2.0)) == [
        "train.learning_rate_factor 2.0, not 1.0"
    ]
    assert changed("fig5_loss_curves", lambda runs: runs[0]["inputs"]["settings"]["train"].pop("mixup")) == [
        "train.mixup absent, not 0.0"
    ]
    assert changed("fig5_loss_curves", lambda runs: runs[0].update(run="runs/mini-trial/met/vbg/seed0")) == [
        "a run of mini-trial, of which the plan does not know"
    ]
    assert len(changed("fig5_loss_curves", lambda runs: runs[0]["inputs"]["data"].update(natural="0"))) == 1
    assert len(changed("label_leaks_met", lambda made: made.update(fingerprint="0"))) == 1
    assert changed("domain_adaptation_perplexity", lambda made: made[0]["inputs"]["settings"].update(epochs=3)) == [
        "adaptation.epochs 3, not 24"
    ]
    assert changed("model_cost", lambda made: made["mini"]["text"].update(num_heads=5))[-1] == "text.num_heads 5, not 4"


def test_runs_of_the_plan_may_differ_as_the_plan_says(changed):
    def renewed(made, experiment):
        for row, runs in made.items():
            for run in runs:
                _, _, dataset, model, seed = run["run"].split("/")
                store = experiment_store("mini", experiment, row)
                run["run"] = f"runs/{store}/{dataset}/{model}/{seed}"
                run["inputs"]["settings"] = plain(
                    {
                        name: wanted(store, dataset, model)[name]
                        for name in ("vision", "text", "fusion", "model", "train", "balance")
                    }
                )

    assert (
        changed("fusion_comparison", lambda made: renewed(made, "fusion")) == []
        and changed("domain_adaptation", lambda made: renewed(made, "adaptation")) == []
    )

    def swapped(made):
        renewed(made, "fusion")
        next(iter(made.values()))[0]["inputs"]["settings"]["fusion"]["kind"] = "of no row"

    assert len(changed("fusion_comparison", swapped)) == 1


def test_a_list_that_says_too_much_or_too_little_fails():
    old, artefacts = {"a_met": ["train.epochs 8, not 6"], "a_coco": ["train.epochs 8, not 6"]}, {"a_met", "a_coco", "b"}
    assert disagreements(["a_*"], artefacts, old) == []
    assert disagreements(["a_met"], artefacts, old) == ["a_coco is not listed: train.epochs 8, not 6"]
    assert disagreements(["a_*", "b"], artefacts, old) == ["b is listed, and was made with the settings of today"]
    assert disagreements(["a_*", "c*"], artefacts, old) == ["`c*` is listed and is not there"]


def test_the_list_is_read_from_the_first_column_under_the_heading():
    text = f"# vbg\n| `x` | y |\n\n### {HEADING}\nMade by `make gan`.\n\n| artefact | made with |\n|:--|:--|\n| `a_*`, `figures/mini/b` | `8` epochs |\n\n## Next\n| `z` | |\n"
    assert listed(text) == ["a_*", "b"]
    with pytest.raises(AssertionError, match="has no heading"):
        listed("# vbg\n")


def test_a_file_without_json_or_with_other_bytes_is_seen(tmp_path):
    (tmp_path / "a.csv").write_text("1")
    assert unaccounted(tmp_path) == ["a.csv"]
    (tmp_path / "a.json").write_text(json.dumps({"files": {"a.csv": hashlib.sha256(b"1").hexdigest()}}))
    assert unaccounted(tmp_path) == []
    (tmp_path / "a.csv").write_text("2")
    (tmp_path / "b.png").write_text("")
    assert unaccounted(tmp_path) == ["a.csv", "b.png"]
    (tmp_path / "a.csv").unlink()
    assert unaccounted(tmp_path) == ["a.csv", "b.png"]
