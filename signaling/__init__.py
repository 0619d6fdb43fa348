"""The protocols: octets and events in, actions out.

Nothing in here opens a socket, reads a clock, draws a random number or writes a log. A role has three names:
`handle(event, now) -> list[Action]`, `wake(now) -> list[Action]` and `next_wake`, with `now` in monotonic seconds.
"""
