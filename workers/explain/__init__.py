"""`mediasieve explain`: the whole story of one decision, collected and told."""
