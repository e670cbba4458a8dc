"""Which trainings a config stands for."""
