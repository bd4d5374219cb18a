"""What the gateway and the console share: who is asking, in which database, and how faults are told over HTTP."""
