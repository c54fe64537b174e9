"""The Lua scripts of `RedisLog`. The server runs one at a time, and replicates what it has written, not the script."""

from __future__ import annotations

# KEYS: header, stream, identities, tombstones, then the sorted set of each event's user.
# ARGV: log_id, 1 if tombstones are given (else 0), then of each event its identity, content, source, event_id,
# source_user_id, ts, body, and the tombstones of the users that it names, one after the other.
# Returns for each event 0 (new), 1 (duplicate), 2 (conflict) or 3 (erased), and its number. An identity maps to 8 bytes
# of content and the number. A server without memory refuses the first write, so nothing is stored in part.
APPEND = """
local header = redis.call('HMGET', KEYS[1], 'log_id', 'last_seq', 'erasures')
if header[1] ~= ARGV[1] then
    return redis.error_reply('REPLACED the event log was replaced while it was open')
end
local erasures = header[3] and tonumber(header[3]) > 0
if erasures and ARGV[2] == '0' then
    return redis.error_reply('UNHASHED users were erased')
end
local last = tonumber(header[2])
local answers = {}
for n = 1, #KEYS - 4 do
    local at = 8 * n - 5
    local known = redis.call('HGET', KEYS[3], ARGV[at])
    local erased = false
    for first = 1, erasures and #ARGV[at + 7] or 0, 32 do
        erased = erased or redis.call('SISMEMBER', KEYS[4], string.sub(ARGV[at + 7], first, first + 31)) == 1
    end
    if erased then
        answers[2 * n - 1], answers[2 * n] = 3, 0
    elseif known then
        answers[2 * n - 1] = string.sub(known, 1, 8) == ARGV[at + 1] and 1 or 2
        answers[2 * n] = tonumber(string.sub(known, 9))
    else
        last = last + 1
        local seq = string.format('%d', last)
        redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1] .. seq)
        redis.call('XADD', KEYS[2], seq .. '-0', 'source', ARGV[at + 2], 'event_id', ARGV[at + 3],
            'source_user_id', ARGV[at + 4], 'ts', ARGV[at + 5], 'body', ARGV[at + 6])
        redis.call('ZADD', KEYS[4 + n], seq, seq)
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
# ARGV: log_id, first and last number to remove, "<time>:<16 bytes of each identity>" to append to the list, and how
# many events there are. Returns how many were removed: none if another compaction was faster.
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
return tonumber(ARGV[5])
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

# An erasure has four steps, each done again by a further erasure: tombstones, events, a copy of the stream, and the
# files of the server. A stream only marks what is deleted, so that its bytes would stay: what is left is copied.

# KEYS: header, tombstones, copy. ARGV: log_id, format, token, then tombstones. From here on no event of these users is
# appended. An erasure that has begun before cannot end any more (`copying`): its copy may have what this one removes.
BEGIN_ERASING = """
if redis.call('HGET', KEYS[1], 'log_id') ~= ARGV[1] then
    return redis.error_reply('REPLACED the event log was replaced while it was open')
end
for n = 4, #ARGV do
    redis.call('SADD', KEYS[2], ARGV[n])
end
redis.call('HSET', KEYS[1], 'format', ARGV[2], 'erasures', redis.call('SCARD', KEYS[2]), 'copying', ARGV[3])
redis.call('DEL', KEYS[3])
return 1
"""

# KEYS: stream, identities, then the sorted set of each event's user. ARGV: number and identity of each event.
# Returns how many events were removed.
ERASE = """
local removed = 0
for n = 1, #KEYS - 2 do
    removed = removed + redis.call('XDEL', KEYS[1], ARGV[2 * n - 1] .. '-0')
    redis.call('HDEL', KEYS[2], ARGV[2 * n])
    redis.call('ZREM', KEYS[2 + n], ARGV[2 * n - 1])
end
return removed
"""

# KEYS: header, stream, copy. ARGV: token, a number, how many events. Copies the first events after that number. Returns
# the number of the last one; or 0 if there were fewer, so that the copy is complete, and has taken the stream's place.
COPY = """
if redis.call('HGET', KEYS[1], 'copying') ~= ARGV[1] then
    return redis.error_reply('ERASING another erasure has begun')
end
local entries = redis.call('XRANGE', KEYS[2], ARGV[2] .. '-1', '+', 'COUNT', ARGV[3])
for _, entry in ipairs(entries) do
    redis.call('XADD', KEYS[3], entry[1], unpack(entry[2]))
end
if #entries == tonumber(ARGV[3]) then
    return tonumber(string.match(entries[#entries][1], '^%d+'))
end
if redis.call('EXISTS', KEYS[3]) == 1 then
    redis.call('XTRIM', KEYS[3], 'MINID', redis.call('HGET', KEYS[1], 'first_seq') .. '-0')
    redis.call('RENAME', KEYS[3], KEYS[2])
else
    redis.call('DEL', KEYS[2])
end
redis.call('HDEL', KEYS[1], 'copying')
return 0
"""
