"""A Ray cluster of two nodes on this machine, until standard input ends; prints its address and a node's process."""

import json
import sys

from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
raylet = second.all_processes["raylet"][0].process.pid
print(json.dumps([cluster.address, raylet]), flush=True)
sys.stdin.read()
cluster.shutdown()
