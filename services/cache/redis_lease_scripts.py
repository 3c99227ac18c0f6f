"""The steps on the leases in Redis that must happen as one.

A lease is a hash that expires: `token` is its id, `owner` the replica that renews it, `ttl_ms` what its holder asked
for; `followed` is there once another replica waits for the answer, and `streamed` once chunks of it are in the stream
beside it. That stream begins anew with each lease; its records name the lease that they are of. Whatever concerns
another replica is also published on one channel, as `<token> <sender>`: a reason to look, never news by itself.
"""

from typing import Final

from services.cache.entry import MARK_BYTES

# KEYS: lease, stream, entry. ARGV: token, owner, ttl_ms, renewal_ms, channel.
# Returns: the token that leads now, the milliseconds that it lasts at least, and if it is ours the entry's body.
CLAIM: Final = """
local token = redis.call('HGET', KEYS[1], 'token')
if token then
  if redis.call('HSETNX', KEYS[1], 'followed', '1') == 1 then
    redis.call('PUBLISH', ARGV[5], token .. ' ' .. ARGV[2])
  end
  return {token, redis.call('PTTL', KEYS[1])}
end
local body = redis.call('HGET', KEYS[3], 'body')
local seen = body and string.sub(body, 1, MARK_BYTES) or ''
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'owner', ARGV[2], 'ttl_ms', ARGV[3], 'seen', seen)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {ARGV[1], tonumber(ARGV[4]), body}
""".replace("MARK_BYTES", str(MARK_BYTES))

# KEYS: lease, stream. ARGV: token, owner, renewal_ms.
# Returns: whose the lease is ('ours', 'adopted' by another replica, or 'gone'), and whether it is followed.
RENEW: Final = """
local lease = redis.call('HMGET', KEYS[1], 'token', 'owner', 'followed')
if lease[1] ~= ARGV[1] then return {'gone', 0} end
if lease[2] ~= ARGV[2] then return {'adopted', 0} end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {'ours', lease[3] and 1 or 0}
"""

# KEYS: lease. ARGV: token. Returns: the milliseconds that the lease lasts, or -1 if it has ended.
CHECK: Final = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return -1 end
return redis.call('PTTL', KEYS[1])
"""

# KEYS: lease. ARGV: token, new owner, channel. Returns: the ttl_ms asked for, or -1 if the lease cannot be adopted.
ADOPT: Final = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return -1 end
if redis.call('HEXISTS', KEYS[1], 'streamed') == 1 then return -1 end
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'followed', '1')
redis.call('PUBLISH', ARGV[3], ARGV[1] .. ' ' .. ARGV[2])
return tonumber(redis.call('HGET', KEYS[1], 'ttl_ms'))
"""

# KEYS: lease, stream. ARGV: token, position. Returns: whether the lease is still that one, and the records behind the
# position. In one step, for the next lease clears the stream: what was not read by then is gone with its lease.
READ: Final = """
local current = redis.call('HGET', KEYS[1], 'token') == ARGV[1]
return {current and 1 or 0, redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+')}
"""

# KEYS: lease, stream. ARGV: token, owner, renewal_ms, channel, record. Returns: 1, or 0 if the lease is not ours.
APPEND: Final = """
local lease = redis.call('HMGET', KEYS[1], 'token', 'owner')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'streamed', '1')
redis.call('XADD', KEYS[2], '*', 'token', ARGV[1], 'record', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[1] .. ' ' .. ARGV[2])
return 1
"""

# KEYS: lease, stream. ARGV: sender, channel, keep_ms, record or '' (told later, if anyone wants it), token or '' for
# any that is not streamed, '1' if the sender must be its owner, mark of the entry that makes any other lease needless.
# Returns: 1 if it ended the lease, 0 if there was none to end, -1 if the record is wanted and was not given.
END: Final = """
local lease = redis.call('HMGET', KEYS[1], 'token', 'owner', 'followed', 'streamed', 'seen')
local token, owner, followed, streamed, seen = lease[1], lease[2], lease[3], lease[4], lease[5]
if not token or ARGV[5] ~= '' and ARGV[5] ~= token then return 0 end
if ARGV[5] == '' and (streamed or seen == ARGV[7]) then return 0 end
if ARGV[6] == '1' and owner ~= ARGV[1] then return 0 end
local wanted = followed or owner ~= ARGV[1]
if wanted and ARGV[4] == '' then return -1 end
redis.call('DEL', KEYS[1])
if wanted then
  redis.call('XADD', KEYS[2], '*', 'token', token, 'record', ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  redis.call('PUBLISH', ARGV[2], token .. ' ' .. ARGV[1])
else
  redis.call('DEL', KEYS[2])
end
return 1
"""
