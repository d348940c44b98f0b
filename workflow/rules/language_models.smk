# Language models are run once over texts and prompts; measurements read what was captured of that.
# Working directories are not outputs: Snakemake would delete them, and with them what a killed job had saved.
rule capture_text:
    input:
        model=model_files,
        text=read_texts,
    output:
        directory(result("text")),
    log:
        result("experiment_log", rule="capture_text_{text}"),
    priority: 30
    conda:
        "../../environment.yml"
    params:
        model=lambda wildcards: language_model(wildcards, "model")["model"],
        source=lambda wildcards: language_model(wildcards, "texts")["texts"][
            wildcards.text
        ],
        settings=lambda wildcards: language_model(wildcards, "text")["text"],
        prepend_bos=lambda wildcards: language_model(wildcards, "prepend_bos")[
            "prepend_bos"
        ],
        working=lambda wildcards: result(
            "capturing", captured=f"text_{wildcards.text}", **wildcards
        ),
        code=code("capture_text.py"),
    script:
        "../scripts/capture_text.py"


rule capture_prompts:
    input:
        model=model_files,
        prompts=read_prompts,
    output:
        directory(result("prompts")),
    log:
        result("experiment_log", rule="capture_prompts_{weights}"),
    priority: 20
    conda:
        "../../environment.yml"
    params:
        settings=lambda wildcards: language_model(
            wildcards, "model", "prompts", "chat_template", "prepend_bos"
        ),
        working=lambda wildcards: result(
            "capturing", captured=f"prompts_{wildcards.weights}", **wildcards
        ),
        code=code("capture_prompts.py"),
    script:
        "../scripts/capture_prompts.py"


# One rule for every measurement of a language model, as there is one for those of trained runs.
rule measure_language_model:
    input:
        model=weights_read,
        texts=captured_texts,
        prompts=captured_prompts,
    output:
        table=result("model_measurement"),
    log:
        result("experiment_log", rule="measure_{measurement}"),
    conda:
        "../../environment.yml"
    params:
        weights=captured_weights,
        settings=sections_read,
        measurement=lambda wildcards: language_model(wildcards, "measurements")[
            "measurements"
        ][wildcards.measurement],
        files=lambda wildcards: result("model_files", **wildcards),
        code=lambda wildcards: code(
            "measure_language_model.py", f"measurements.{wildcards.measurement}"
        ),
    script:
        "../scripts/measure_language_model.py"
