"""Who answers: `unconfigured` (the default), `openai` (any OpenAI-compatible server), `transformers` (in-process)."""
