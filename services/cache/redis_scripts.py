"""The steps on Redis that must happen as one.

All keys of a tenant carry one hash tag, so that a script's keys share a slot of a cluster, and every key that a script
touches is declared. Beside the entries, each of which expires by itself, a tenant has an index: `gone`, a sorted set of
members by the instant at which they are gone; `meta`, a hash of each member's nonce and size; `bytes`, their sum. A
member is `<namespace>.<entry>`, both in hex. A member of a tag's sorted set also has the nonce, so that a tag never
reaches an answer stored later under the same key.
"""

from typing import Final

# Removes what has gone from the index; the entries have expired by themselves. At most 64 a time.
_SWEEP: Final = """
local function sweep(gone, meta, bytes, now_ms)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', gone, '-inf', now_ms, 'LIMIT', 0, 64)) do
    local old = redis.call('HGET', meta, member)
    if old then redis.call('DECRBY', bytes, string.match(old, ':(%d+)$')) end
    redis.call('HDEL', meta, member)
    redis.call('ZREM', gone, member)
  end
end
"""

# KEYS: entry, gone, meta, bytes, tags... ARGV: body, member, nonce, size, gone_ms, now_ms.
# Returns: the tenant's entries and bytes.
PUT: Final = (
    _SWEEP
    + """
local member, nonce, size, gone_ms, now_ms = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
sweep(KEYS[2], KEYS[3], KEYS[4], now_ms)
local old = redis.call('HGET', KEYS[3], member)
if old then redis.call('DECRBY', KEYS[4], string.match(old, ':(%d+)$')) end
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', gone_ms)
redis.call('ZADD', KEYS[2], gone_ms, member)
redis.call('HSET', KEYS[3], member, nonce .. ':' .. size)
redis.call('INCRBY', KEYS[4], size)
for i = 5, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now_ms)
  redis.call('ZADD', KEYS[i], gone_ms, member .. '.' .. nonce)
end
for i = 2, #KEYS do
  redis.call('PEXPIREAT', KEYS[i], gone_ms, 'NX')
  redis.call('PEXPIREAT', KEYS[i], gone_ms, 'GT')
end
return {redis.call('ZCARD', KEYS[2]), tonumber(redis.call('GET', KEYS[4]))}
"""
)

# KEYS: gone, meta, bytes, entries... ARGV: for each entry its member, and its nonce or '' for any; '1' to only count.
# Returns: how many were there.
REMOVE: Final = """
local count = 0
for i = 4, #KEYS do
  local member, nonce = ARGV[2 * (i - 3) - 1], ARGV[2 * (i - 3)]
  local old = redis.call('HGET', KEYS[2], member)
  local fits = old and (nonce == '' or string.match(old, '^(.*):') == nonce)
  if fits and redis.call('EXISTS', KEYS[i]) == 1 then count = count + 1 end
  if fits and ARGV[#ARGV] ~= '1' then
    redis.call('DEL', KEYS[i])
    redis.call('ZREM', KEYS[1], member)
    redis.call('HDEL', KEYS[2], member)
    redis.call('DECRBY', KEYS[3], string.match(old, ':(%d+)$'))
  end
end
return count
"""
