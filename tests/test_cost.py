"""Cost of a model and a step: counts against the equations, the measurement kept as a run, tables from its file."""

import json
import math
import os
from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import saved, saved_files

from vbg.core.chance import seed_everything
from vbg.core.files import home
from vbg.core.profiles import VARIANTS
from vbg.core.profiles import profile as read_profile
from vbg.explain.costs import cost_table
from vbg.models.vbg import build_model, multiply_adds, one_item
from vbg.runs.notebook import study_notebook
from vbg.train import cost


def test_table_has_a_row_for_every_variant_and_counts_what_is_built():
    table = cost_table({name: read_profile(name) for name in ("smoke", "paper")})
    assert list(zip(table["profile"], table["model"])) == [
        (name, v.row) for name in ("smoke", "paper") for v in VARIANTS.values()
    ]
    smoke = table[table["profile"] == "smoke"].set_index("model")
    for name, variant in VARIANTS.items():
        built = build_model(read_profile("smoke"), name, num_classes=10, seed=0)
        assert smoke.loc[variant.row, "parameters"] == sum(p.numel() for p in built.parameters())
        assert smoke.loc[variant.row, "multiply-adds"] == multiply_adds(built, one_item(64, 64, "cpu")) > 0


def test_more_text_positions_cost_parameters_and_no_multiply_adds():
    paper = read_profile("paper")
    with torch.device("meta"):
        short, long = (
            build_model(
                replace(cost.from_scratch(paper), text=paper.text | dict(checkpoint=None, max_length=n)), num_classes=10
            )
            for n in (128, 512)
        )
    assert sum(p.numel() for p in long.parameters()) - sum(p.numel() for p in short.parameters()) == 294_912
    assert multiply_adds(long, one_item(224, 128)) == multiply_adds(short, one_item(224, 128))


@pytest.mark.parametrize("variant", ["without_gan", "without_bert_gan", "without_vit_gan"])
def test_a_step_takes_three_forward_passes(variant):
    # not exactly: pixels need no gradient, so the first map has one backward product and not two
    settings = read_profile("mini")
    step = cost.Step(settings=settings, variant=variant)
    counted = cost.count_flop(step, cost.random_batch(settings, 4, 64, 10))
    assert counted / 4 == pytest.approx(3 * 2 * multiply_adds(step.model, one_item(64, 64, "cpu")), rel=0.05)


def test_the_step_is_the_step_of_training(monkeypatch):
    from vbg.train import fit as fit_module

    settings = read_profile("smoke")
    settings.train.update(token_masking=0.0, flip=0.0, shift=0)
    batch = cost.random_batch(settings, 8, 16, 10)
    step = cost.Step(settings=settings)
    step.schedule = torch.optim.lr_scheduler.LambdaLR(step.optimizer, lambda n: 1.0)
    seed_everything(5)
    loss = step.run(batch)
    model = build_model(cost.from_scratch(settings), num_classes=10, seed=0)
    optimizer = torch.optim.AdamW(fit_module.parameter_groups(model, settings.train), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1.0)
    from accelerate import Accelerator

    named = dict(zip(("pixel_values", "input_ids", "attention_mask", "label"), batch))
    seed_everything(5)
    fit_module.train_epoch(
        fit_module.Loop(Accelerator(cpu=True), model, optimizer, [named], schedule),
        settings.train,
        settings.model["auxiliary_weight"],
        lambda input_ids, attention_mask: input_ids,
    )
    assert math.isfinite(loss)
    ours, theirs = step.model.state_dict(), model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def measures(monkeypatch, timed):
    "Put a function of the settings in place of the timing of a step, and nothing in place of its profile."
    monkeypatch.setattr(cost, "time_step", lambda settings, **how: timed(settings))
    monkeypatch.setattr(cost, "profile_step", lambda settings, **how: pd.DataFrame())
    monkeypatch.setattr(cost, "cores_in_use", lambda: 0.0)


def test_measurement_is_kept_and_made_again_when_its_inputs_change(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    measured = []
    monkeypatch.setattr(cost, "used_code", lambda *roots: {"train.cost": "this"})
    measures(monkeypatch, lambda settings: measured.append(settings.name) or {})
    file = cost.step_cost_run("smoke", ("smoke",))
    assert file == home() / "runs" / "smoke" / "cost" / "step.json" and measured == ["smoke"]
    first = file.read_bytes()
    assert cost.step_cost_run("smoke", ("smoke",)).read_bytes() == first and measured == ["smoke"]
    cost.step_cost_run("smoke", ("smoke",), force=True)
    assert measured == ["smoke"] * 2
    monkeypatch.setattr(cost, "used_code", lambda *roots: {"train.cost": "other"})
    cost.step_cost_run("smoke", ("smoke",))
    cost.step_cost_run("smoke", ("smoke", "mini"))
    assert measured == ["smoke"] * 4 + ["mini"]
    file.write_bytes(first[: len(first) // 2])  # cut off
    cost.step_cost_run("smoke", ("smoke",))
    assert measured == ["smoke"] * 4 + ["mini", "smoke"]


def test_a_measurement_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    measures(monkeypatch, lambda settings: {})
    file = cost.step_cost_run("smoke", ("smoke",))
    old = file.read_bytes()

    def stop(*names):
        raise KeyboardInterrupt

    measures(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        cost.step_cost_run("smoke", ("smoke",), force=True)
    measures(monkeypatch, lambda settings: {"other": 1})
    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        cost.step_cost_run("smoke", ("smoke",), force=True)
    assert file.read_bytes() == old and json.loads(old)["inputs"]["sizes"] == ["smoke"]


def test_notebooks_make_the_tables_and_drawing_again_gives_the_same_bytes(tmp_path, monkeypatch):
    from vbg.runs.notebook import run_notebook

    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    monkeypatch.setenv("VBG_STUDY", "yes")  # the study gives other sizes than the notebook, too
    jobs = {"model_cost": dict(profile="smoke"), "step_cost": dict(profile="smoke", sizes=["smoke"])}
    for name, asked in jobs.items():
        run_notebook(study_notebook(name), tmp_path / f"{name}.ipynb", asked, timeout=120)
    before = saved_files(tmp_path)
    assert set(before) == {
        f"{name}.{kind}" for name in ("model_cost", "step_cost", "step_profile") for kind in ("csv", "md")
    }
    written = (tmp_path / "runs" / "smoke" / "cost" / "step.json").stat().st_mtime_ns
    run_notebook(study_notebook("step_cost"), tmp_path / "again.ipynb", jobs["step_cost"], timeout=120)
    assert (tmp_path / "runs" / "smoke" / "cost" / "step.json").stat().st_mtime_ns == written
    assert before == saved_files(tmp_path)


def test_the_number_of_threads_is_as_before():
    before = torch.get_num_threads()
    cost.matmul_peak(2, size=64, seconds=0.01)
    cost.time_step(read_profile("smoke"), batch_size=2, length=8, steps=1, threads=2)
    assert torch.get_num_threads() == before


def test_the_tables_of_the_two_loops_are_made_from_a_kept_measurement(tmp_path, monkeypatch):
    from vbg.runs.notebook import run_notebook
    from vbg.train import time_to_accuracy as loops

    def made_up(profile, dataset, goal, repeats):
        row = dict(epochs=4, accuracy=0.5, used=1.0)
        both = [(loop, k) for k in range(repeats) for loop in loops.LOOPS]
        seconds = lambda loop, k: None if dataset == "coco" and k else (10.0 if loop == "vbg.train.fit" else 15.0 + k)
        rows = [row | dict(loop=n, seed=k, seconds=seconds(n, k), items_per_second=100.0 + k) for n, k in both]
        return dict(goal=goal, load=0.0, rows=rows)

    steps = [dict(change=c, repeat=k, items_per_second=50.0 + k) for k in range(2) for c in ("as it is", "other")]
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    monkeypatch.setattr(loops, "compare_loops", made_up)
    monkeypatch.setattr(loops, "compare_steps", lambda *given, **how: steps)
    file = loops.time_to_accuracy_run("smoke")
    assert json.loads(file.read_text())["inputs"]["goals"] == loops.GOALS["smoke"]
    before = file.read_bytes()
    run_notebook(study_notebook("time_to_accuracy"), tmp_path / "done.ipynb", dict(profile="smoke"), timeout=300)
    assert file.read_bytes() == before  # read, not measured again
    assert set(saved_files(tmp_path)) == {
        f"{name}.{kind}" for name in ("time_to_accuracy", "step_changes") for kind in ("csv", "md")
    }
    table = pd.read_csv(saved(tmp_path, "time_to_accuracy.csv"))
    assert table.loop.tolist() == [*loops.LOOPS] * 2
    assert table["times as fast: mean"][0] == pytest.approx(1.55) and table["times as fast"][1] == "–"
    assert table["seconds to it"][2] == "not reached (1 of 2 repeats)" and table["times as fast"][2] == "–"
    assert table["goal, % of validation"].tolist() == [20] * 4
