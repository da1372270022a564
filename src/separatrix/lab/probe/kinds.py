"""All kinds of probes by name, in the order in which they are shown."""

from separatrix.lab.probe.barrier import BARRIER
from separatrix.lab.probe.chaos import CHAOS
from separatrix.lab.probe.curvature import BATCH_SHARPNESS, BLOCKS, GAUSS_NEWTON, NEGATIVE, SHARPNESS, TRACE
from separatrix.lab.probe.density import DENSITY
from separatrix.lab.probe.kernel import KERNEL
from separatrix.lab.probe.kind import Kind
from separatrix.lab.probe.noise import NOISE

#: A new kind is one more entry.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        SHARPNESS, NEGATIVE, GAUSS_NEWTON, TRACE, DENSITY, BLOCKS, BATCH_SHARPNESS, NOISE, KERNEL, CHAOS, BARRIER,
    )
}  # fmt: skip
