# The tables of one language model at several steps of its training in one, with steps and seeds.
rule gather_series:
    input:
        unpack(made("gather_series")),
    output:
        runs=result("series_runs"),
        summary=result("series"),
        csv=report(
            result("series_csv"),
            caption="../report/gather_series.rst",
            category="Tables",
            labels={"experiment": "{experiment}", "table": "summary over steps"},
        ),
    log:
        result("experiment_log", rule="gather_series"),
    priority: in_order("gather_series")
    group:
        bundle("gather_series")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("gather_series"),
        runtime=time_of("gather_series"),
    params:
        members=setting("members"),
        derivation=derivation,
    script:
        "../scripts/gather_series.py"
