"""Clips and pairs: one reader per dataset, all returning the same Clip."""
