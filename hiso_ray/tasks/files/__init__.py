"""Rows of data files, read strictly: CSV and TSV, JSON, Parquet."""
