"""The command line, run folders, data files, comparisons, pictures and the report."""
