"""Experiments of docs/results: a folder an experiment, with `measure` and `report`.

    python -m scripts.experiments.NAME.measure ...     measures and writes docs/results/NAME.json
    python -m scripts.experiments.NAME.report          writes the page and the pictures from that file

The modules beside the folders are what several experiments use.
"""
