"""The trainings of a config."""
