# A finished run in one file, from which redraw.smk makes every figure, ledger and report again.
rule archive:
    input:
        unpack(made("archive")),
    output:
        result("archive"),
    log:
        result("log", rule="archive"),
    priority: in_order("archive")
    group:
        bundle("archive")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("archive"),
        runtime=time_of("archive"),
    params:
        config=setting("config"),
        derivation=derivation,
    script:
        "../scripts/pack_archive.py"
