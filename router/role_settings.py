"""The configuration in the words of each role: Config -> Settings of `signaling`. Pure."""

from typing import Any

from router.config import Config
from signaling.settings import Address, CmdSettings, LmaSettings, MagSettings, Settings


def mar_settings(config: Config, address: Address, tunnel_mtu: int, restart_counter: int = 0) -> Settings:
    """Of a MAR. tunnel_mtu: octets. restart_counter: RFC 5847 3.4."""
    return Settings(
        **_of_every_role(config, address, tunnel_mtu),
        **_of_heartbeats(config, restart_counter),
        idle_after=config.idle_after,
        peer_lost=config.peer_lost,
        cmd=config.cmd.peer,
        cmd_mode=config.cmd.mode,
    )


def cmd_settings(config: Config, address: Address, tunnel_mtu: int) -> CmdSettings:
    """Of a Central Mobility Database."""
    own = config.cmd
    return CmdSettings(
        **_of_every_role(config, address, tunnel_mtu),
        cmd_mode=own.mode,
        aggregation=own.aggregation,
        most_anchors=own.most_anchors,
    )


def lma_settings(config: Config, address: Address, tunnel_mtu: int, restart_counter: int) -> LmaSettings:
    """Of an LMA. restart_counter: RFC 5847 3.4."""
    own = config.anchoring
    return LmaSettings(
        **_of_every_role(config, address, tunnel_mtu),
        **_of_a_pmip_role(config, restart_counter),
        known_nodes_only=own.known_nodes_only,
        ipv4_pools=own.ipv4_prefixes,
        delegated_pools=own.delegated_prefixes,
        delegated_length=own.delegated_length,
        delete_delay=own.delete_delay,
        assign_delay=own.assign_delay,
        wait_for_deregistration=own.wait_for_deregistration,
        revoke_to_find_out=own.revoke_to_find_out,
        gre_keys=own.gre_keys,
        accept_forced_udp=own.accept_forced_udp,
        multipath=own.multipath,
    )


def mag_settings(config: Config, address: Address, tunnel_mtu: int, restart_counter: int) -> MagSettings:
    """Of a MAG. restart_counter: RFC 5847 3.4."""
    own = config.gateway
    return MagSettings(
        **_of_every_role(config, address, tunnel_mtu),
        **_of_a_pmip_role(config, restart_counter),
        anchor=own.anchor,
        uplinks=config.uplinks,
        sites=config.sites,
        services=dict(own.services),
        local_routing=own.local_routing,
        use_timestamps=own.timestamps,
        gre_keys=own.gre_keys,
        gre_tunnels=config.encapsulation.value == "gre",
        ipv4=own.ipv4,
        force_udp=own.force_udp,
        refresh_before=own.refresh_before,
        bulk_refresh=own.bulk_refresh,
    )


def _of_every_role(config: Config, address: Address, tunnel_mtu: int) -> dict[str, Any]:
    return {
        "address": address,
        "tunnel_mtu": tunnel_mtu,
        "peers": config.peers,
        "pools": config.prefixes,
        "authentication": config.authentication,
        "transport": config.transport,
        "checksums": False,  # the kernel sees to them: see control_sockets.py
        "valid_lifetime": config.valid_lifetime,
        "preferred_lifetime": config.preferred_lifetime,
        "on_link": config.on_link,
        "probe_every": config.probe_interval,
        "binding_lifetime": config.binding_lifetime,
        "guard": config.guard,
        "timestamp_window": config.timestamp_window,
        "profiles": config.profiles,
        "policies": dict(config.policies),
    }


def _of_a_pmip_role(config: Config, restart_counter: int) -> dict[str, Any]:
    return {
        "name": config.name,
        "paths": config.paths,
        **_of_heartbeats(config, restart_counter),
    }


def _of_heartbeats(config: Config, restart_counter: int) -> dict[str, Any]:
    return {
        "heartbeat_interval": config.heartbeat.interval,
        "missing_heartbeats": config.heartbeat.missing,
        "restart_counter": restart_counter,
    }
