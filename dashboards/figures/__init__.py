"""Plotly figures, each drawn from the numbers of the analysis module of the same name."""
