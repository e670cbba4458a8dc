"""What is timed or weighed, each as a ratio within one run."""
