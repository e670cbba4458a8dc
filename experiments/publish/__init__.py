"""Networks that come trained: from run folders to files of the package and their model card."""
