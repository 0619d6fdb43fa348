"""The compiled half of the engine. May be missing: engine.model does the same, slowly."""
