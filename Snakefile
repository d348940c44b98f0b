# The whole DAG at a glance: config → data → trained runs → measurements → summaries → figures, claims.
from snakemake.utils import min_version

min_version("9.27.1")

if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/sources.smk"
include: "workflow/rules/measurements.smk"
include: "workflow/rules/language_models.smk"
include: "workflow/rules/sweeps.smk"
include: "workflow/rules/series.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/archive.smk"


report: "workflow/report/workflow.rst"


onstart:
    begin()


onsuccess:
    end(success=True)


onerror:
    end(success=False)


localrules:
    all,
    failed_measurements,


# Everything the config asks for.
rule all:
    default_target: True
    input:
        final_outputs(),


# One target per study, so that `snakemake --cores N orthogonal_subspaces` builds that study alone.
for study in studies():

    rule:
        name:
            study
        input:
            final_outputs(study),
        localrule: True
