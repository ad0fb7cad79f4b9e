"""The GAN, its pairs and the loop: what they may read, what they promise, their errors when something is missing."""

import json

import numpy as np
import pytest
import torch

from vbg.core.files import DataError, RunError
from vbg.core.profiles import profile
from vbg.data.store import ExampleData
from vbg.gan.attributes import learn_table
from vbg.gan.generated import GENERATED
from vbg.gan.pairs import fit_pair_maker
from vbg.gan.quality import fit_independent, memorised
from vbg.gan.store import gan_folder, open_maker
from vbg.gan.text import fit_text_generator
from vbg.gan.texture import cut_library
from vbg.gan.training import GanTrainer
from vbg.models.text import tokenise, tokenizer_for
from vbg.train.gan_jobs import training_tokenizer

SETTINGS = profile("smoke")


def things(n=60, size=32):
    "Discs and bars, red or blue as the text says; 40 to train, 10 to validate, 10 to test."
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:size, :size]
    label, hue = np.arange(n) % 2, np.arange(n) // 2 % 2
    pixels = np.full((n, size, size, 3), 30, np.uint8)
    for i in range(n):
        cy, cx = rng.integers(10, size - 10, 2)
        pixels[i][(y - cy) ** 2 + (x - cx) ** 2 < 50 if label[i] == 0 else (abs(y - cy) < 4) & (abs(x - cx) < 9)] = (
            (220, 40, 40) if hue[i] == 0 else (40, 40, 220)
        )
    texts = [
        [f"{('scarlet', 'azure')[h]} {('round', 'oblong')[c]} thing, {k} cm."]
        for c, h, k in zip(label, hue, rng.integers(10, 30, n))
    ]
    return ExampleData(
        pixels=pixels,
        label=label,
        ids=np.array([f"thing{i}" for i in range(n)], object),
        texts=texts,
        text=np.array([t[0] for t in texts], object),
        split=np.array(["train"] * 40 + ["validation"] * 10 + ["test"] * 10, object),
        attributes=np.array(["{}"] * n, object),
        origin=np.array(["real"] * n, object),
        class_names=["disc", "bar"],
        name="things",
        fingerprint="things",
    )


@pytest.fixture(scope="module")
def whole():
    data = things()
    return tokenise(data, tokenizer_for(data, 200), 16)


def planted(whole, disguised):
    "The training split with test item 55 in it, under its own split or called 'train'."
    data = whole.take(np.r_[0:40, 55])
    data.split = data.split.copy()
    if disguised:
        data.split[-1] = "train"
    return data


LEARNERS = {
    "table": lambda train, whole: learn_table(train, minimum=3, whole=whole),
    "texture library": lambda train, whole: cut_library(train, whole=whole),
    "GAN": lambda train, whole: GanTrainer(
        train=train, table=learn_table(whole.select("train"), minimum=3), settings=SETTINGS.gan, seed=0, whole=whole
    ),
    "tokenizer": lambda train, whole: training_tokenizer(train, SETTINGS, whole),
    "text generator": lambda train, whole: fit_text_generator(
        train=train,
        validation=whole.select("validation"),
        table=learn_table(whole.select("train"), minimum=3),
        tokenizer=tokenizer_for(whole, 200),
        settings=dict(epochs=1),
        seed=0,
        whole=whole,
    ),
    "independent classifier": lambda train, whole: fit_independent(train, epochs=1, whole=whole),
}


@pytest.mark.parametrize("disguised", [False, True], ids=["as it is", "called a training item"])
@pytest.mark.parametrize("what", LEARNERS)
def test_a_planted_test_item_is_refused_by_name(whole, what, disguised):
    with pytest.raises(DataError, match="may see the training split only: item 'thing55'"):
        LEARNERS[what](planted(whole, disguised), whole)


def test_the_tokenizer_that_a_run_learns_refuses_a_test_item_that_is_called_a_training_item(whole):
    from vbg.models.batches import tokenise_sets

    natural = whole.take(np.r_[0:60, 55])
    natural.split = natural.split.copy()
    natural.split[-1] = "train"
    with pytest.raises(DataError, match="the tokenizer may see the training split only: item 'thing55'"):
        tokenise_sets(dict(natural=natural, folders={}), SETTINGS)
    assert tokenise_sets(dict(natural=whole, folders={}), SETTINGS)[0].get_vocab()


def test_a_planted_item_of_the_class_balanced_test_is_refused_by_name(tmp_path, monkeypatch):
    from vbg.train import gan_jobs

    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    honest = gan_jobs.study_data

    def planted(*asked):
        sets = honest(*asked)
        natural = sets["natural"]
        natural.ids = natural.ids.copy()
        natural.ids[np.flatnonzero(natural.split == "train")[3]] = sets["balanced"].ids[5]
        return sets

    monkeypatch.setattr(gan_jobs, "study_data", planted)
    with pytest.raises(
        DataError,
        match="the pair maker may see the training split only: item '[^']+' says 'train' but is of split 'test'",
    ):
        gan_jobs.train_gans("smoke", "met", [0])
    assert not list(tmp_path.rglob("gan.json"))


def test_the_scarce_classes_get_as_many_items_as_asked_and_the_others_stay(whole):
    from vbg.data.sets import scarce_training_items

    more = whole.take(np.flatnonzero(whole.label[:30] == 1))
    more.ids, more.fingerprint = np.array([f"more{i}" for i in range(len(more))], object), "more"
    more.split = np.array(["train"] * len(more), object)
    for count in (5, 20, 30):
        items = scarce_training_items(dict(natural=whole, scarce=more), count)
        assert np.bincount(items.label).tolist() == [20, count] and set(items.split) == {"train"}
        assert sum(str(i).startswith("more") for i in items.ids) == max(0, count - 20) and items.fingerprint.endswith(
            f":{count}"
        )
    with pytest.raises(DataError, match="class 'bar' has 35 items, not 36"):
        scarce_training_items(dict(natural=whole, scarce=more), 36)
    with pytest.raises(DataError, match="no further items of its scarcest classes"):
        scarce_training_items(dict(natural=whole), 5)


def test_learners_accept_the_training_split(whole):
    for what in ("table", "texture library", "GAN", "tokenizer"):
        assert LEARNERS[what](whole.select("train"), whole) is not None


@pytest.fixture(scope="module")
def maker(whole, tmp_path_factory):
    return fit_pair_maker(
        whole.select("train"),
        whole.select("validation"),
        tokenizer=tokenizer_for(whole, 200),
        settings=SETTINGS.gan,
        seed=0,
        folder=tmp_path_factory.mktemp("maker"),
        whole=whole,
    )


def test_pairs_have_the_schema_of_real_items_and_their_images_were_asked_for_their_words(whole, maker, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "vbg.gan.pairs.make_images",
        lambda generator, rows, words, seed: asked.append((rows, words)) or np.zeros((len(rows), 32, 32, 3), np.uint8),
    )
    pairs = maker.make(np.array([5, 4]), like=whole, seed=1)
    assert set(pairs.origin) == {"generated"} and set(pairs.split) == {"train"} and pairs.input_ids.shape[1:] == (1, 16)
    rows, words = asked[0]
    assert torch.equal(words, torch.as_tensor(maker.table.encode(list(pairs.text))).float())
    assert [maker.table.rows[r][0] for r in rows.tolist()] == pairs.label.tolist()
    assert all(not maker.table.outside(int(r), t) for r, t in zip(rows, pairs.text))


def test_class_only_conditioning_asks_for_no_words(whole, tmp_path):
    settings = SETTINGS.gan | dict(conditioning="class", epochs=1)
    maker = fit_pair_maker(
        whole.select("train"),
        whole.select("validation"),
        tokenizer=tokenizer_for(whole, 200),
        settings=settings,
        seed=0,
        folder=tmp_path,
        whole=whole,
    )
    rows, words = maker.ask(np.array([1, 0]), torch.ones(2, len(maker.table.words)))
    assert rows.tolist() == [1, 0] and not words.any() and not maker.images.conditions.words.any()


def test_a_missing_gan_is_named_with_the_command_that_makes_it(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    for change, word in (
        (dict(), "gans"),
        (dict(conditioning="class"), "-p conditioning class"),
        (dict(loss="saturating"), "-p loss saturating"),
    ):
        with pytest.raises(RunError, match=word):
            open_maker(profile("smoke", {"gan": change}), "things", whole, tokenizer_for(whole, 200), 0)
    assert not list(tmp_path.rglob("*"))


def test_a_damaged_checkpoint_of_other_settings_is_made_anew(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    tokenizer, short = tokenizer_for(whole, 200), profile("smoke", {"gan": dict(epochs=1)})
    open_maker(short, "things", whole, tokenizer, 0, make=True)
    folder = gan_folder(short, "things", 0)
    (folder / "inputs.json").write_text(json.dumps(dict(other=1)))
    (folder / "left.txt").write_text("old")
    assert (
        len(open_maker(short, "things", whole, tokenizer, 0, make=True).images.history) == 1
        and not (folder / "left.txt").exists()
    )


def test_saturating_and_non_saturating_training_differ(whole):
    table, ends = learn_table(whole.select("train"), minimum=3), []
    for loss in ("saturating", "non_saturating"):
        trainer = GanTrainer(
            train=whole.select("train"), table=table, settings=SETTINGS.gan | dict(loss=loss), seed=0
        ).fit(1)
        ends.append(next(trainer.generator.parameters()).detach().clone())
    assert not torch.equal(*ends)


def test_vbg_runs_the_loop_its_ablations_learn_its_pairs_and_every_other_kind_adds_its_items(tmp_path, monkeypatch):
    from vbg.core.profiles import FUSION_ABLATIONS, VARIANTS
    from vbg.train.gan_jobs import train_gans
    from vbg.train.jobs import train_runs

    monkeypatch.setenv("VBG_HOME", str(tmp_path))
    short = {"gan": dict(epochs=1, gans=(0,), text=SETTINGS.gan["text"] | dict(epochs=1), per_class=4)}
    models = [*(name for name, variant in VARIANTS.items() if variant.gan), *FUSION_ABLATIONS]
    with pytest.raises(RunError, match="GAN 0 of met .* is not there; .*needs a name of its own: .*variant"):
        train_runs("smoke", "met", models=models[:1], seeds=[0], overrides=short, splits=["validation"])
    train_gans("smoke", "met", [0], overrides=short)
    runs = train_runs("smoke", "met", models=models, seeds=[0], overrides=short, splits=["validation"])
    first, record = runs[0], runs[0].info["loop"][0]
    assert first.model == "vbg" and sum(record["quotas"]) == SETTINGS.loop["pairs"] and record["gan_epochs"] == 2
    assert record["made"] >= sum(record["kept"]) and set(record["refused"]) == {
        "discriminator",
        "class",
        "attributes",
        "classifier",
        "memorised",
    }
    assert (first.folder / "loop.npz").exists()
    pairs = np.load(first.folder / "pairs.npz", allow_pickle=False)
    assert len(pairs["label"]) == sum(record["kept"]) == runs[1].info["joined"][-1][1]
    assert [run.info["pairs_of"] for run in runs[1:]] == ["vbg"] * (len(models) - 1) and len(
        {run.info["inputs"]["pairs"] for run in runs[1:]}
    ) == 1
    assert {run.info["inputs"]["settings"]["fusion"]["kind"] for run in runs} == {
        "bidirectional",
        "concatenation",
        "fixed_gate",
    }
    with pytest.raises(RunError, match="train model 'vbg'"):
        train_runs("smoke", "met", models="without_vit", seeds=[1], overrides=short, splits=["validation"])
    again = train_runs("smoke", "met", models=models, seeds=[0], overrides=short, splits=["validation"])
    assert [r.info["written"] for r in again] == [r.info["written"] for r in runs]
    asked = short | {"balance": dict(kind="loop_oversampling"), "train": dict(items_per_epoch="real")}
    (run,) = train_runs(
        "smoke", "met", models="without_gan", seeds=[0], overrides=asked, splits=["validation"], store="smoke-both"
    )
    assert len(run.info["loop"]) == 1 and run.info["gan"] == 0
    for kind in GENERATED[:5]:
        asked = short | {"balance": dict(kind=kind), "train": dict(items_per_epoch="real")}
        (run,) = train_runs(
            "smoke",
            "met",
            models="without_gan",
            seeds=[0],
            overrides=asked,
            splits=["validation"],
            store=f"smoke-{kind}",
        )
        note = run.info["generated"]
        assert note["kind"] == kind and run.info["gan"] == 0 and len(note["added"]) == 10
        assert all(a <= w for a, w in zip(note["added"], note["wanted"])) and (
            note["added"] == note["wanted"] or kind in ("gan_pairs", "gan_oversampling")
        )


class Agreeing:
    "A discriminator that refuses no pair: one score for all, the class and the words that were asked for."

    def __init__(self, label, words):
        self.answer = (
            torch.zeros(len(label)),
            torch.eye(2)[torch.as_tensor(label)],
            20.0 * torch.as_tensor(words) - 10.0,
        )

    def eval(self):
        return self

    def train(self):
        return self

    def __call__(self, images, rows, alone):
        assert alone and len(images) == len(self.answer[0])
        return self.answer


def test_a_finished_copy_of_a_training_image_is_still_refused_as_memorised(whole, maker, monkeypatch):
    pairs = maker.make(np.array([6, 6]), like=whole, seed=9)
    train, held_out = whole.select("train"), whole.select("validation")
    views = [maker.images.views.of(part.pixels) for part in (train, held_out)]
    maker.raw["generated-9"][:] = views[0][:12]
    verdicts = maker.judge(pairs, np.eye(2)[pairs.label], train, held_out, lowest=0.0)
    assert not verdicts.kept.any()
    assert memorised(maker.unfinished(pairs), *views).all()  # not by another reason alone
    agreeing = Agreeing(pairs.label, maker.table.encode(list(pairs.text)))
    monkeypatch.setattr(maker.images, "discriminator", agreeing)
    verdicts = maker.judge(pairs, np.eye(2)[pairs.label], train, held_out, lowest=0.0)
    assert set(verdicts.reason) == {"memorised"} and not verdicts.kept.any()


def test_the_memorisation_check_refuses_test_items_as_held_out(whole, maker):
    pairs = maker.make(np.array([2, 2]), like=whole, seed=9)
    with pytest.raises(DataError, match="may see the validation split only: item 'thing50'"):
        maker.judge(pairs, np.eye(2)[pairs.label], whole.select("train"), whole.select("test"))


def test_gans_of_changed_scarce_items_are_other_gans():
    from vbg.gan.store import gan_inputs

    one, two = things(), things()
    two.fingerprint = "things+more:25"
    words = tokenizer_for(one, 200)
    assert gan_inputs(SETTINGS, "things", one, words, 0) != gan_inputs(SETTINGS, "things", two, words, 0)
    fewer = profile("smoke", {"gan": dict(gans=(0,))})
    assert gan_inputs(fewer, "things", one, words, 0) == gan_inputs(SETTINGS, "things", one, words, 0)
