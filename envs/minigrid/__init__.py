"""MiniGrid and BabyAI (Chevalier-Boisvert et al. 2023, arXiv:2306.13831) as task distributions: layouts."""

DESCRIPTIONS = {
    "minigrid-ENVIRONMENT": "layouts of MiniGrid, e.g. minigrid-fourrooms; +new-layouts: one per episode",
    "babyai-ENVIRONMENT": "layouts of BabyAI, e.g. babyai-gotoredball; +mission: with the words of what to do",
}
"""Descriptions of the benchmarks by name, readable without importing the package."""
