"""Trained networks of run folders as files for use elsewhere, compared with the trained one."""
