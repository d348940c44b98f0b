# A finished run in one file, from which redraw.smk makes every figure, ledger and report again.
rule archive:
    input:
        tables=archived_tables(),
        drawn=drawn_outputs(),
    output:
        result("archive"),
    log:
        result("log", rule="archive"),
    conda:
        "../../environment.yml"
    params:
        config=archived_config(),
        code=code("pack_archive.py"),
    script:
        "../scripts/pack_archive.py"
