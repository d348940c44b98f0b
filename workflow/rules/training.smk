# Long jobs first, and what they wait for: the short ones then fill the cores at the end.
rule make_dataset:
    output:
        result("dataset"),
    log:
        result("run_log", rule="make_dataset"),
    priority: 20
    conda:
        "../../environment.yml"
    params:
        seed=lambda wildcards: int(wildcards.seed),
        task=lambda wildcards: settings(wildcards, "task")["task"],
        code=lambda wildcards: code("make_dataset.py", task_module(wildcards)),
    script:
        "../scripts/make_dataset.py"


# The working directory is not an output: Snakemake would delete it, and with it what a killed job had saved.
rule train:
    input:
        dataset=result("dataset"),
    output:
        checkpoints=directory(result("checkpoints")),
        metrics=result("metrics"),
    log:
        result("run_log", rule="train"),
    priority: 10
    conda:
        "../../environment.yml"
    params:
        seed=lambda wildcards: int(wildcards.seed),
        experiment=lambda wildcards: settings(
            wildcards, "task", "model", "optimizer", "training"
        ),
        working=lambda wildcards: result("working", **wildcards),
        code=lambda wildcards: code(
            "train.py", task_module(wildcards), model_module(wildcards)
        ),
    script:
        "../scripts/train.py"
