rule figure_transition_timeline:
    input:
        summary=figure_inputs("transition_timeline", "summary"),
        runs=figure_inputs("transition_timeline", "runs"),
    output:
        pdf=result("figure_pdf", figure="transition_timeline"),
        png=report(
            result("figure_png", figure="transition_timeline"),
            caption="../report/transition_timeline.rst",
            category="Orthogonal subspaces",
            labels={"figure": "Timeline of the transition"},
        ),
    log:
        result("log", rule="figure_transition_timeline"),
    conda:
        "../../environment.yml"
    params:
        figure="transition_timeline",
        options=figure_options("transition_timeline"),
        code=code("draw_figure.py", "figures.transition_timeline"),
    script:
        "../scripts/draw_figure.py"


rule figure_embedding_singular_values:
    input:
        summary=figure_inputs("embedding_singular_values", "summary"),
        runs=figure_inputs("embedding_singular_values", "runs"),
    output:
        pdf=result("figure_pdf", figure="embedding_singular_values"),
        png=report(
            result("figure_png", figure="embedding_singular_values"),
            caption="../report/embedding_singular_values.rst",
            category="Orthogonal subspaces",
            labels={"figure": "Singular values of the embedding"},
        ),
    log:
        result("log", rule="figure_embedding_singular_values"),
    conda:
        "../../environment.yml"
    params:
        figure="embedding_singular_values",
        options=figure_options("embedding_singular_values"),
        code=code("draw_figure.py", "figures.embedding_singular_values"),
    script:
        "../scripts/draw_figure.py"


rule figure_progress_timeline:
    input:
        summary=figure_inputs("progress_timeline", "summary"),
        runs=figure_inputs("progress_timeline", "runs"),
    output:
        pdf=result("figure_pdf", figure="progress_timeline"),
        png=report(
            result("figure_png", figure="progress_timeline"),
            caption="../report/progress_timeline.rst",
            category="Orthogonal subspaces",
            labels={"figure": "Progress measures over training"},
        ),
    log:
        result("log", rule="figure_progress_timeline"),
    conda:
        "../../environment.yml"
    params:
        figure="progress_timeline",
        options=figure_options("progress_timeline"),
        code=code("draw_figure.py", "figures.progress_timeline"),
    script:
        "../scripts/draw_figure.py"


rule figure_subspace_match:
    input:
        summary=figure_inputs("subspace_match", "summary"),
        runs=figure_inputs("subspace_match", "runs"),
    output:
        pdf=result("figure_pdf", figure="subspace_match"),
        png=report(
            result("figure_png", figure="subspace_match"),
            caption="../report/subspace_match.rst",
            category="Orthogonal subspaces",
            labels={"figure": "Subspace match of the layers"},
        ),
    log:
        result("log", rule="figure_subspace_match"),
    conda:
        "../../environment.yml"
    params:
        figure="subspace_match",
        options=figure_options("subspace_match"),
        code=code("draw_figure.py", "figures.subspace_match"),
    script:
        "../scripts/draw_figure.py"


rule figure_bridge_energy:
    input:
        summary=figure_inputs("bridge_energy", "summary"),
        runs=figure_inputs("bridge_energy", "runs"),
    output:
        pdf=result("figure_pdf", figure="bridge_energy"),
        png=report(
            result("figure_png", figure="bridge_energy"),
            caption="../report/bridge_energy.rst",
            category="Orthogonal subspaces",
            labels={"figure": "The bridge in the embedding"},
        ),
    log:
        result("log", rule="figure_bridge_energy"),
    conda:
        "../../environment.yml"
    params:
        figure="bridge_energy",
        options=figure_options("bridge_energy"),
        code=code("draw_figure.py", "figures.bridge_energy"),
    script:
        "../scripts/draw_figure.py"


rule figure_layer_one_logits:
    input:
        summary=figure_inputs("layer_one_logits", "summary"),
        runs=figure_inputs("layer_one_logits", "runs"),
    output:
        pdf=result("figure_pdf", figure="layer_one_logits"),
        png=report(
            result("figure_png", figure="layer_one_logits"),
            caption="../report/layer_one_logits.rst",
            category="Orthogonal subspaces",
            labels={"figure": "What layer 1 attends by"},
        ),
    log:
        result("log", rule="figure_layer_one_logits"),
    conda:
        "../../environment.yml"
    params:
        figure="layer_one_logits",
        options=figure_options("layer_one_logits"),
        code=code("draw_figure.py", "figures.layer_one_logits"),
    script:
        "../scripts/draw_figure.py"


rule figure_attention_patterns:
    input:
        summary=figure_inputs("attention_patterns", "summary"),
        runs=figure_inputs("attention_patterns", "runs"),
    output:
        pdf=result("figure_pdf", figure="attention_patterns"),
        png=report(
            result("figure_png", figure="attention_patterns"),
            caption="../report/attention_patterns.rst",
            category="Orthogonal subspaces",
            labels={"figure": "Attention patterns"},
        ),
    log:
        result("log", rule="figure_attention_patterns"),
    conda:
        "../../environment.yml"
    params:
        figure="attention_patterns",
        options=figure_options("attention_patterns"),
        code=code("draw_figure.py", "figures.attention_patterns"),
    script:
        "../scripts/draw_figure.py"
