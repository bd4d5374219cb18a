"""The cascade as discrete events: partitions, slots, lanes, retries, and the control loop that adds replicas.

A plain heap of events and no library: an item costs some six events, a burst run has millions, and a generator for each
item (as in simpy) costs several times what a call does. Nothing of a process-based library is missed: items only wait
in queues, and the queues are the thing to be modelled.
"""
