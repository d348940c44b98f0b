# Long jobs first, and what they wait for: the short ones then fill the cores at the end.
rule make_dataset:
    input:
        unpack(made("make_dataset")),
    output:
        result("dataset"),
    log:
        result("run_log", rule="make_dataset"),
    priority: in_order("make_dataset")
    group:
        bundle("make_dataset")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("make_dataset"),
        runtime=time_of("make_dataset"),
    params:
        seed=setting("seed"),
        task=setting("task"),
        derivation=derivation,
    script:
        "../scripts/make_dataset.py"


# The working directory is not an output: Snakemake would delete it, and with it what a killed job had saved.
rule train:
    input:
        unpack(made("train", "dataset")),
    output:
        checkpoints=directory(result("checkpoints")),
        metrics=result("metrics"),
    log:
        result("run_log", rule="train"),
    priority: in_order("train")
    group:
        bundle("train")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("train"),
        runtime=time_of("train"),
    params:
        seed=setting("seed"),
        experiment=setting("experiment"),
        working=lambda wildcards: result("working", **wildcards),
        derivation=derivation,
    script:
        "../scripts/train.py"
