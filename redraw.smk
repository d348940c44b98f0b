# Figures, claims and report from the tables of an archive. No rule here measures: nothing can be trained.
#   python -m learning_geometry.archive unpack ARCHIVE FOLDER
#   snakemake --snakefile redraw.smk --configfile FOLDER/config.yaml --config results=FOLDER --cores N
from snakemake.utils import min_version

min_version("9.27.1")

# what language models read may lie on another machine
READS_FILES = False


include: "workflow/rules/common.smk"
include: "workflow/rules/sweeps.smk"
include: "workflow/rules/series.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/claims.smk"


report: "workflow/report/workflow.rst"


onstart:
    begin()


onsuccess:
    end(success=True)


onerror:
    end(success=False)


localrules:
    all,


rule all:
    default_target: True
    input:
        drawn_outputs(),


# A report shows what rules make, so the archived summary passes through one.
rule write_summary:
    input:
        unpack(made("write_summary", "summary")),
    output:
        report(
            result("summary_csv"),
            caption="workflow/report/summary.rst",
            category="Tables",
            labels={"experiment": "{experiment}", "table": "summary over seeds"},
        ),
    log:
        f"{RESULTS}/{{experiment}}/logs/write_summary.log",
    priority: in_order("write_summary")
    conda:
        "environment.yml"
    params:
        derivation=derivation,
    script:
        "workflow/scripts/write_summary.py"
