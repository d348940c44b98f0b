# The ledger: every claim of the studies in this config, judged by rules that were fixed before the run.
rule judge_claims:
    input:
        unpack(made("judge_claims")),
    output:
        csv=result("claims_csv"),
        markdown=result("claims_markdown"),
        page=report(
            result("claims_page"),
            caption="../report/claims.rst",
            category="Claims",
            labels={"table": "claims and verdicts"},
        ),
    log:
        result("log", rule="judge_claims"),
    priority: in_order("judge_claims")
    group:
        bundle("judge_claims")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("judge_claims"),
        runtime=time_of("judge_claims"),
    params:
        experiments=setting("experiments"),
        figures=setting("figures"),
        derivation=derivation,
    script:
        "../scripts/judge_claims.py"
