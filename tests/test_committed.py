"""The figures that are committed: the manifest tells how each file was made, and marks what is of earlier settings.

The settings stand in the manifest. Where it names only a file by its checksum, `gan_quality.csv` tells the epochs of a
GAN, and `BY_CHECKSUM` what is known of other files. An entry of earlier settings says so in `settings_of`."""

import csv
import functools
import hashlib
import json
import re
from dataclasses import asdict
from fnmatch import fnmatchcase

import pytest
from conftest import ROOT

from vbg.core.places import run_place, store_of
from vbg.core.plan import EXPERIMENTS, experiment_overrides, experiment_store
from vbg.core.profiles import PROFILES
from vbg.core.profiles import profile as read_profile
from vbg.data.sets import study_settings
from vbg.runs.manifest import read_manifest, write_manifest
from vbg.train.jobs import for_model

FIGURES = ROOT / "figures" / "mini"
ENTRIES = read_manifest(FIGURES)
TODAY = read_profile("mini")

# Files of which the manifest tells the checksum alone -> how they were made. One that is made again has another
# checksum: its entry is to go.
BY_CHECKSUM = {
    "132ef28e24508b79196f4aed8859af534470c9270115cab2ceac16d539d6e4a1": (
        "step.json, measured on 24 November by the code of then, on a machine that was not idle"
    ),
    "b4fe02d86f5b41cab70792f9a2357a74be5273794945565dbda0a31fc8d72213": (
        "gan.json, measured on 24 November by the code of then"
    ),
    "ad70f5e68a6592c4bf489280c28a5c6ee2cc10456d6baa7b7a8019e069adee60": (
        "the GANs of gan_choice: 20 epochs, a third of the 60 of then; today 13, a third of 40"
    ),
}

# Settings that have changed since the figures were made -> their value of then ("absent": there was no such setting).
# The next run of the study makes all figures anew: then this is to be empty again.
AWAITED = dict.fromkeys(  # named since; what they are set to is what was done then
    [
        *("gan.window", "gan.features", "gan.hidden_size"),
        *(f"gan.text.adversary{part}" for part in ("", "_epochs", "_weight", "_learning_rate")),
    ],
    "absent",
)
AWAITED_ELSEWHERE = {}  # the same of other profiles, as Table 2 holds them
GONE = set()  # settings and sections of then that there are no more


def plain(value):
    return json.loads(json.dumps(value))


def parts(made_from, name=""):
    "What an artefact was made from: kind, record and, in a dict, its key. All else is passed over."
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
    "Settings in which two nested records differ, such as 'train.epochs 8, not 6'. A later one that is None is none."
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted({*found, *wanted})
            if key in found or wanted[key] is not None
            for line in unlike(found.get(key, "absent"), wanted.get(key, "absent"), f"{path}.{key}" if path else key)
        ]
    alike = found == wanted or AWAITED.get(path, wanted) == found or (path in GONE and wanted == "absent")
    return [] if alike else [f"{path} {found}, not {wanted}"]


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
    return plain(asdict(for_model(study_settings("mini", dataset, overrides=allowed()[store]), dataset, model)))


def of_run(record, _):
    "In what a run differs from one that would be made today."
    store, (dataset, model, _) = store_of(record["run"]), record["run"].split("/")[-3:]
    if store not in allowed():
        return [f"a run of {store}, of which the plan does not know"]
    found, today = plain(record["inputs"]["settings"]), wanted(store, dataset, model)
    sections = {*found, "vision", "text", "fusion", "model", "train", "balance"}
    lines = unlike(found, {name: today["data"][dataset] if name == "data" else today[name] for name in sections})
    if "data" in found and any(path.startswith(f"data.{dataset}.") for path in AWAITED):
        return lines  # Table 1 is still of other data; the settings tell those of this run
    return lines + of_card(dict(dataset=dataset, fingerprint=record["inputs"]["data"]["natural"]), "")


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
    card = ENTRIES["paper/table1_datasets/table1_datasets"]["made_from"][dataset]
    return (
        []
        if record["fingerprint"] == card["fingerprint"]
        else [f"data of {dataset} {record['fingerprint']}, not {card['fingerprint']}"]
    )


def gan_epochs():
    "Checksum of a GAN's `inputs.json` -> its epochs, which gan_quality.csv prints in the order of its entry."
    made = [
        record
        for _, record, _ in parts(ENTRIES["gan/gan_samples/gan_quality"]["made_from"])
        if record["file"].endswith("/inputs.json")
    ]
    with open(FIGURES / "gan/gan_samples/gan_quality.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [record["file"].split("/")[-3:-1] for record in made] == [
        [row["asked for"], f"gan{row['GAN']}"] for row in rows
    ]
    return {record["sha256"]: int(row["epochs"]) for record, row in zip(made, rows)}


def of_file(record, _):
    "What is known of a file that the manifest names by its checksum, where it is not of today."
    epochs = gan_epochs().get(record["sha256"], TODAY.gan["epochs"])
    known = [BY_CHECKSUM[record["sha256"]]] if record["sha256"] in BY_CHECKSUM else []
    return known + ([] if epochs == TODAY.gan["epochs"] else [f"gan.epochs {epochs}, not {TODAY.gan['epochs']}"])


def of_profile(record, name):
    "In what a table of settings differs from one of today."
    today = plain(asdict(read_profile(name))) if name in PROFILES else {}
    lines = unlike(record, {section: today.get(section, "absent") for section in record})
    return [line for line in lines if f"{name}.{line.split()[0]}" not in AWAITED_ELSEWHERE]


OF = dict(run=of_run, adapted=of_adapted, file=of_file, card=of_card, profile=of_profile)


def why_earlier(entry):
    "In what an artefact differs from one that would be made today."
    return sorted({line for kind, record, key in parts(entry["made_from"]) for line in OF[kind](record, key)})


def wrongly_marked(entries):
    "Entries that are marked as of earlier settings and are of today, and the other way about."
    old = {key: why_earlier(entry) for key, entry in entries.items()}
    return [
        f"{key} is not marked: {'; '.join(why[:3])}" if why else f"{key} is marked, and of today"
        for key, why in old.items()
        if bool(why) != bool(entries[key].get("settings_of"))
    ]


def unaccounted(folder):
    "Files of which the manifest does not tell how they were made, and those whose bytes are others than it tells."
    told = {
        (folder / key).with_name(name).relative_to(folder).as_posix(): digest
        for key, entry in read_manifest(folder).items()
        for name, digest in entry["files"].items()
    }
    paths = folder.glob("*/*/*.*")
    there = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return sorted(name for name in {*there, *told} if there.get(name) != told.get(name))


@pytest.mark.parametrize("folder", ["mini", "real", "collection-commons-museum"])
def test_the_manifest_names_every_file(folder):
    assert len(read_manifest(ROOT / "figures" / folder)) >= 2
    assert unaccounted(ROOT / "figures" / folder) == []


@pytest.mark.parametrize("real, most, size", [(False, 180, 16e6), (True, 60, 2e6)])
def test_the_committed_figures_are_few_and_small(real, most, size):
    files = [path for path in (ROOT / "figures").rglob("*.*") if path.is_file()]
    files = [path for path in files if ("real" in path.relative_to(ROOT / "figures").parts) == real]
    assert 5 < len(files) <= most and sum(path.stat().st_size for path in files) <= size
    assert {path.suffix for path in files} <= {".csv", ".md", ".png", ".json"}


def test_no_photograph_of_coco_is_committed():
    "Pictures of the real study are curves and matrices; their names are those of the notebooks that draw no object."
    drawn = {path.stem for path in (ROOT / "figures" / "real").rglob("*.png")}
    curves = "fig5_loss_curves fig5_models fig6_confusion_matrix per_class_recall calibration_curves"
    assert drawn <= {*curves.split()} | {"fig7_heatmap_met", "fig7_heatmap_met_department"}


def test_the_manifest_marks_exactly_the_entries_of_earlier_settings():
    assert wrongly_marked(ENTRIES) == []


def test_the_results_page_lists_exactly_the_marked_entries():
    page = (FIGURES / "RESULTS.md").read_text(encoding="utf-8")
    section = re.search(r"^## Figures of earlier settings\n(.*?)(?=^## |\Z)", page, re.M | re.S)[1]
    first = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    patterns = [name for cell in first for name in re.findall(r"`([^`]+)`", cell)]
    names = {key.split("/")[-1]: entry.get("settings_of") for key, entry in ENTRIES.items()}
    listed = {pattern: {name for name in names if fnmatchcase(name, pattern)} for pattern in patterns}
    assert all(listed.values()), listed
    assert set().union(*listed.values()) == {name for name, earlier in names.items() if earlier}


def test_the_manifest_names_the_runs_of_a_number():
    told = json.loads((FIGURES / "manifest.json").read_text(encoding="utf-8"))
    runs = told["artefacts"]["paper/table3_comparison/table3_comparison"]["made_from"]
    assert len(runs) == 120 and "run:met/densenet/seed0" in runs and {*runs} <= told["runs"].keys()
    assert told["runs"]["run:met/densenet/seed0"]["run"] == run_place("mini", "met", "densenet", 0).as_posix()


def test_what_is_known_by_checksum_is_still_there():
    files = {
        record["sha256"]
        for entry in ENTRIES.values()
        for kind, record, _ in parts(entry["made_from"])
        if kind == "file"
    }
    assert set(BY_CHECKSUM) <= files, "made again: take its entry out of BY_CHECKSUM, and its mark out of the manifest"


def test_what_awaits_the_next_run_was_so_when_the_figures_were_made_and_is_not_so_today():
    made = [
        record if kind == "profile" else record["inputs"]["settings"]
        for e in ENTRIES.values()
        for kind, record, _ in parts(e["made_from"])
        if kind in ("run", "profile")
    ]
    today = plain(asdict(TODAY))
    look = lambda settings, sections: functools.reduce(lambda part, key: part.get(key, {}), sections, settings)
    for path, then in AWAITED.items():
        *sections, name = path.split(".")
        found = {str(look(settings, sections).get(name, "absent")) for settings in made if look(settings, sections)}
        now = str(look(today, sections)[name])  # other artefacts may have been made with it since
        assert str(then) in found and str(then) != now, f"{path}: take it out of AWAITED"
    table2 = ENTRIES["paper/table2_hyperparameters/table2_hyperparameters"]["made_from"]
    for path, then in AWAITED_ELSEWHERE.items():
        of, *sections, name = path.split(".")
        records = {key: record for kind, record, key in parts(table2) if kind == "profile"}
        now = look(plain(asdict(read_profile(of))), sections)[name]
        assert look(records[of], sections)[name] == then != now, f"{path}: take it out of AWAITED_ELSEWHERE"
    for path in GONE:
        *sections, name = path.split(".")
        assert name not in look(today, sections) and any(name in look(settings, sections) for settings in made), path


def test_the_profile_quotes_the_factors_of_the_committed_tables():
    found = sorted(FIGURES.glob("**/*learning_rates_*.csv"))
    quoted = {(dataset, model): n for dataset, of in TODAY.train["factors"].items() for model, n in of.items()}
    chosen = []
    for path in found:
        with path.open(newline="", encoding="utf-8") as handle:
            rows = (row | dict(dataset=path.stem.rpartition("_")[2]) for row in csv.DictReader(handle))
            chosen += [row for row in rows if row["chosen"] == "yes"]
    table = {(row["dataset"], row["model"]): float(row["factor"]) for row in chosen}
    assert quoted == pytest.approx(table, rel=0.01), "paste what learning_rates prints: nbs/core/03_profiles.ipynb"
    edge = [f"{row['dataset']}, {row['model']}: {row['factor']}" for row in chosen if row["at an edge"] == "yes"]
    assert not edge, f"a better factor may lie beyond; add a row to `rate`, nbs/core/04_plan.ipynb: {edge}"


@pytest.fixture
def changed():
    "A function that changes what an artefact was made from and tells why it is not of today."

    def change(key, edit):
        entries = json.loads(json.dumps(ENTRIES))
        edit(entries[key]["made_from"])
        return why_earlier(entries[key])

    return change


def test_a_run_of_other_settings_or_data_is_told_from_one_of_today(changed):
    def setting(section, key, value):
        def edit(runs):
            runs[-1]["inputs"]["settings"][section][key] = value

        return edit

    assert changed("paper/fig5_loss_curves/fig5_loss_curves", lambda runs: None) == []
    assert changed("paper/fig5_loss_curves/fig5_loss_curves", setting("train", "epochs", 8)) == [
        "train.epochs 8, not 60"
    ]
    assert changed("paper/fig5_loss_curves/fig5_loss_curves", setting("gan", "epochs", 60)) == ["gan.epochs 60, not 40"]
    assert changed("paper/fig5_loss_curves/fig5_loss_curves", setting("train", "learning_rate_factor", 2.0)) == [
        "train.learning_rate_factor 2.0, not 1.0"
    ]
    assert changed(
        "paper/fig5_loss_curves/fig5_loss_curves", lambda runs: runs[0]["inputs"]["settings"]["train"].pop("mixup")
    ) == ["train.mixup absent, not 0.0"]
    assert changed(
        "paper/fig5_loss_curves/fig5_loss_curves",
        lambda runs: runs[0].update(run="runs/mini/experiments/trial/met/vbg/seed0"),
    ) == ["a run of mini/trial, of which the plan does not know"]
    assert (
        len(
            changed(
                "paper/fig5_loss_curves/fig5_loss_curves", lambda runs: runs[0]["inputs"]["data"].update(natural="0")
            )
        )
        == 1
    )
    assert len(changed("supplement/label_leaks/label_leaks_met", lambda made: made.update(fingerprint="0"))) == 1
    assert "adaptation.epochs 3, not 24" in changed(
        "supplement/domain_adaptation/domain_adaptation_perplexity",
        lambda made: made[0]["inputs"]["settings"].update(epochs=3),
    )
    assert (
        changed("paper/model_cost/model_cost", lambda made: made["mini"]["text"].update(num_heads=5))[-1]
        == "text.num_heads 5, not 4"
    )


def test_runs_of_the_plan_may_differ_as_the_plan_says(changed):
    def renewed(made, experiment):
        for row, runs in made.items():
            for run in runs:
                dataset, model, seed = run["run"].split("/")[-3:]
                store = experiment_store("mini", experiment, row)
                card = ENTRIES["paper/table1_datasets/table1_datasets"]["made_from"][dataset]
                run["inputs"]["data"]["natural"] = card["fingerprint"]
                run["run"] = run_place(store, dataset, model, int(seed[4:])).as_posix()
                run["inputs"]["settings"] = plain(
                    {
                        name: wanted(store, dataset, model)[name]
                        for name in ("vision", "text", "fusion", "model", "train", "balance")
                    }
                )

    assert (
        changed("supplement/fusion_comparison/fusion_comparison", lambda made: renewed(made, "fusion")) == []
        and changed("supplement/domain_adaptation/domain_adaptation", lambda made: renewed(made, "adaptation")) == []
    )

    def swapped(made):
        renewed(made, "fusion")
        next(iter(made.values()))[0]["inputs"]["settings"]["fusion"]["kind"] = "of no row"

    assert len(changed("supplement/fusion_comparison/fusion_comparison", swapped)) == 1


def test_a_mark_too_many_or_too_few_is_seen():
    key, old = "paper/summary/summary", "supplement/departures/departures"
    entries = {key: ENTRIES[key] | dict(settings_of="8 epochs"), old: {**ENTRIES[old], "settings_of": ""}}
    first, second = wrongly_marked(entries)
    assert first == f"{key} is marked, and of today" and second.startswith(f"{old} is not marked: ")


def test_a_file_without_entry_or_with_other_bytes_is_seen(tmp_path):
    entry = dict(made_from=[], environment={}, files={"a.csv": hashlib.sha256(b"1").hexdigest()})
    (tmp_path / "g" / "x").mkdir(parents=True)
    (tmp_path / "g/x/a.csv").write_text("1")
    assert unaccounted(tmp_path) == ["g/x/a.csv"]
    write_manifest(tmp_path, {"g/x/a": entry}, "mini")
    assert unaccounted(tmp_path) == []
    (tmp_path / "g/x/a.csv").write_text("2")
    (tmp_path / "g/x/b.png").write_text("")
    assert unaccounted(tmp_path) == ["g/x/a.csv", "g/x/b.png"]
    (tmp_path / "g/x/a.csv").unlink()
    assert unaccounted(tmp_path) == ["g/x/a.csv", "g/x/b.png"]
