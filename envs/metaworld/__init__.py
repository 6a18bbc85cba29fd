"""Meta-World (Yu et al. 2019, arXiv:1910.10897) as task distributions: ML1, ML10, ML25, ML45 and custom splits."""
