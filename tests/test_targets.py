"""What each target of the Snakefile asks for, on a finished smoke study."""

from conftest import notebook


def test_the_plan_of_every_target_holds_together(smoke_plan):
    for target in ("all", "explain", "recipe", "supplement", "gan", "loop_choice", "scarcity", "ladder"):
        assert smoke_plan(target), target
    asked = {job.rule for job in smoke_plan("supplement")}
    assert {"artefact_fusion_comparison", "artefact_departures"} <= asked


def test_everything_holds_every_target(smoke_plan):
    "The rule `everything` gathers what each target asks for."
    names = {target: {job.notebook for job in smoke_plan(target)} for target in ("everything", "supplement", "gan")}
    assert names["supplement"] < names["everything"] and names["gan"] < names["everything"]
    assert notebook("train-met-0") in names["everything"]
    assert not any("collection" in name for name in names["everything"])
