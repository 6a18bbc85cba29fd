"""Reports of runs and studies: one HTML file that needs neither a network nor scripts."""
