"""The roles of a router: compositions of an anchor, a registrar and access links."""
