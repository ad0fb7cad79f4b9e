# A small collection of yours: five folds dealt three times, frozen pretrained encoders beside a baseline and training
# from scratch. `make collection-study FOLDER=...`; folder and columns come by the environment, so that any
# path will do.
from vbg.core import collection_plan as plan
from vbg.train.code import code_of_runs

JOBS = {ask.row_book(job["store"], job["dataset"]): job for job in plan.collection_jobs()}
FOLDER = plan.collection_folder() if COLLECTION else "absent"
TABLES = plan.collection_name(FOLDER)
COLUMNS = plan.collection_columns(os.environ.get("VBG_COLUMNS", ""))


def words(wildcards):
    "The parameters of one training notebook, each as JSON."
    job = JOBS[ask.row_book(f"collection/{wildcards.method}", wildcards.dataset)]
    data = plan.collection_data(FOLDER, job["deal"], job["fold"], COLUMNS)
    return {key: json.dumps(said) for key, said in dict(job, data=data, splits=plan.SPLITS).items()}


def code(wildcards):
    "The code of the runs of one training notebook."
    job = JOBS[ask.row_book(f"collection/{wildcards.method}", wildcards.dataset)]
    data = {wildcards.dataset: plan.collection_data(FOLDER, job["deal"], job["fold"], COLUMNS)}
    return code_of_runs(read_profile(job["profile"], job["overrides"] | {"data": data}), wildcards.dataset, job["models"])


rule collection:
    input: ask.artefact_files(TABLES, "small_collection"), list(JOBS)


rule collection_run:
    output: notebook=ask.row_book("collection/{method}", "{dataset}")
    wildcard_constraints: method="[a-z-]+", dataset="deal[0-9]-fold[0-9]"
    resources: gpu=1
    params:
        inputs=lambda w: marked(
            ask.inputs(NAME, "train", code=code(w), words=words(w), files=ask.listing(FOLDER)),
            ask.row_book(f"collection/{w.method}", w.dataset),
        ),
        profile=lambda w: JOBS[ask.row_book(f"collection/{w.method}", w.dataset)]["profile"],
        words=words
    shell:
        ask.command("train", profile="{params.profile}", store="collection/{wildcards.method}",
                    dataset="{wildcards.dataset}", model="{params.words[models]}", seeds="{params.words[seeds]}",
                    splits="{params.words[splits]}", overrides="{params.words[overrides]}", data="{params.words[data]}")


rule small_collection:
    input: list(JOBS)
    output:
        ask.artefact_files(TABLES, "small_collection"),
        notebook=ask.book("collection", "small_collection")
    params:
        inputs=lambda w: ask.inputs(NAME, "small_collection", files=ask.listing(FOLDER)),
        data=lambda w: json.dumps(plan.collection_data(FOLDER, 0, 0, COLUMNS))  # a text would be searched for wildcards
    shell: ask.command("small_collection", tables=TABLES, data="{params.data}")
