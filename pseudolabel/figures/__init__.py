"""Figures: plots, contact sheets and pages."""
