"""Mobility options, a file per family. Importing this package fills the table type -> class.

A message holds well-formed options as the classes below, others as UnknownOption or MalformedOption.
"""

from signaling.wire.options.access import (
    AccessNetworkIdentifier,
    AccessTechnologyTypeOption,
    HandoffIndicatorOption,
    LinkLocalAddress,
    MobilityHeaderLinkLayerAddress,
)
from signaling.wire.options.care_of import (
    AlternateCareOfAddress,
    BindingIdentifier,
    BindingRefreshAdvice,
    Ipv4CareOfAddress,
    NonceIndices,
)
from signaling.wire.options.flow import (
    FlowIdentification,
    FlowSummary,
)
from signaling.wire.options.identity import (
    MagIdentifier,
    MobileNodeGroupIdentifier,
    MobileNodeIdentifier,
    MobileNodeLinkLayerIdentifier,
    ServiceSelection,
)
from signaling.wire.options.ipv4 import (
    Ipv4DefaultRouterAddress,
    Ipv4DhcpSupportMode,
    Ipv4HomeAddressReply,
    Ipv4HomeAddressRequest,
)
from signaling.wire.options.lma_control import (
    HeartbeatControl,
    LmaControlledMagParameters,
    ReregistrationControl,
)
from signaling.wire.options.maar import (
    DlifLinkLayerAddress,
    DlifLinkLocalAddress,
    PreviousMaar,
    ServingMaar,
)
from signaling.wire.options.multipath import (
    MagMultipathBinding,
)
from signaling.wire.options.option import (
    KINDS,
    MalformedOption,
    Option,
    UnknownOption,
    append_options,
    frames,
    read_option,
    read_options,
)
from signaling.wire.options.prefix import (
    AnchoredPrefix,
    DelegatedMobileNetworkPrefix,
    HomeNetworkPrefix,
    LocalPrefix,
    MobileNetworkPrefix,
)
from signaling.wire.options.security import (
    BindingAuthorizationData,
    MobilityMessageAuthentication,
    RestartCounter,
)
from signaling.wire.options.time import (
    MobilityMessageReplayProtection,
    Timestamp,
)
from signaling.wire.options.tunnel import (
    GreKey,
    NatDetection,
)
from signaling.wire.options.vendor import (
    VendorSpecific,
)

__all__ = [
    "KINDS",
    "AccessNetworkIdentifier",
    "AccessTechnologyTypeOption",
    "AlternateCareOfAddress",
    "AnchoredPrefix",
    "BindingAuthorizationData",
    "BindingIdentifier",
    "BindingRefreshAdvice",
    "DelegatedMobileNetworkPrefix",
    "DlifLinkLayerAddress",
    "DlifLinkLocalAddress",
    "FlowIdentification",
    "FlowSummary",
    "GreKey",
    "HandoffIndicatorOption",
    "HeartbeatControl",
    "HomeNetworkPrefix",
    "Ipv4CareOfAddress",
    "Ipv4DefaultRouterAddress",
    "Ipv4DhcpSupportMode",
    "Ipv4HomeAddressReply",
    "Ipv4HomeAddressRequest",
    "LinkLocalAddress",
    "LmaControlledMagParameters",
    "LocalPrefix",
    "MagIdentifier",
    "MagMultipathBinding",
    "MalformedOption",
    "MobileNetworkPrefix",
    "MobileNodeGroupIdentifier",
    "MobileNodeIdentifier",
    "MobileNodeLinkLayerIdentifier",
    "MobilityHeaderLinkLayerAddress",
    "MobilityMessageAuthentication",
    "MobilityMessageReplayProtection",
    "NatDetection",
    "NonceIndices",
    "Option",
    "PreviousMaar",
    "ReregistrationControl",
    "RestartCounter",
    "ServiceSelection",
    "ServingMaar",
    "Timestamp",
    "UnknownOption",
    "VendorSpecific",
    "append_options",
    "frames",
    "read_option",
    "read_options",
]
