"""Redis scripts of the frontend: each is one atomic step (https://redis.io/docs/latest/develop/programmability/)."""

from __future__ import annotations

# Records a request, puts it on the list of pending ones and remembers its idempotency key. Safe to send twice.
# KEYS: request, pending, open, sequence, idempotency (or request again when there is none)
# ARGV: id, type, user, key, content, now, due, fingerprint (or ''), seconds to remember it, the content's name
# Returns {outcome, id}: 'new', 'same' (this was accepted before, as id) or 'other' (the key belongs to another request)
ACCEPT = """
if ARGV[8] ~= '' then
  local seen = redis.call('HMGET', KEYS[5], 'id', 'fingerprint')
  if seen[1] and seen[1] ~= ARGV[1] then
    if seen[2] == ARGV[8] then return {'same', seen[1]} end
    return {'other', seen[1]}
  end
end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'new', ARGV[1]} end
local remembered = ''
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[5], 'id', ARGV[1], 'fingerprint', ARGV[8])
  redis.call('EXPIRE', KEYS[5], ARGV[9])
  remembered = KEYS[5]
end
redis.call('HSET', KEYS[1], 'state', 'accepted', 'type', ARGV[2], 'user', ARGV[3], 'key', ARGV[4],
  ARGV[10], ARGV[5], 'accepted', ARGV[6], 'sequence', redis.call('INCR', KEYS[4]), 'idempotency', remembered)
redis.call('ZADD', KEYS[2], ARGV[7], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
return {'new', ARGV[1]}
"""

# Takes a request back that could not be handed over: the client is told 503.
# KEYS: request, pending, open; ARGV: id. Returns 1 when it was still there to take back.
WITHDRAW = """
local request = redis.call('HMGET', KEYS[1], 'state', 'idempotency')
if request[1] ~= 'accepted' then return 0 end
if request[2] and request[2] ~= '' then redis.call('DEL', request[2]) end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
"""
