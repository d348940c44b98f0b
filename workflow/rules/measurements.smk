# One rule for every measurement: the module learning_geometry.measurements.<measurement> does the work.
rule measure:
    input:
        checkpoints=result("checkpoints"),
        dataset=result("dataset"),
        metrics=result("metrics"),
        others=runs_compared_with,
    output:
        result("measurement"),
    log:
        result("run_log", rule="measure_{measurement}"),
    conda:
        "../../environment.yml"
    params:
        seed=lambda wildcards: int(wildcards.seed),
        others=seeds_compared_with,
        run=lambda wildcards: settings(
            wildcards, "task", "model", "optimizer", "training"
        ),
        measurement=lambda wildcards: settings(wildcards, "measurements")[
            "measurements"
        ][wildcards.measurement],
        code=lambda wildcards: code(
            "measure.py",
            task_module(wildcards),
            model_module(wildcards),
            f"measurements.{wildcards.measurement}",
        ),
    script:
        "../scripts/measure.py"


# All that figures and claims read: one table of every number of every seed, and its summary over seeds.
rule summarize:
    input:
        run_tables,
    output:
        runs=result("runs"),
        summary=result("summary"),
        csv=report(
            result("summary_csv"),
            caption="../report/summary.rst",
            category="Tables",
            labels={"experiment": "{experiment}", "table": "summary over seeds"},
        ),
    log:
        result("experiment_log", rule="summarize"),
    conda:
        "../../environment.yml"
    params:
        code=code("summarize.py"),
    script:
        "../scripts/summarize.py"
