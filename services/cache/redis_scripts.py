"""The steps on the entries in Redis that must happen as one.

All keys of a tenant carry one hash tag, so that a script's keys share a slot of a cluster, and every key that a script
touches is declared. An entry is a hash of its `body` and, where it has an embedding, its `outline`; it expires by
itself. Beside the entries a tenant has an index: `gone`, a sorted set of members by the instant at which they are gone;
`score`, one by what they are worth (services/cache/worth.py has the rule); `meta`, a hash of each member's
nonce:size:density:uses; `bytes`, the sum of the sizes; `floor`, that of the scores. A member is `<namespace>.<entry>`,
both in hex. A member of a tag's sorted set also has the nonce, so that a tag never reaches an answer stored later under
the same key.
"""

from typing import Final

# Most members that one script removes because they have gone: Redis does nothing else meanwhile.
SWEEP_COUNT: Final = 256

_PARTS: Final = """
local function parts(row) return string.match(row, '^(.*):(%d+):([^:]+):(%d+)$') end
"""

# Removes what has gone from the index; the entries have expired by themselves. Returns how many.
_SWEEP: Final = (
    _PARTS
    + """
local function sweep(gone, score, meta, bytes, now_ms)
  local members = redis.call('ZRANGEBYSCORE', gone, '-inf', now_ms, 'LIMIT', 0, SWEEP_COUNT)
  for _, member in ipairs(members) do
    local row = redis.call('HGET', meta, member)
    if row then
      local _, size = parts(row)
      redis.call('DECRBY', bytes, size)
    end
    redis.call('HDEL', meta, member)
    redis.call('ZREM', gone, member)
    redis.call('ZREM', score, member)
  end
  return #members
end
""".replace("SWEEP_COUNT", str(SWEEP_COUNT))
)

# KEYS: gone, score, meta, bytes. ARGV: now_ms. Returns: entries, bytes, how many were swept.
SIZE: Final = (
    _SWEEP
    + """
local swept = sweep(KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1])
return {redis.call('ZCARD', KEYS[1]), tonumber(redis.call('GET', KEYS[4]) or 0), swept}
"""
)

# KEYS: entry, gone, score, meta, bytes, floor, tags...
# ARGV: body, outline or '', member, nonce, size, density, gone_ms, now_ms, then members and how often each was used.
# Returns: the tenant's entries and bytes, how many were swept, and the nonce of a replaced entry that had an outline.
PUT: Final = (
    _SWEEP
    + """
local body, outline, member, nonce, size = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local density, gone_ms, now_ms = ARGV[6], ARGV[7], ARGV[8]
local swept = sweep(KEYS[2], KEYS[3], KEYS[4], KEYS[5], now_ms)
redis.call('SET', KEYS[6], '0', 'NX')
local floor = tonumber(redis.call('GET', KEYS[6]))
for i = 9, #ARGV, 2 do
  local row = redis.call('HGET', KEYS[4], ARGV[i])
  if row then
    local its_nonce, its_size, its_density, uses = parts(row)
    uses = uses + ARGV[i + 1]
    redis.call('HSET', KEYS[4], ARGV[i], string.format('%s:%s:%s:%d', its_nonce, its_size, its_density, uses))
    redis.call('ZADD', KEYS[3], floor + (1 + uses) * its_density, ARGV[i])
  end
end
local uses, outlined = 0, ''
local row = redis.call('HGET', KEYS[4], member)
if row then
  local its_nonce, its_size, _, its_uses = parts(row)
  uses = tonumber(its_uses)
  if redis.call('HEXISTS', KEYS[1], 'outline') == 1 then outlined = its_nonce end
  redis.call('DECRBY', KEYS[5], its_size)
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'body', body)
if outline ~= '' then redis.call('HSET', KEYS[1], 'outline', outline) end
redis.call('PEXPIREAT', KEYS[1], gone_ms)
redis.call('ZADD', KEYS[2], gone_ms, member)
redis.call('ZADD', KEYS[3], floor + (1 + uses) * density, member)
redis.call('HSET', KEYS[4], member, string.format('%s:%s:%s:%d', nonce, size, density, uses))
redis.call('INCRBY', KEYS[5], size)
for i = 7, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now_ms)
  redis.call('ZADD', KEYS[i], gone_ms, member .. '.' .. nonce)
end
for i = 2, #KEYS do
  redis.call('PEXPIREAT', KEYS[i], gone_ms, 'NX')
  redis.call('PEXPIREAT', KEYS[i], gone_ms, 'GT')
end
return {redis.call('ZCARD', KEYS[2]), tonumber(redis.call('GET', KEYS[5])), swept, outlined}
"""
)

# KEYS: gone, score, meta, bytes, floor, entries...
# ARGV: for each entry its member, and its nonce or '' for any; then 'delete', 'evict' or 'count'.
# Returns: how many were there; then, of those removed that had an outline, members and nonces.
REMOVE: Final = (
    _PARTS
    + """
local result, mode = {0}, ARGV[#ARGV]
for i = 6, #KEYS do
  local member, nonce = ARGV[2 * (i - 5) - 1], ARGV[2 * (i - 5)]
  local row = redis.call('HGET', KEYS[3], member)
  if row then
    local its_nonce, size = parts(row)
    if nonce == '' or nonce == its_nonce then
      if redis.call('EXISTS', KEYS[i]) == 1 then result[1] = result[1] + 1 end
      if mode ~= 'count' then
        if redis.call('HEXISTS', KEYS[i], 'outline') == 1 then
          table.insert(result, member)
          table.insert(result, its_nonce)
        end
        if mode == 'evict' then redis.call('SET', KEYS[5], redis.call('ZSCORE', KEYS[2], member), 'KEEPTTL') end
        redis.call('DEL', KEYS[i])
        redis.call('ZREM', KEYS[1], member)
        redis.call('ZREM', KEYS[2], member)
        redis.call('HDEL', KEYS[3], member)
        redis.call('DECRBY', KEYS[4], size)
      end
    end
  end
end
return result
"""
)

# KEYS: entries... Returns: their outlines.
OUTLINES: Final = """
local outlines = {}
for i = 1, #KEYS do outlines[i] = redis.call('HGET', KEYS[i], 'outline') end
return outlines
"""
