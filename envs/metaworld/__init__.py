"""Meta-World (Yu et al. 2019, arXiv:1910.10897) as task distributions: ML1, ML10, ML25, ML45 and custom splits."""

DESCRIPTIONS = {
    "ml1-ENVIRONMENT": "other goals of one of Meta-World's 50 environments, e.g. ml1-reach (Yu et al. 2019)",
    "ml10": "10 environments to train on, 5 others to test on (Yu et al. 2019)",
    "ml25": "25 environments to train on, 5 to test on; basketball is in both, with other goals",
    "ml45": "45 environments to train on, 5 others to test on (Yu et al. 2019)",
    "ml:A,B/C": "train on Meta-World's environments A and B, test on C",
}
"""Descriptions of the benchmarks by name, readable without importing the simulator."""
