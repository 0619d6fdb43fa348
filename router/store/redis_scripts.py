"""The two scripts that a server of the Redis protocol runs for the store: each happens as a whole or not at all.

Lua counts in doubles: whole numbers are exact up to 2**53, and microseconds since 1970 stay below it until 2255.
"""

from dataclasses import dataclass, field
from hashlib import sha1


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the name that a server knows it by."""

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha1(self.text.encode(), usedforsecurity=False).hexdigest())


# Returns 1, 0 when the revision is not the expected one, or -1 after the deadline, and the time of the server. With a
# revision the record has the named prefixes and no others; without, the others stay. What is full refuses the first
# write, before anything has changed; removing comes first where nothing is set, and is never refused.
WRITE = Script("""
local record, log, anchors, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local deadline, node, expected, grace, length, telling =
  tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function result(number) return {number, string.format('%.0f', now)} end
if now > deadline then return result(-1) end

local old, new, revision = {}, {}, 0
local kind = redis.call('TYPE', record).ok
if kind == 'hash' then
  local fields = redis.call('HGETALL', record)
  for at = 1, #fields, 2 do
    if fields[at] == 'revision' then revision = tonumber(fields[at + 1]) or 0 else old[fields[at]] = fields[at + 1] end
  end
end
if expected == '' then
  for prefix, value in pairs(old) do new[prefix] = value end
elseif tonumber(expected) ~= revision then
  return result(0)
end
for at = 7, #ARGV, 2 do
  new[ARGV[at]] = ARGV[at + 1] ~= '' and ARGV[at + 1] or nil
end

local set, gone, told = {}, {}, {}
for prefix, value in pairs(new) do
  if old[prefix] ~= value then
    set[#set + 1] = prefix
    told[#told + 1], told[#told + 2] = prefix, value
  end
end
for prefix in pairs(old) do
  if not new[prefix] then
    gone[#gone + 1] = prefix
    told[#told + 1], told[#told + 2] = prefix, ''
  end
end
if #told == 0 and (kind == 'hash' or kind == 'none') then return result(1) end

local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
local before = newest[1] and string.match(newest[1][1], '^%d+') or '0'
revision = math.max(revision + 1, tonumber(before) + 1, now)
local name = string.format('%.0f', revision)

if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', record) end
for _, prefix in ipairs(set) do redis.call('HSET', record, prefix, new[prefix]) end
for _, prefix in ipairs(gone) do redis.call('HDEL', record, prefix) end

local function unlist(prefix, anchor)
  redis.call('ZREM', index .. anchor, prefix .. ' ' .. node)
  if redis.call('EXISTS', index .. anchor) == 0 then redis.call('SREM', anchors, anchor) end
end
for prefix, value in pairs(old) do
  local anchor = string.match(value, '^%S+')
  if anchor and new[prefix] ~= value then unlist(prefix, anchor) end
end
for _, prefix in ipairs(set) do
  local anchor, needed = string.match(new[prefix], '^(%S+) (%S+)')
  redis.call('ZADD', index .. anchor, needed, prefix .. ' ' .. node)
  redis.call('SADD', anchors, anchor)
end

local last
for _, value in pairs(new) do
  local needed = string.match(value, '^%S+ (%S+)')
  last = math.max(last or 0, needed == 'inf' and math.huge or tonumber(needed) or 0)
end
if not last then
  redis.call('DEL', record)
else
  redis.call('HSET', record, 'revision', name)
  if last == math.huge then
    redis.call('PERSIST', record)
  else
    redis.call('PEXPIREAT', record, string.format('%.0f', (last + grace) * 1000))
  end
end
if #told > 2 * telling then told = {'unread', ''} end
redis.call('XADD', log, 'MAXLEN', '=', length, name .. '-0', 'node', node, 'before', before, unpack(told))
return result(1)
""")

# What an index still has of a record that the server has removed.
TIDY = Script("""
local record, index, anchors = KEYS[1], KEYS[2], KEYS[3]
if redis.call('HEXISTS', record, ARGV[1]) == 1 then return 0 end
redis.call('ZREM', index, ARGV[2])
if redis.call('EXISTS', index) == 0 then redis.call('SREM', anchors, ARGV[3]) end
return 1
""")
