"""Distributed mobility with a Central Mobility Database (RFC 8885): who anchors what of a node is asked of one place.

    CMD      database.py  binding cache: serving router and anchors of each node
             central.py   answers registrations (update_checks.py), tells the anchors
             copies.py    what they are told, until they confirm it
             records.py, colleagues.py: the store, and other CMDs over it
    S-MAAR   serving.py   registers its nodes at the CMD, learns from it which prefixes they brought along
             enrolment.py a node as it is registered there; visitors.py those prefixes
    P-MAAR   previous.py  sends the prefixes it anchors to where the CMD says their nodes are
    all      update.py, previous_list.py, dlif.py: what is in their messages

A MAAR is a MAR whose store is a CMD; all else about it is in `signaling/dma`.
"""
