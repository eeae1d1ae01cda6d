"""A finished dataset, looked at: every byte checked, a page of it, its outcomes, other forms."""
