"""What is timed, each as a ratio within one run."""
