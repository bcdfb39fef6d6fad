"""The stages' work on the machines of a Ray cluster, with the bytes of a run on one machine.

    extract.run(config, dataset, output, boxes=None, workers=cluster.pool('auto'))

A stage maps its items over workers by `stages.parallel.map_groups` and writes the results itself, in order;
here is where else the workers can be. Only this room knows Ray, which comes with the extra `cluster`.
"""
