# One rule for each figure of the config, which a module of learning_geometry.figures draws: figure_<module>, all alike.
for figure in config["figures"]:

    rule:
        name:
            f"figure_{figure}"
        input:
            unpack(made(f"figure_{figure}")),
        output:
            pdf=result("figure_pdf", figure=figure),
            png=report(
                result("figure_png", figure=figure),
                caption=f"../report/{figure}.rst",
                category=figure_category(figure),
                labels={"figure": in_words(figure)},
            ),
        log:
            result("log", rule=f"figure_{figure}"),
        priority: in_order(f"figure_{figure}")
        group:
            bundle(f"figure_{figure}")
        conda:
            ENVIRONMENT
        resources:
            mem_mb=memory_of(f"figure_{figure}"),
            runtime=time_of(f"figure_{figure}"),
        params:
            figure=figure,
            options=setting("options"),
            derivation=derivation,
        script:
            "../scripts/draw_figure.py"
