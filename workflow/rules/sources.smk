# Checkpoints of other programs, in place of training. Their files are no inputs of the rule, nor outputs: nothing deletes them.
rule import_checkpoints:
    input:
        unpack(made("import_checkpoints")),
    output:
        checkpoints=directory(result("imported")),
        metrics=result("imported_metrics"),
    log:
        result("run_log", rule="import_checkpoints"),
    priority: in_order("import_checkpoints")
    group:
        bundle("import_checkpoints")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("import_checkpoints"),
        runtime=time_of("import_checkpoints"),
    params:
        seed=setting("seed"),
        experiment=setting("experiment"),
        source=setting("source"),
        seeds=setting("seeds"),
        working=lambda wildcards: result("importing", **wildcards),
        derivation=derivation,
    script:
        "../scripts/import_checkpoints.py"
