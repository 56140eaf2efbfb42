"""Reports: figures, tables and text of an analysis, written as one page with its files."""
