"""URLs in flight: what hosts answer, and how they are asked."""
