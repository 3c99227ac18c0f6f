"""The steps on quotas in Redis that must happen as one.

All keys of a tenant carry one hash tag, so that every key of a script is in one slot of a cluster, and every key that a
script touches is declared. Redis's clock is the one that counts. Of each limit there is one key:

- of a minute (`r`) the text `used at`: units used at an instant. N a minute give back N units a millisecond, and 60,000
  units are one, so that all of it stays whole numbers. It is a token bucket, told by what is missing from it;
- of a day or month (`d`, `m`) the text `used start`: what was used in the window that began at `start`;
- of what runs at once (`c`) a sorted set of the claims that run, by the instant until which they are held.

A held claim has a record, a hash of its `body`, what was `reported` last and the windows it was granted in, and a
member in the tenant's `open`, a sorted set by the instant from which it is overdue. A claim that was granted elsewhere
leaves a key that says that it was charged. Keys live a minute longer than what they say matters, so that no step of a
clock makes them forget.

Arguments are words in one text, ARGV[1]: a client packs one text in a fraction of the time that it takes for twenty.
"""

from typing import Final

_COMMON: Final = """
local UNITS, SPARE_MS = 60000, 60000
local A = {}
for word in string.gmatch(ARGV[1], '%S+') do A[#A + 1] = word end
local now = tonumber(A[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local function text(used, at) return string.format('%.0f %.0f', used, at) end
local function read(key)
  local used, at = string.match(redis.call('GET', key) or '', '^(%d+) (%d+)$')
  return tonumber(used or 0), tonumber(at or 0)
end
local function flowed(key, maximum)
  local used, at = read(key)
  if at > now then  -- the clock was put back: what is used flows back from now on, not only when it is that late again
    redis.call('SET', key, text(used, now), 'KEEPTTL')
    at = now
  end
  return math.max(0, used - (now - at) * maximum)
end
-- When the day or month of now begins and ends, of months that begin at these instants.
local DAY_MS = 86400000
local function window(kind, ...)
  if kind == 'd' then return now - now % DAY_MS, now - now % DAY_MS + DAY_MS end
  local starts = {...}
  local at = 1
  while at < #starts - 1 and now >= tonumber(starts[at + 1]) do at = at + 1 end
  return tonumber(starts[at]), tonumber(starts[at + 1])
end
local function put_window(key, used, start, ends)
  redis.call('SET', key, text(used, start), 'PX', ends - now + SPARE_MS)
end
local function put_flow(key, used, maximum)
  redis.call('SET', key, text(used, now), 'PX', string.format('%.0f', math.ceil(used / maximum) + SPARE_MS))
end
"""

# KEYS: record, open, then one per limit.
# Words: now or '-', id, hold_ms, record_ms, how ('known' in it: nothing is done where a day or month has no count yet;
# 'held' in it: something is held), when the months around this one begin (4), then for each limit its kind, maximum,
# burst and amount. ARGV[2]: body.
# Returns: for each limit whether it fits, what remains, ms until it fits (-1: never) and ms until it is whole; nothing
# where nothing was done.
TAKE: Final = (
    _COMMON
    + """
local RETRY_MS, FIRST = 1000, 10
local granted, found = true, {}
for i = 3, #KEYS do
  local at = FIRST + (i - 3) * 4
  local one = {key = KEYS[i], kind = A[at], maximum = tonumber(A[at + 1]), burst = tonumber(A[at + 2]),
               amount = tonumber(A[at + 3]), scale = 1}
  if one.kind == 'r' then
    one.scale, one.used = UNITS, flowed(one.key, one.maximum)
  elseif one.kind == 'c' then
    redis.call('ZREMRANGEBYSCORE', one.key, '-inf', now)
    one.used = redis.call('ZCARD', one.key)
  else
    one.start, one.ends = window(one.kind, A[6], A[7], A[8], A[9])
    local used, start = read(one.key)
    if start ~= one.start and string.find(A[5], 'known') then return {} end
    one.used = start == one.start and used or 0
  end
  one.fits = one.used + one.amount * one.scale <= one.burst * one.scale
  granted = granted and one.fits
  found[#found + 1] = one
end
local answer = {}
for _, one in ipairs(found) do
  local used, wait, reset = one.used, 0, 0
  if granted then
    used = used + one.amount * one.scale
    if one.kind == 'r' then
      put_flow(one.key, used, one.maximum)
    elseif one.kind == 'c' then
      if one.amount > 0 then
        redis.call('ZADD', one.key, now + A[3], A[2])
        redis.call('PEXPIRE', one.key, A[3] + SPARE_MS)
      end
    else
      put_window(one.key, used, one.start, one.ends)
    end
  end
  if one.kind == 'r' then
    wait = math.ceil((one.used + (one.amount - one.burst) * UNITS) / one.maximum)
    reset = math.ceil(used / one.maximum)
  elseif one.kind == 'c' then
    wait = RETRY_MS
  else
    wait, reset = one.ends - now, one.ends - now
  end
  if one.fits then wait = 0 elseif one.amount > one.burst then wait = -1 end
  answer[#answer + 1] = one.fits and 1 or 0
  answer[#answer + 1] = math.max(0, math.floor((one.burst * one.scale - used) / one.scale))
  answer[#answer + 1] = wait
  answer[#answer + 1] = reset
end
if granted and string.find(A[5], 'held') then
  local day, month = window('d'), window('m', A[6], A[7], A[8], A[9])
  redis.call('HSET', KEYS[1], 'body', ARGV[2], 'd', day, 'm', month)
  redis.call('PEXPIRE', KEYS[1], A[4])
  redis.call('ZADD', KEYS[2], now + A[3], A[2])
  redis.call('PEXPIRE', KEYS[2], A[4])
end
return answer
"""
)

# KEYS: record, open, then one per limit.
# Words: now or '-', id, then for each limit its kind, maximum, and what is to be added to what was claimed.
# Returns: 1, or 0 where the claim had been ended before.
END: Final = (
    _COMMON
    + """
redis.call('ZREM', KEYS[2], A[2])
local windows = redis.call('HMGET', KEYS[1], 'd', 'm')
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
for i = 3, #KEYS do
  local at = 3 + (i - 3) * 3
  local key, kind, maximum, change = KEYS[i], A[at], tonumber(A[at + 1]), tonumber(A[at + 2])
  if kind == 'c' then
    redis.call('ZREM', key, A[2])
  elseif kind == 'r' then
    if change ~= 0 then put_flow(key, math.max(0, flowed(key, maximum) + change * UNITS), maximum) end
  else
    local used, start = read(key)
    if start == tonumber(windows[kind == 'd' and 1 or 2]) then
      redis.call('SET', key, text(math.max(0, used + change), start), 'KEEPTTL')
    end
  end
end
return 1
"""
)

# KEYS: what says that it was done, then one per limit. Words: now or '-', ms for which that is remembered, when the
# months around this one begin (4), then for each limit its kind, maximum, and what was used of it. Charges what was let
# in elsewhere, whether or not there is room. Returns: 1, or 0 where it had been done before: an answer was lost.
CHARGE: Final = (
    _COMMON
    + """
if not redis.call('SET', KEYS[1], '', 'NX', 'PX', A[2]) then return 0 end
for i = 2, #KEYS do
  local at = 7 + (i - 2) * 3
  local key, kind, maximum, amount = KEYS[i], A[at], tonumber(A[at + 1]), tonumber(A[at + 2])
  if kind == 'r' then
    put_flow(key, flowed(key, maximum) + amount * UNITS, maximum)
  elseif kind ~= 'c' then
    local begins, ends = window(kind, A[3], A[4], A[5], A[6])
    local used, start = read(key)
    put_window(key, (start == begins and used or 0) + amount, begins, ends)
  end
end
return 1
"""
)

# KEYS: one per limit. Words: now or '-', when the months around this one begin (4), then for each limit its kind and
# what was used of it, as others know. Raises what a day or month counts to that. Returns: 1.
FLOOR: Final = (
    _COMMON
    + """
for i = 1, #KEYS do
  local at = 6 + (i - 1) * 2
  local kind, amount = A[at], tonumber(A[at + 1])
  if kind == 'd' or kind == 'm' then
    local begins, ends = window(kind, A[2], A[3], A[4], A[5])
    local used, start = read(KEYS[i])
    if start ~= begins or used < amount then put_window(KEYS[i], amount, begins, ends) end
  end
end
return 1
"""
)

# KEYS: record, open, then one per limit on what runs at once. Words: now or '-', id, hold_ms, record_ms. ARGV[2]: what
# was used. Returns: 1, or 0 where the claim had been ended before.
RENEW: Final = (
    _COMMON
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'reported', ARGV[2])
redis.call('PEXPIRE', KEYS[1], A[4])
redis.call('ZADD', KEYS[2], now + A[3], A[2])
redis.call('PEXPIRE', KEYS[2], A[4])
for i = 3, #KEYS do
  redis.call('ZADD', KEYS[i], now + A[3], A[2])
  redis.call('PEXPIRE', KEYS[i], A[3] + SPARE_MS)
end
return 1
"""
)

# KEYS: open. Words: now or '-', how many at most. Returns: ids of claims that are overdue.
OVERDUE: Final = (
    _COMMON
    + """
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, A[2])
"""
)

# KEYS: replicas, a sorted set by the instant until which each counts. Words: now or '-', id, hold_ms.
# Returns: how many there are. What adds comes first: a Redis that is full lets it pass where a script has written.
BEAT: Final = (
    _COMMON
    + """
redis.call('ZADD', KEYS[1], now + A[3], A[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], A[3])
return redis.call('ZCARD', KEYS[1])
"""
)
