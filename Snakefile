# The whole DAG at a glance: config → data → trained runs → measurements → summaries → figures, claims.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/measurements.smk"
include: "workflow/rules/language_models.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/archive.smk"


report: "workflow/report/workflow.rst"


onsuccess:
    say_failures(success=True)


onerror:
    say_failures(success=False)


localrules:
    all,
    failed_measurements,
    orthogonal_subspaces,
    execution_manifolds,
    attention_subspaces,
    activation_geometry,


# Everything the config asks for.
rule all:
    default_target: True
    input:
        final_outputs(),


# One target per study, so that `snakemake --cores N orthogonal_subspaces` builds that study alone.
rule orthogonal_subspaces:
    input:
        final_outputs("orthogonal_subspaces"),


rule execution_manifolds:
    input:
        final_outputs("execution_manifolds"),


rule attention_subspaces:
    input:
        final_outputs("attention_subspaces"),


rule activation_geometry:
    input:
        final_outputs("activation_geometry"),
