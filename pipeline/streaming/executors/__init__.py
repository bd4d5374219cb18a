"""Where a stage runs: in the caller (`inline`), in threads (`threads`), or in processes (`processes`)."""
