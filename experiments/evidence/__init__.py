"""The page of measured results, which is made from slim copies of run folders."""
