# Language models are run once over texts and prompts; measurements read what was captured of that.
# Working directories are not outputs: Snakemake would delete them, and with them what a killed job had saved.
# A GGUF file is dequantised once, for all captures and measurements that load the model.
rule dequantise:
    input:
        unpack(made("dequantise")),
    output:
        result("dequantised"),
    log:
        result("log", rule="dequantise_{gguf}"),
    priority: in_order("dequantise")
    group:
        bundle("dequantise")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("dequantise"),
        runtime=time_of("dequantise"),
    params:
        model=setting("model"),
        derivation=derivation,
    script:
        "../scripts/dequantise.py"


rule capture_text:
    input:
        unpack(made("capture_text")),
    output:
        directory(result("text")),
    log:
        result("experiment_log", rule="capture_text_{text}"),
    priority: in_order("capture_text")
    group:
        bundle("capture_text")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("capture_text"),
        runtime=time_of("capture_text"),
    params:
        model=setting("model"),
        source=setting("source"),
        settings=setting("settings"),
        prepend_bos=setting("prepend_bos"),
        working=lambda wildcards: result(
            "capturing", captured=f"text_{wildcards.text}", **wildcards
        ),
        derivation=derivation,
    script:
        "../scripts/capture_text.py"


rule capture_prompts:
    input:
        unpack(made("capture_prompts")),
    output:
        directory(result("prompts")),
    log:
        result("experiment_log", rule="capture_prompts_{weights}"),
    priority: in_order("capture_prompts")
    group:
        bundle("capture_prompts")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("capture_prompts"),
        runtime=time_of("capture_prompts"),
    params:
        settings=setting("settings"),
        working=lambda wildcards: result(
            "capturing", captured=f"prompts_{wildcards.weights}", **wildcards
        ),
        derivation=derivation,
    script:
        "../scripts/capture_prompts.py"


# One rule for every measurement of a language model, as there is one for those of trained runs.
rule measure_language_model:
    input:
        unpack(made("measure_language_model")),
    output:
        table=result("model_measurement"),
    log:
        result("experiment_log", rule="measure_{measurement}"),
    priority: in_order("measure_language_model")
    group:
        bundle("measure_language_model")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=memory_of("measure_language_model"),
        runtime=time_of("measure_language_model"),
    params:
        weights=setting("weights"),
        settings=setting("settings"),
        measurement=setting("measurement"),
        files=lambda wildcards: result("model_files", **wildcards),
        derivation=derivation,
    script:
        "../scripts/measure_language_model.py"
