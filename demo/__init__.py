"""The whole loop on photographs that installed packages ship."""
