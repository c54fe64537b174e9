"""The Lua scripts of `RedisLog`. The server runs one at a time, and replicates what it has written, not the script."""

from __future__ import annotations

# KEYS: header, stream, identities, then the sorted set of each event's user.
# ARGV: log_id, then of each event its identity, content, source, event_id, source_user_id, ts, body.
# Returns for each event 0 (new), 1 (duplicate) or 2 (conflict), and its number. An identity maps to 8 bytes of content
# and the number. A server without memory refuses the first write, so nothing is stored in part.
APPEND = """
if redis.call('HGET', KEYS[1], 'log_id') ~= ARGV[1] then
    return redis.error_reply('REPLACED the event log was replaced while it was open')
end
local last = tonumber(redis.call('HGET', KEYS[1], 'last_seq'))
local answers = {}
for n = 1, #KEYS - 3 do
    local at = 7 * n - 5
    local known = redis.call('HGET', KEYS[3], ARGV[at])
    if known then
        answers[2 * n - 1] = string.sub(known, 1, 8) == ARGV[at + 1] and 1 or 2
        answers[2 * n] = tonumber(string.sub(known, 9))
    else
        last = last + 1
        local seq = string.format('%d', last)
        redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1] .. seq)
        redis.call('XADD', KEYS[2], seq .. '-0', 'source', ARGV[at + 2], 'event_id', ARGV[at + 3],
            'source_user_id', ARGV[at + 4], 'ts', ARGV[at + 5], 'body', ARGV[at + 6])
        redis.call('ZADD', KEYS[3 + n], seq, seq)
        redis.call('HSET', KEYS[1], 'last_seq', seq)
        answers[2 * n - 1], answers[2 * n] = 0, last
    end
end
return answers
"""

# KEYS: stream, then the sorted set of each user. ARGV: a number, and how many entries to return of each user, -1 for
# all. Returns the last entries of the stream after that number.
EVENTS_OF = """
local entries = {}
for n = 2, #KEYS do
    for _, seq in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[n], '+inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])) do
        entries[#entries + 1] = redis.call('XRANGE', KEYS[1], seq .. '-0', seq .. '-0')[1]
    end
end
return entries
"""

# KEYS: header, stream, list of removed identities, then the sorted set of each user of the events to remove.
# ARGV: log_id, first and last number to remove, and "<time>:<16 bytes of each identity>" to append to the list.
# Returns how many were removed: none if another compaction was faster.
REMOVE = """
local header = redis.call('HMGET', KEYS[1], 'log_id', 'first_seq')
if header[1] ~= ARGV[1] or header[2] ~= ARGV[2] then
    return 0
end
for n = 4, #KEYS do
    redis.call('ZREMRANGEBYSCORE', KEYS[n], '-inf', ARGV[3])
end
local next_seq = string.format('%d', tonumber(ARGV[3]) + 1)
redis.call('XTRIM', KEYS[2], 'MINID', next_seq .. '-0')
redis.call('RPUSH', KEYS[3], ARGV[4])
redis.call('HSET', KEYS[1], 'first_seq', next_seq)
return tonumber(next_seq) - tonumber(ARGV[2])
"""

# KEYS: list of removed identities, identities. ARGV: a time. Forgets the oldest element of the list if it is not after
# that time. Returns how many identities it held, or -1 if there is none so old.
FORGET = """
local oldest = redis.call('LINDEX', KEYS[1], 0)
if not oldest then
    return -1
end
local colon = string.find(oldest, ':', 1, true)
if tonumber(string.sub(oldest, 1, colon - 1)) > tonumber(ARGV[1]) then
    return -1
end
for at = colon + 1, #oldest, 16 do
    redis.call('HDEL', KEYS[2], string.sub(oldest, at, at + 15))
end
redis.call('LPOP', KEYS[1])
return (#oldest - colon) / 16
"""
