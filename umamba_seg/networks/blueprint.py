"""What the parts of one network are built from."""

from dataclasses import dataclass

from umamba_seg.networks.layers import Layers
from umamba_seg.networks.rules import Places, Rules
from umamba_seg.networks.slot_maker import SlotMaker
from umamba_seg.networks.topology import Topology


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A plan read by the rules of a family."""

    layers: Layers
    topology: Topology
    rules: Rules
    slots: SlotMaker

    @property
    def places(self) -> Places:
        """Where the slots are in this network."""
        return self.rules.places(self.topology.n_stages, self.layers.dims)
