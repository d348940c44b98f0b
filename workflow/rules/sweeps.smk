# The summaries of all experiments of a sweep in one table, with the swept values as columns.
rule gather_sweep:
    input:
        unpack(made("gather_sweep")),
    output:
        table=result("sweep"),
        csv=report(
            result("sweep_csv"),
            caption="../report/gather_sweep.rst",
            category="Tables",
            labels={"experiment": "{experiment}", "table": "summary of a sweep"},
        ),
    log:
        result("experiment_log", rule="gather_sweep"),
    priority: in_order("gather_sweep")
    group:
        bundle("gather_sweep")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("gather_sweep"),
        runtime=time_of("gather_sweep"),
    params:
        values=setting("values"),
        derivation=derivation,
    script:
        "../scripts/gather_sweep.py"
