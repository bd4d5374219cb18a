"""How many replicas, partitions and machines a load needs: arithmetic, a simulation, and a check of both."""
