"""Dynamic Mobility Anchoring: every router anchors the prefixes it lends, and registers those lent elsewhere."""
