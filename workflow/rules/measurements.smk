# One rule for every measurement: the module learning_geometry.measurements.<measurement> does the work.
rule measure:
    input:
        unpack(made("measure", "checkpoints", "dataset", "metrics")),
    output:
        result("measurement"),
    log:
        result("run_log", rule="measure_{measurement}"),
    priority: in_order("measure")
    group:
        bundle("measure")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("measure"),
        runtime=time_of("measure"),
    params:
        seed=setting("seed"),
        others=setting("others"),
        run=setting("run"),
        measurement=setting("measurement"),
        files=lambda wildcards: result("run_files", **wildcards),
        derivation=derivation,
    script:
        "../scripts/measure.py"


# Fails while a measurement could not be made, so that a run with nothing else to do says so and is no success.
rule failed_measurements:
    input:
        lambda wildcards: [each.path for each in failures()],
    output:
        temp(result("failed")),
    log:
        result("log", rule="failed_measurements"),
    conda:
        ENVIRONMENT
    script:
        "../scripts/failed_measurements.py"


# All that figures and claims read: one table of every number of every seed, and its summary over seeds.
rule summarize:
    input:
        unpack(made("summarize")),
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
    priority: in_order("summarize")
    group:
        bundle("summarize")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("summarize"),
        runtime=time_of("summarize"),
    params:
        derivation=derivation,
    script:
        "../scripts/summarize.py"
