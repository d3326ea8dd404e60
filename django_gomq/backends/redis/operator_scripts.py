"""The scripts by which operators change what is at the server."""

from __future__ import annotations

from typing import Final

from .scripts import Script

HURRY: Final = Script(
    """
-- KEYS later stream; ARGV most
local found = redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1)
for _, member in ipairs(found) do
  redis.call('XADD', KEYS[2], '*', unpack(cmsgpack.unpack(member), 2))
  redis.call('ZREM', KEYS[1], member)
end
return #found
""",
)
"""Moves what is not due either; returns how many entries."""

FORGET: Final = Script(
    """
-- KEYS stream types later; ARGV group event
redis.pcall('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if not groups.err and #groups > 0 then return 0 end
redis.call('DEL', KEYS[1], KEYS[3])
redis.call('SREM', KEYS[2], ARGV[2])
return 1
""",
)
"""Removes a group, and the stream with the last of them."""

DESIRE: Final = Script(
    """
-- KEYS consumers desired; ARGV consumer (name value)...
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
local was = redis.call('HGET', KEYS[2], ARGV[1])
local state = was and cjson.decode(was) or {}
for i = 2, #ARGV, 2 do state[ARGV[i]] = cjson.decode(ARGV[i + 1]) end
if next(state) then
  redis.call('HSET', KEYS[2], ARGV[1], cjson.encode(state))
end
return 1
""",
)
"""Keeps how a consumer that is set up is to be; what is not named stays."""

RENAME_DESIRED: Final = Script(
    """
-- KEYS desired; ARGV old new
local state = redis.call('HGET', KEYS[1], ARGV[1])
if state then
  redis.call('HSET', KEYS[1], ARGV[2], state)
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return state and 1 or 0
""",
)
"""Has the new name of a consumer be as the old one was to be."""

REPLAY: Final = Script(
    """
-- KEYS dead again consumers; ARGV consumer id
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return 0 end
local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
if #found == 0 then return 0 end
local fields = found[1][2]
for i = 1, #fields, 2 do
  if fields[i] == 'event' then
    redis.call('XADD', KEYS[2], '*', 'event', fields[i + 1])
  end
end
return redis.call('XDEL', KEYS[1], ARGV[2])
""",
)
"""Hands a dead letter to its consumer again, if that is still set up."""

CLAIM_DEAD: Final = Script(
    """
-- KEYS moving; ARGV owner milliseconds
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'owner', 'until')
if found[1] and found[1] ~= ARGV[1] and tonumber(found[2]) > now then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  local last = string.format('%.0f', now + ARGV[2])
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', last)
end
return 1
""",
)
"""Has one process alone move dead letters for some time; returns whether it may."""

HAND_AGAIN: Final = Script(
    """
-- KEYS again consumers; ARGV consumer event
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[1], '*', 'event', ARGV[2])
return 1
""",
)
"""Hands an event to one consumer, if that is set up."""
