"""Builds the documentation site; `mkdocs.yml` names what is used of it."""
