# Pair makers, and what measures them.
GAN_WORDS = ("{dataset}", "{conditioning}", "{scarce}", "{number}")


rule gans:
    input: ask.book(NAME, "data", "{dataset}")
    output: notebook=ask.book(NAME, "gan", *GAN_WORDS)
    wildcard_constraints:
        dataset="|".join(DATASETS), conditioning="([a-z_]+_)?(attributes|class)", scarce="[0-9]+", number="[0-9]+"
    priority: 1  # the longest jobs first, so that no core waits for one at the end
    resources: gpu=1
    params:
        inputs=lambda w: marked(ask.gan_inputs(NAME, "gan", w.dataset), ask.book(NAME, "gan", *w)),
        conditioning=lambda w: w.conditioning.rpartition("_")[2],
        overrides=lambda w: json.dumps(ask.gan_overrides(NAME, w.scarce, w.conditioning))
    shell:
        ask.command("gan", profile=NAME, store=NAME, dataset="{wildcards.dataset}", gans="[{wildcards.number}]",
                    conditioning="{params.conditioning}", scarce_items="{wildcards.scarce}",
                    overrides="{params.overrides}")


rule gans_measured:
    input: ask.book(NAME, "gan", *GAN_WORDS)
    output: notebook=ask.book(NAME, "gan_measured", *GAN_WORDS)
    wildcard_constraints:
        dataset="|".join(DATASETS), conditioning="attributes|class", scarce="0", number="[0-9]+"
    resources: gpu=1
    params:
        inputs=lambda w: marked(ask.gan_inputs(NAME, "gan_measured", w.dataset), ask.book(NAME, "gan_measured", *w))
    shell:
        ask.command("gan_measured", profile=NAME, store=NAME, dataset="{wildcards.dataset}", numbers="[{wildcards.number}]",
                    conditioning="{wildcards.conditioning}")
