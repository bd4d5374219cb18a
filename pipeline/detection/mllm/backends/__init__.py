"""Verifiers: `unconfigured` (the default) and `openai` (any OpenAI-compatible server)."""
