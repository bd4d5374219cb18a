"""The workers: one package a process, and the command line."""
