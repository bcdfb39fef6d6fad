"""The work of the stages on the machines of a Ray cluster, with the bytes of a run on one machine.

    extract_features.run(config, dataset, output, boxes=None, workers=cluster.pool('auto'))

A stage maps its items over workers by `runtime.worker_pool.map_groups` and writes the results itself, in
order. Only this package imports Ray, which comes with the extra `cluster`.
"""
