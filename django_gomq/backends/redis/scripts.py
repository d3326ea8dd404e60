"""The scripts that change what is at the server.

Each is atomic, and its clock is the server's: what several do at once has one order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

Command = tuple[Any, ...]
"""What is sent: a command and its arguments."""


class Script:
    """A script that the server runs; it is sent once and known by its hash then."""

    def __init__(self, *parts: str) -> None:
        self.text = "".join(parts)
        self._hash = hashlib.sha1(self.text.encode()).hexdigest()  # noqa: S324 - Redis's
        SCRIPTS[self._hash] = self.text

    def __call__(self, keys: Sequence[str], *arguments: Any) -> Command:
        """Return the command that runs it."""
        return ("EVALSHA", self._hash, len(keys), *keys, *arguments)


SCRIPTS: Final[dict[str, str]] = {}
"""The text of each script by its hash, for a server that does not know it yet."""


def with_text(command: Command) -> Command:
    """Return the command that also works where the server does not know the script."""
    _, name, *rest = command
    return ("EVAL", SCRIPTS[name], *rest)


_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_MATCHES = """
local function matches(pattern, event)
  if pattern == '*' then return true end
  if string.sub(pattern, -1) ~= '*' then return pattern == event end
  local head = string.sub(pattern, 1, -2)
  return string.sub(event, 1, #head) == head
end
"""
_INFO = """
local function info(list)
  local found = {}
  for i = 1, #list, 2 do found[list[i]] = list[i + 1] end
  return found
end
"""
# The counts of deliveries fence: who has lost a message may have been given it again.
_HOLDS = """
local function holds(stream, group, owner, id, count)
  local found = redis.call('XPENDING', stream, group, id, id, 1, owner)
  return #found == 1 and found[1][4] == tonumber(count)
end
"""
# Of many ids most stand side by side: one look finds these, each of the others needs a
# look of its own.
_MANY_HOLD = """
-- ARGV group owner count ids...
local counts, wanted = {}, tonumber(ARGV[3])
if #ARGV > 10 then
  local rows = redis.call(
    'XPENDING', KEYS[1], ARGV[1], ARGV[4], ARGV[#ARGV], 2 * #ARGV, ARGV[2])
  for _, row in ipairs(rows) do counts[row[1]] = row[4] end
end
local function is_held(id)
  return counts[id] == wanted or holds(KEYS[1], ARGV[1], ARGV[2], id, wanted)
end
"""
# A server answers nothing for an entry that somebody deleted, and forgets it.
_CLAIM = """
local taken, deleted = {}, 0
local function claim(stream, group, owner, idle, id, count)
  local got = redis.call('XCLAIM', stream, group, owner, idle, id)
  if #got == 1 and got[1] then
    taken[#taken + 1] = {id, count + 1, got[1][2]}
  elseif #redis.call('XRANGE', stream, id, id) == 0 then
    deleted = deleted + 1
  end
end
"""

SETUP: Final = Script(
    _MATCHES,
    _INFO,
    """
-- KEYS consumers types version; ARGV prefix name start types patterns...
local prefix, name, start = ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('HEXISTS', KEYS[1], name) == 1
if start == 'lost' then
  -- One that was removed, or never set up, is not made by its reader.
  if not known and redis.call('EXISTS', KEYS[3]) == 1 then return {0, {}} end
end
local function join(stream, from_first)
  -- Without a number of entries read: a server that starts again from its log would
  -- go on from that, and take what was read since then for unread.
  local made = redis.pcall(
    'XGROUP', 'CREATE', stream, name, from_first and '0' or '$', 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP') then error(made) end
  return made.err and 0 or 1
end
local made = join(prefix .. ':r:' .. name, true)
for i = 5, #ARGV do
  if string.sub(ARGV[i], -1) ~= '*' then redis.call('SADD', KEYS[2], ARGV[i]) end
end
local left = {}
for _, event in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local stream, wanted = prefix .. ':e:' .. event, false
  for i = 5, #ARGV do wanted = wanted or matches(ARGV[i], event) end
  if wanted then
    made = made + join(stream, start ~= 'now')
  elseif redis.call('EXISTS', stream) == 1 then
    local groups = redis.call('XINFO', 'GROUPS', stream)
    for _, group in ipairs(groups) do
      group = info(group)
      if group['name'] == name then
        -- What is delayed goes to the groups that there are when it is due.
        local later = prefix .. ':later:e:' .. event
        local needed = #groups == 1 and redis.call('EXISTS', later) == 1
        if group['pending'] == 0 and group['lag'] == 0 and not needed then
          redis.call('XGROUP', 'DESTROY', stream, name)
          if #groups == 1 then
            redis.call('DEL', stream)
            redis.call('SREM', KEYS[2], event)
          end
        else
          left[#left + 1] = event
        end
      end
    end
  end
end
redis.call('HSET', KEYS[1], name, ARGV[4])
redis.call('INCR', KEYS[3])
return {made, left}
""",
)
"""Makes what a consumer needs; returns how many groups, and dropped types in use."""

MAKE_STREAM: Final = Script(
    _MATCHES,
    """
-- KEYS consumers types version stream; ARGV event
local all, made = redis.call('HGETALL', KEYS[1]), 0
for i = 1, #all, 2 do
  for _, pattern in ipairs(cjson.decode(all[i + 1])) do
    if matches(pattern, ARGV[1]) then
      local got = redis.pcall('XGROUP', 'CREATE', KEYS[4], all[i], '0', 'MKSTREAM')
      if got.err and not string.find(got.err, 'BUSYGROUP') then error(got) end
      made = made + 1
      break
    end
  end
end
if made > 0 then
  redis.call('SADD', KEYS[2], ARGV[1])
  redis.call('INCR', KEYS[3])
end
return made
""",
)
"""Makes the stream of a type that is published first; returns how many consume it."""

DELAY: Final = Script(
    _NOW,
    """
-- KEYS stream later serial; ARGV milliseconds fields...
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local member = {redis.call('INCR', KEYS[3])}
for i = 2, #ARGV do member[i] = ARGV[i] end
redis.call('ZADD', KEYS[2], now + ARGV[1], cmsgpack.pack(member))
return 1
""",
)
"""Has an entry go into a stream later; answers nothing where there is no stream."""

LOOK: Final = Script(
    _NOW,
    """
-- KEYS version workers (later stream)...; ARGV owner beats most
-- A server without memory takes neither, and what it has can be handled all the same.
local refused = ''
local function is_taken(got)
  if type(got) == 'table' and got.err then refused = got.err end
  return refused == ''
end
if ARGV[2] == '1' then is_taken(redis.pcall('ZADD', KEYS[2], now, ARGV[1])) end
local left = tonumber(ARGV[3])
for i = 3, #KEYS, 2 do
  if left > 0 and refused == '' and redis.call('EXISTS', KEYS[i + 1]) == 1 then
    local due = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', 0, left)
    for _, member in ipairs(due) do
      local entry, to = cmsgpack.unpack(member), KEYS[i + 1]
      if not is_taken(redis.pcall('XADD', to, '*', unpack(entry, 2))) then break end
      redis.call('ZREM', KEYS[i], member)
      left = left - 1
    end
  end
end
return {redis.call('GET', KEYS[1]) or '', now, left, refused}
""",
)
"""Moves what is due; returns the version, the time in ms, how many more it might have
moved, and why the server takes no more."""

ACK: Final = Script(
    _HOLDS,
    _MANY_HOLD,
    """
-- KEYS stream; ARGV group owner count ids...
local answers, done = {}, {}
for i = 4, #ARGV do
  local held = is_held(ARGV[i])
  if held then done[#done + 1] = ARGV[i] end
  answers[#answers + 1] = held and 1 or 0
end
if #done > 0 then redis.call('XACK', KEYS[1], ARGV[1], unpack(done)) end
return answers
""",
)
"""Ends those that this owner holds; returns which ones."""

EXTEND: Final = Script(
    _HOLDS,
    _MANY_HOLD,
    """
-- KEYS stream; ARGV group owner count ids...
local answers = {}
for i = 4, #ARGV do
  local held = is_held(ARGV[i])
  if held then
    local kept = redis.call(
      'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    held = #kept == 1
  end
  answers[#answers + 1] = held and 1 or 0
end
return answers
""",
)
"""Keeps the leases of those that this owner holds; returns which ones."""

AGAIN: Final = Script(
    _HOLDS,
    _NOW,
    """
-- KEYS stream again later serial
-- ARGV group owner id count milliseconds fails fields...
if not holds(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]) then return 0 end
local entry = {}
for i = 7, #ARGV do entry[#entry + 1] = ARGV[i] end
if ARGV[6] == '1' then
  entry[#entry + 1] = 'failed'
  entry[#entry + 1] = string.format('%.3f', now / 1000)
end
local wait = tonumber(ARGV[5])
if wait > 0 then
  table.insert(entry, 1, redis.call('INCR', KEYS[4]))
  redis.call('ZADD', KEYS[3], now + wait, cmsgpack.pack(entry))
else
  redis.call('XADD', KEYS[2], '*', unpack(entry))
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
return 1
""",
)
"""Hands an entry to its consumer once more, if this owner holds it."""

BURY: Final = Script(
    _HOLDS,
    """
-- KEYS stream dead dead_of; ARGV group owner id count fields...
if not holds(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]) then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 5))
redis.call('SADD', KEYS[3], ARGV[1])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
return 1
""",
)
"""Keeps a dead letter in the place of its entry, if this owner holds it."""

RENAME: Final = Script(
    _INFO,
    """
-- KEYS consumers types version dead_of; ARGV prefix old new
local prefix, old, new = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HEXISTS', KEYS[1], old) == 0 then return 0 end
if redis.call('HEXISTS', KEYS[1], new) == 1 then return 0 end
local again, was = prefix .. ':r:' .. new, prefix .. ':r:' .. old
redis.pcall('XGROUP', 'CREATE', again, new, '0', 'MKSTREAM')
local function group_of(stream)
  if redis.call('EXISTS', stream) == 0 then return nil end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    group = info(group)
    if group['name'] == old then return group end
  end
end
local function hand_over(stream, id)
  for _, entry in ipairs(redis.call('XRANGE', stream, id, id)) do
    redis.call('XADD', again, '*', unpack(entry[2]))
  end
end
local function hand_over_held(stream, group)
  local count = group['pending']
  if count > 0 then
    for _, held in ipairs(redis.call('XPENDING', stream, old, '-', '+', count)) do
      hand_over(stream, held[1])
    end
  end
end
for _, event in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local stream = prefix .. ':e:' .. event
  local group = group_of(stream)
  if group then
    redis.call('XGROUP', 'CREATE', stream, new, group['last-delivered-id'])
    hand_over_held(stream, group)
    redis.call('XGROUP', 'DESTROY', stream, old)
  end
end
local group = group_of(was)
if group then
  hand_over_held(was, group)
  local after = '(' .. group['last-delivered-id']
  for _, entry in ipairs(redis.call('XRANGE', was, after, '+')) do
    hand_over(was, entry[1])
  end
end
redis.call('DEL', was)
for _, kind in ipairs({':later:r:', ':d:'}) do
  if redis.call('EXISTS', prefix .. kind .. old) == 1 then
    redis.call('RENAMENX', prefix .. kind .. old, prefix .. kind .. new)
  end
end
redis.call('SADD', KEYS[4], new)
redis.call('HSET', KEYS[1], new, redis.call('HGET', KEYS[1], old))
redis.call('HDEL', KEYS[1], old)
redis.call('INCR', KEYS[3])
return 1
""",
)
"""Gives what waits for a consumer to its new name; returns whether it did."""

CLAIM: Final = Script(
    _CLAIM,
    """
-- KEYS stream; ARGV group owner idle most
local idle = redis.call(
  'XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', ARGV[4])
for _, found in ipairs(idle) do
  if found[2] ~= ARGV[2] then
    claim(KEYS[1], ARGV[1], ARGV[2], ARGV[3], found[1], found[4])
  end
end
return {taken, deleted}
""",
)
"""Takes what others hold and have not extended; returns it with its count of
deliveries, and how many entries somebody has deleted."""

RECOVER: Final = Script(
    _CLAIM,
    """
-- KEYS stream; ARGV group owner ids...
for i = 3, #ARGV do
  local id = ARGV[i]
  local found = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])
  if #found == 1 then
    claim(KEYS[1], ARGV[1], ARGV[2], 0, id, found[1][4])
  end
end
return {taken, deleted}
""",
)
"""Reads again what this owner was given and has not seen; returns as CLAIM does."""

LEAVE: Final = Script(
    """
-- KEYS workers streams...; ARGV owner groups...
local left = 0
for i = 2, #KEYS do
  local held = redis.pcall('XPENDING', KEYS[i], ARGV[i], '-', '+', 1, ARGV[1])
  if not held.err then
    if #held == 0 then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[i], ARGV[i], ARGV[1])
    else
      left = left + 1
    end
  end
end
if left == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
return left
""",
)
"""Removes the name of a process from groups in which it holds nothing: a name takes
with it what is pending for it."""

TRIM: Final = Script(
    _INFO,
    _NOW,
    """
-- KEYS stream; ARGV milliseconds
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local function less(a, b)
  local x, y = string.match(a, '(%d+)-(%d+)')
  local z, w = string.match(b, '(%d+)-(%d+)')
  x, y, z, w = tonumber(x), tonumber(y), tonumber(z), tonumber(w)
  return x < z or (x == z and y < w)
end
local lowest
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  group = info(group)
  local first = group['last-delivered-id']
  if group['pending'] > 0 then
    first = redis.call('XPENDING', KEYS[1], group['name'])[2]
  end
  if not lowest or less(first, lowest) then lowest = first end
end
if not lowest then return 0 end
local oldest = string.format('%.0f-0', math.max(0, now - ARGV[1]))
if less(oldest, lowest) then lowest = oldest end
return redis.call('XTRIM', KEYS[1], 'MINID', lowest)
""",
)
"""Deletes entries that no group needs and that are old enough; returns how many."""

STATS: Final = Script(
    _INFO,
    _NOW,
    """
-- KEYS dead (stream later)...; ARGV group
local ready, held, scheduled, age, trimmed, names = 0, 0, 0, 0, 0, {}
for i = 2, #KEYS, 2 do
  scheduled = scheduled + redis.call('ZCARD', KEYS[i + 1])
  if redis.call('EXISTS', KEYS[i]) == 1 then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[i])) do
      group = info(group)
      if group['name'] == ARGV[1] then
        local after, lag = group['last-delivered-id'], group['lag']
        held = held + group['pending']
        for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[i], ARGV[1])) do
          names[#names + 1] = info(one)['name']
        end
        if after == '0-0' then
          -- It was given nothing yet, of all that ever came.
          lag = info(redis.call('XINFO', 'STREAM', KEYS[i]))['entries-added']
        elseif not lag then
          -- The server does not know, as after a start from its log.
          lag = #redis.call('XRANGE', KEYS[i], '(' .. after, '+', 'COUNT', 1000)
        end
        ready = ready + lag
        if lag > 0 then
          local length = redis.call('XLEN', KEYS[i])
          trimmed = trimmed + math.max(0, lag - length)
          local first = redis.call('XRANGE', KEYS[i], '(' .. after, '+', 'COUNT', 1)
          if #first == 1 then
            age = math.max(age, now - tonumber(string.match(first[1][1], '%d+')))
          end
        end
      end
    end
  end
end
return {ready, held, scheduled, redis.call('XLEN', KEYS[1]), age, trimmed, names}
""",
)
"""Returns what waits for a consumer, is held, scheduled, and dead, the age of the
oldest in ms, how much of what waited somebody has trimmed away, and who reads."""
