"""From a plan to a finished folder: the lease, the graph, Beam's runners, reruns."""
