"""The effect of a request: one atomic step in Redis, so that doing it twice, or half, can't happen."""

from __future__ import annotations

import time
from typing import Any

from . import keys
from .settings import KEEP_SECONDS, RESEND_AFTER_SECONDS

# Gives a request its effect unless it has had it. A request accepted later wins over one that was accepted earlier,
# whichever runs first; `wanted: false` entries remember cancellations, `<key>/*` one of all that a key had.
# KEYS: request, pending, open, desired, journal, users, dirty
# ARGV: id, now, seconds to keep the record
# Returns 'gone' (the request was taken back), 'before' (it had its effect before) or 'done'
EFFECT = """
local r = redis.call('HMGET', KEYS[1], 'state', 'type', 'user', 'key', 'connections', 'sequence')
if r[1] ~= 'accepted' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  if r[1] then return 'before' end
  return 'gone'
end
local kind, key, sequence = r[2], r[4], tonumber(r[6])
local applied, superseded = 0, 0
local function later(place)
  local old = redis.call('HGET', KEYS[4], place)
  return old and cjson.decode(old)['sequence'] > sequence
end
local function put(place, entry)
  if later(place) or later(key .. '/*') then
    superseded = superseded + 1
  else
    entry['sequence'] = sequence
    redis.call('HSET', KEYS[4], place, cjson.encode(entry))
    applied = applied + 1
  end
end
local function cancel(place)
  local old = redis.call('HGET', KEYS[4], place)
  local entry = old and cjson.decode(old) or {}
  entry['wanted'] = false
  put(place, entry)
end
local connections = cjson.decode(r[5])
if kind == 'cancel' and #connections == 0 then
  for _, place in ipairs(redis.call('HKEYS', KEYS[4])) do
    if string.sub(place, 1, #key + 1) == key .. '/' and place ~= key .. '/*' then cancel(place) end
  end
  if not later(key .. '/*') then
    redis.call('HSET', KEYS[4], key .. '/*', cjson.encode({wanted = false, sequence = sequence}))
  end
end
for _, c in ipairs(connections) do
  if kind == 'cancel' then cancel(key .. '/' .. c['name'])
  else put(key .. '/' .. c['name'], {type = kind, address = c['address'], port = c['port'], wanted = true}) end
end
redis.call('XADD', KEYS[5], 'MAXLEN', '~', 100000, '*', 'id', ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HSET', KEYS[1], 'state', 'done', 'done', ARGV[2], 'applied', applied, 'superseded', superseded)
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('SADD', KEYS[6], r[3])
redis.call('INCR', KEYS[7])
return 'done'
"""

# Takes pending requests whose time has come, and puts off their next time, so that nobody else sends them too.
# KEYS: pending; ARGV: now, next time, at most so many
CLAIM = """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(due) do redis.call('ZADD', KEYS[1], ARGV[2], id) end
return due
"""


def effect(client: Any, identity: str) -> str:
    """Give a request its effect, once.

    Args:
        client: Redis.
        identity: The request's id.

    Returns:
        `done`, `before` (it had its effect before) or `gone` (it was taken back; its client heard 503).
    """
    record = keys.request(identity)
    user = client.hget(record, "user") or ""
    places = [record, keys.PENDING, keys.opened(user), keys.desired(user), keys.JOURNAL, keys.USERS, keys.DIRTY]
    return str(client.eval(EFFECT, len(places), *places, identity, time.time(), KEEP_SECONDS))


def due(client: Any, room: int = 500) -> list[str]:
    """Claim pending requests that are to be sent again.

    Args:
        client: Redis.
        room: How full the queue may get.

    Returns:
        Ids; none while the queue is full, for then it is the workers that lag and not the messages that are lost.
    """
    now, free = time.time(), room - int(client.llen(keys.QUEUE))
    if free <= 0:
        return []
    return [str(i) for i in client.eval(CLAIM, 1, keys.PENDING, now, now + RESEND_AFTER_SECONDS, free)]
